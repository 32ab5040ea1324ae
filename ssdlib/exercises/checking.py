"""What all checkers do: try the reader's function on cases, compare, and say what is wrong in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Answer = Callable[..., Any]

MOST_NUMBERS = 24  # of a tensor that a message writes out


@dataclass(frozen=True)
class Case:
    """One call of the reader's function, and what has to come out.

    Attributes:
        what: what is special about it, as in "boxes that lie apart".
        arguments: of the call. The reader's function gets copies.
        expected: a number, a tensor, or nested lists of numbers.
    """

    what: str
    arguments: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer. Its hint is given to whoever gets the same wrong results.

    Attributes:
        hint: what to look for, without the solution.
        wrong: the exercise, solved with this mistake; it may raise.
    """

    hint: str
    wrong: Answer


class Unreadable(Exception):
    """A result that is no number, tensor or list of numbers; the message says what it is."""


def check(
    answer: Any,
    cases: Iterable[Case],
    mistakes: Sequence[Mistake] = (),
    *,
    read: Callable[[Any], Any] | None = None,
    right: str = "",
) -> None:
    """Try a function on all cases and print whether it is right, or the first case that goes wrong and a hint.

    Args:
        answer: the reader's function. Never raises for what it does, except for an interrupt by the reader.
        cases: what to try, the simplest first.
        mistakes: typical ones, the likeliest first.
        read: makes of a result (the reader's, or that of a mistake) what `Case.expected` is compared with; raises
            Unreadable for a result that it cannot read.
        right: a sentence to print with a right answer.
    """
    if not callable(answer):
        print(f"Not yet: the checker needs the function itself, without a call, and got {shown(answer)}.")
        return
    cases = list(cases)
    results = [attempt(answer, case, read) for case in cases]
    for case, result in zip(cases, results, strict=True):
        complaint = _complaint(result, case.expected)
        if complaint:
            name = getattr(answer, "__name__", "your function")
            print(f"Not yet: {case.what}.\n  {name}({', '.join(shown(a) for a in case.arguments)})\n  {complaint}")
            hint = _hint(mistakes, cases, results, read)
            if hint:
                print(f"Hint: {hint}")
            return
    print(f"Right: all {len(cases)} cases come out as they should." + (f" {right}" if right else ""))


def attempt(answer: Answer, case: Case, read: Callable[[Any], Any] | None = None) -> Any:
    """Call a function with copies of the arguments: what it returns, as a tensor where possible, or the exception."""
    try:
        result = answer(*copy.deepcopy(case.arguments))
        if result is None or result is ...:
            return None
        return as_tensor(result if read is None else read(result))
    except Exception as error:  # whatever the reader's code does is reported, not raised
        return error


def as_tensor(value: Any) -> Tensor:
    """A result as a float64 tensor: from a number, a tensor, an array, or (nested) lists and tuples of these.

    Raises:
        Unreadable: if it is nothing of the kind, or the rows have different lengths.
    """
    try:
        if isinstance(value, list | tuple):
            rows = [as_tensor(row) for row in value]
            return torch.stack(rows) if rows else torch.zeros(0, dtype=torch.float64)
        if isinstance(value, str | dict | set):
            raise TypeError
        return torch.as_tensor(value).detach().cpu().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Unreadable(f"came back: {shown(value)}, which is no number, tensor or list of numbers") from None


def same(result: Any, expected: Any) -> bool:
    """Whether a result is the expected one: equal up to rounding, of any type; a single number may have any shape."""
    if not isinstance(result, Tensor):
        return False
    wanted = as_tensor(expected)
    if wanted.dim() == 0 and result.numel() == 1:
        result = result.reshape(())
    if wanted.numel() == 0 and result.numel() == 0:
        return True  # an empty list has lost its second dimension
    return result.shape == wanted.shape and torch.allclose(result, wanted, rtol=1e-4, atol=1e-5)


def shown(value: Any) -> str:
    """A value as a short text on one line: tensors and tuples as lists, long tensors by their shape."""
    if isinstance(value, Tensor):
        if value.numel() > MOST_NUMBERS:
            return f"<tensor {tuple(value.shape)}>"
        return shown(value.tolist())
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in value.items()) + "}"
    name = getattr(value, "name", None)
    text = name if isinstance(name, str) else repr(value)
    return " ".join(text.split())[:200]


def _complaint(result: Any, expected: Any) -> str:
    """What is wrong with a result; empty if nothing is."""
    wanted = as_tensor(expected)
    expects = f"expected: {shown(wanted)}"
    if result is None:
        return f"{expects}\n  came back: None. Nothing was returned: the function needs a return."
    if isinstance(result, Unreadable):
        return f"{expects}\n  {result}"
    if isinstance(result, Exception):
        return f"raised {type(result).__name__}: {' '.join(str(result).split())[:200]}"
    if same(result, expected):
        return ""
    came = f"came back: {shown(result)}"
    if result.shape != wanted.shape and wanted.dim() > 0:
        return f"{expects}, of shape {tuple(wanted.shape)}\n  {came}, of shape {tuple(result.shape)}"
    if result.isnan().any():
        return f"{expects}\n  {came}; nan stands for a result like 0 / 0 or log(-1)"
    return f"{expects}\n  {came}"


def _hint(
    mistakes: Sequence[Mistake], cases: Sequence[Case], results: Sequence[Any], read: Callable[[Any], Any] | None
) -> str:
    """The hint of the mistake that explains all results; failing that, of one that explains the first wrong one."""
    first = next(i for i, case in enumerate(cases) if not same(results[i], case.expected))
    likely = ""
    for mistake in mistakes:
        wrong = [attempt(mistake.wrong, case, read) for case in cases]
        if not _alike(wrong[first], results[first]):
            continue
        if all(_alike(w, r) for w, r in zip(wrong, results, strict=True)):
            return mistake.hint
        likely = likely or mistake.hint
    return likely


def _alike(wrong: Any, result: Any) -> bool:
    """Whether two wrong answers do the same: equal numbers (nan and inf included), or the same kind of exception."""
    if isinstance(wrong, Tensor) and isinstance(result, Tensor):
        if wrong.numel() == result.numel() == 1:
            wrong, result = wrong.reshape(()), result.reshape(())
        return wrong.shape == result.shape and torch.allclose(wrong, result, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(wrong, Unreadable) and isinstance(result, Unreadable):
        return str(wrong) == str(result)
    return wrong is not None and type(wrong) is type(result)
