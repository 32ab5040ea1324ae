"""Tests of the checkers: what they say to right answers, to wrong ones (tests/support/answers), and to odd ones."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from ssdlib import exercises
from ssdlib.exercises.checking import Case, Mistake, Unreadable, as_tensor, check

ANSWERS: dict[str, tuple[list[Any], list[tuple[Any, str]]]] = {}
"""For each checker: right answers, and wrong ones with words that have to be in the reply."""
for _path in sorted((Path(__file__).parents[1] / "support" / "answers").glob("*.py")):
    ANSWERS |= importlib.import_module(f"support.answers.{_path.stem}").ANSWERS

RIGHT = [pytest.param(n, a, id=f"{n}-{i}") for n, (right, _) in ANSWERS.items() for i, a in enumerate(right)]
WRONG = [pytest.param(n, *pair, id=f"{n}-{i}") for n, (_, wrong) in ANSWERS.items() for i, pair in enumerate(wrong)]


def reply(capsys: pytest.CaptureFixture[str], name: str, answer: Any) -> str:
    """What a checker prints."""
    assert getattr(exercises, name)(answer) is None, "a value would be shown under the notebook's cell"
    return capsys.readouterr().out


def test_every_checker_is_tried_with_right_and_wrong_answers() -> None:
    assert sorted(ANSWERS) == sorted(exercises.__all__) == sorted(n for n in dir(exercises) if n.startswith("check_"))
    for name, (right, wrong) in ANSWERS.items():
        assert len(right) >= 2, f"{name}: two different right answers"
        assert len(wrong) >= 3, f"{name}: three wrong answers"
        assert len({words for _, words in wrong}) >= 3, f"{name}: the wrong answers must be told apart"


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answer_is_accepted(capsys: pytest.CaptureFixture[str], name: str, answer: Any) -> None:
    assert reply(capsys, name, answer).startswith("Right")


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answer_is_told_what_is_wrong(
    capsys: pytest.CaptureFixture[str], name: str, answer: Any, words: str
) -> None:
    said = reply(capsys, name, answer)
    assert said.startswith("Not yet"), said
    assert words in said, said
    assert len(said) < 1500, "nobody reads that"


@pytest.mark.parametrize("name", sorted(exercises.__all__))
def test_unfinished_answers_get_a_reply(capsys: pytest.CaptureFixture[str], name: str) -> None:
    takes_function = callable(ANSWERS[name][0][0])
    if takes_function:
        said = reply(capsys, name, lambda *arguments, **options: None)
        assert "Nothing was returned" in said
        said = reply(capsys, name, lambda *arguments, **options: 1 / 0)
        assert "raised ZeroDivisionError: division by zero" in said
        assert "Not yet" in reply(capsys, name, lambda: 1), "the wrong number of parameters"
        assert "needs the function itself" in reply(capsys, name, 0.5)
    for odd in (None, ..., "text", {}, [[1], [1, 2]]):
        assert "Not yet" in reply(capsys, name, odd)
        if takes_function:
            assert "Not yet" in reply(capsys, name, lambda *arguments, odd=odd, **options: odd)


TWICE = [Case("a number", (3.0,), 6.0), Case("a negative number", (-2.0,), -4.0)]
SQUARED = Mistake("two times, not to the power of two", lambda x: x**2)
PLUS_3 = Mistake("times two, not plus three", lambda x: x + 3)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: 2 * x,
        lambda x: torch.tensor([[2 * x]]),
        lambda x: np.float32(2 * x),
        lambda x: int(2 * x),
        lambda x: (2 * x,),
        lambda x: 2 * x + 1e-6,
        lambda x: torch.tensor(2.0 * x, requires_grad=True),
    ],
)
def test_a_number_may_be_of_any_type(capsys: pytest.CaptureFixture[str], answer: Callable[..., Any]) -> None:
    check(answer, TWICE)
    assert capsys.readouterr().out == "Right: all 2 cases come out as they should.\n"


def test_reply_names_the_first_case_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def halved_below_zero(x: float) -> float:
        return 2 * x if x > 0 else x / 2

    check(halved_below_zero, TWICE, [SQUARED, PLUS_3])
    assert capsys.readouterr().out == (
        "Not yet: a negative number.\n  halved_below_zero(-2)\n  expected: -4\n  came back: -1\n"
    )


def test_hint_is_that_of_the_mistake_that_explains_every_result(capsys: pytest.CaptureFixture[str]) -> None:
    tens = [Case("three", (3.0,), 30.0), Case("four", (4.0,), 40.0)]
    at_first = Mistake("only the first", lambda x: 9.0)
    check(lambda x: x * x, tens, [at_first, SQUARED])
    assert "Hint: two times" in capsys.readouterr().out
    check(lambda x: 9.0 if x == 3 else 0.0, tens, [SQUARED])
    assert "Hint: two times" in capsys.readouterr().out, "it explains the case that is shown"
    check(lambda x: 8.0, tens, [at_first, SQUARED])
    assert "Hint" not in capsys.readouterr().out


def test_exception_is_reported_in_one_line_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(x: float) -> float:
        raise ValueError("first line\nsecond line")

    check(fails, TWICE, [Mistake("it should not raise", lambda x: [][1]), Mistake("nor this", lambda x: int("a"))])
    assert capsys.readouterr().out == (
        "Not yet: a number.\n  fails(3)\n  raised ValueError: first line second line\nHint: nor this\n"
    )


def test_reader_may_interrupt() -> None:
    def interrupted(x: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(interrupted, TWICE)


def test_arguments_are_copies_and_have_to_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("in place", (torch.ones(2), [1.0]), [2.0, 2.0])

    def in_place(x: torch.Tensor, y: list[float]) -> torch.Tensor:
        y.clear()
        return x.add_(1)

    check(in_place, [case, case], may_change=(0, 1))
    assert capsys.readouterr().out.startswith("Right")
    check(in_place, [case], may_change=(0,))
    said = capsys.readouterr().out
    assert "came back: the right result, but y is [] after the call\nHint: leave what you are given as it is" in said
    check(in_place, [case])
    assert "but x is [2, 2] after the call" in capsys.readouterr().out
    check(lambda *both: in_place(*both), [case])
    assert "but argument 1 is [2, 2] after the call" in capsys.readouterr().out
    assert case.arguments[0].tolist() == [1.0, 1.0]
    assert case.arguments[1] == [1.0]


LAYER = torch.nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("given", "change", "seen"),
    [
        (torch.tensor([1.0, float("nan")]), lambda x: x, False),
        (torch.ones(2), lambda x: x.resize_(1), True),
        (np.ones(2), lambda x: x.fill(0), True),
        (np.array([np.nan]), lambda x: x.sum(), False),
        ({"a": [torch.ones(1)]}, lambda x: x["a"][0].zero_(), True),
        ({"a": 1}, lambda x: x.update(b=2), True),
        ([(1, 2)], lambda x: x.append(3), True),
        (np.sum, lambda x: x, False),
        (LAYER, lambda x: x(torch.ones(1)).backward(), False),
        (LAYER, lambda x: x.bias.data.add_(1), True),
        (SimpleNamespace(boxes=torch.ones(1)), lambda x: x.boxes.zero_(), True),
        (SimpleNamespace(boxes=torch.ones(1)), lambda x: x.boxes.sum(), False),
        ("text", lambda x: x.upper(), False),
    ],
)
def test_a_change_is_seen_in_all_that_a_case_may_hold(
    capsys: pytest.CaptureFixture[str], given: Any, change: Callable[[Any], Any], seen: bool
) -> None:
    def answer(x: Any) -> int:
        change(x)
        return 1

    check(answer, [Case("one", (given,), 1)])
    assert ("but x is" in capsys.readouterr().out) is seen


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n: torch.zeros(n, n).sum(), "made a tensor of shape (300, 300) on the way"),
        (lambda n: torch.zeros(n, 1).expand(n, n).split(n)[0].sum(), "(300, 300)"),
        (lambda n: sum(float(torch.zeros(n).sum()) for _ in range(n)), "Right"),
    ],
)
def test_too_much_at_once_is_noticed(capsys: pytest.CaptureFixture[str], answer: Any, words: str) -> None:
    check(answer, [Case("many", (300,), 0, most=300**2 - 1)])
    assert words in capsys.readouterr().out


def test_shapes_and_nan_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    pair = [Case("a pair", (torch.arange(40.0),), [1.0, 2.0])]
    check(lambda x: torch.tensor([[1.0], [2.0]]), pair)
    said = capsys.readouterr().out
    assert "expected: [1, 2], of shape (2,)" in said
    assert "came back: [[1], [2]], of shape (2, 1)" in said
    assert "<tensor (40,)>" in said
    check(lambda x: torch.zeros(2) / 0, pair)
    assert "0 / 0" in capsys.readouterr().out


def test_results_can_be_read_before_they_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    def indices(result: Any) -> list[int]:
        if not isinstance(result, set):
            raise Unreadable(f"came back: {result}, and a set is wanted")
        return sorted(result)

    cases = [Case("a set", (), [1, 3])]
    check(lambda: {3, 1}, cases, read=indices)
    assert capsys.readouterr().out.startswith("Right")
    check(lambda: {3}, cases, [Mistake("one is missing", lambda: {3})], read=indices)
    assert "Hint: one is missing" in capsys.readouterr().out
    check(lambda: [3, 1], cases, [Mistake("another one", lambda: 7)], read=indices)
    said = capsys.readouterr().out
    assert "a set is wanted" in said
    assert "Hint" not in said, "two results that cannot be read need not be the same mistake"


def test_as_tensor_reads_nested_lists_of_anything() -> None:
    rows = [(torch.tensor(1), 2), np.array([3, 4])]
    assert as_tensor(rows).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert as_tensor([]).shape == (0,)
    assert as_tensor(True).item() == 1
    for odd in ("1", {"a": 1}, [1, "2"], [[1], [2, 3]], object()):
        with pytest.raises(Unreadable):
            as_tensor(odd)


def test_every_checker_has_its_exercise_and_accepts_the_solution_there() -> None:
    replies: dict[str, str] = {}
    for path in sorted((Path(__file__).resolve().parents[2] / "book").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for name in re.findall(r"^(check_\w+)\(", cell.source, flags=re.MULTILINE):
                assert cell.cell_type == "code", f"{path.name} calls {name} in a text"
                replies[name] = "".join(output.get("text", "") for output in cell.outputs)
    assert sorted(replies) == sorted(exercises.__all__)
    for name, said in replies.items():
        assert re.search("^Right: ", said, flags=re.MULTILINE), f"{name} in its chapter: {said}"
