"""Quiz: questions with answers to choose from, and a reply to every answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import traitlets
from matplotlib.figure import Figure

from ssdlib.widgets.base import BookWidget

LETTERS = "abcdefghijklmnopqrstuvwxyz"  # of the answers
_LINE = 96  # letters in a line of the picture


class Quiz(BookWidget):
    """Questions, each with one right answer, and a reply that says why an answer is right or wrong.

    Attributes:
        questions: what was asked, each {"question", "answers"}; an answer is {"text", "right", "why"}. Fixed once made.
            Texts are plain; what stands between two backticks is shown as code.
        chosen: for each question the number of the answer that was chosen, counted from 0; -1 for none.

    Raises:
        traitlets.TraitError: for a question without text, with fewer than two answers, without exactly one right
            answer, or with an answer without a reply; for a choice that does not exist.

    Example:
        >>> quiz = Quiz([{"question": "Which label has the background?", "answers": [
        ...     {"text": "0", "right": True, "why": "Objects count from 1."},
        ...     {"text": "-1", "right": False, "why": "-1 marks a prior without an object in `match`."}]}])
        >>> quiz.chosen = [0]
        >>> quiz.num_right
        1
    """

    _module = "quiz"

    title = traitlets.Unicode("Check yourself").tag(sync=True)
    questions = traitlets.List(traitlets.Dict(), read_only=True).tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, questions: Sequence[dict[str, Any]], **traits: Any) -> None:
        self._checked = checked(questions)
        super().__init__(**traits)

    @traitlets.default("questions")
    def _questions(self) -> list[dict[str, Any]]:
        return self._checked

    @traitlets.default("chosen")
    def _none_chosen(self) -> list[int]:
        return [-1] * len(self.questions)

    @traitlets.validate("chosen")
    def _valid_chosen(self, proposal: Any) -> list[int]:
        counts = [len(question["answers"]) for question in self.questions]
        value: list[int] = proposal["value"]
        if len(value) != len(counts) or not all(-1 <= k < n for k, n in zip(value, counts, strict=False)):
            raise traitlets.TraitError(
                f"chosen must have a number from -1 (none) to the last answer for each question, "
                f"which have {counts} answers; got {value}"
            )
        return value

    @property
    def num_right(self) -> int:
        """How many questions are answered right."""
        return sum(
            k >= 0 and bool(question["answers"][k]["right"])
            for k, question in zip(self.chosen, self.questions, strict=True)
        )

    def describe(self) -> str:
        """The questions and their answers, without telling which are right."""
        return f"{self.title}. " + " ".join(line for block in self._blocks() for line in block)

    def picture(self) -> Figure:
        """The questions as text, for readers without scripts and for print."""
        lines: list[tuple[str, str]] = []
        for question, *answers in self._blocks():
            lines += [(line, "bold") for line in textwrap.wrap(question, _LINE, subsequent_indent="   ")]
            for answer in answers:
                lines += [
                    (line, "normal")
                    for line in textwrap.wrap(answer, _LINE, initial_indent="   ", subsequent_indent="      ")
                ]
            lines.append(("", "normal"))
        step = 0.19  # inches
        height = step * (len(lines) + 1)
        figure = Figure(figsize=(6.8, height))
        for row, (line, weight) in enumerate(lines):
            y = 1 - step * (row + 1) / height
            figure.text(0.01, y, line, fontsize=8.5, fontweight=weight, va="center", parse_math=False)
        return figure

    def _blocks(self) -> list[list[str]]:
        """For each question its text and those of its answers, numbered and lettered, without backticks."""
        blocks = []
        for number, question in enumerate(self.questions, start=1):
            answers = [
                f"{letter}) {answer['text']}" for letter, answer in zip(LETTERS, question["answers"], strict=False)
            ]
            blocks.append([text.replace("`", "") for text in (f"{number}. {question['question']}", *answers)])
        return blocks


def checked(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy of the questions, or an error that names the first one with a flaw."""
    if not isinstance(questions, Sequence) or isinstance(questions, str) or not questions:
        raise traitlets.TraitError(f"questions must be a list of at least one question; got {questions!r}")
    return [_checked_question(question, f"question {number}") for number, question in enumerate(questions, start=1)]


def _checked_question(question: dict[str, Any], where: str) -> dict[str, Any]:
    _keys(question, {"question", "answers"}, where)
    text, answers = _text(question["question"], f"the text of {where}"), question["answers"]
    if not isinstance(answers, Sequence) or isinstance(answers, str) or len(answers) < 2:
        raise traitlets.TraitError(f"{where} needs at least two answers; got {answers!r}")
    copies: list[dict[str, Any]] = []
    for letter, answer in zip(LETTERS, answers, strict=False):
        here = f"answer {letter} of {where}"
        _keys(answer, {"text", "right", "why"}, here)
        if not isinstance(answer["right"], bool):
            raise traitlets.TraitError(f"right of {here} must be True or False; got {answer['right']!r}")
        reply = _text(answer["why"], f"the reply (why) to {here}")
        copies.append({"text": _text(answer["text"], f"the text of {here}"), "right": answer["right"], "why": reply})
    right = sum(answer["right"] for answer in copies)
    if right != 1:
        raise traitlets.TraitError(f"{where} must have exactly one right answer; it has {right}: {text!r}")
    return {"question": text, "answers": copies}


def _keys(value: Any, wanted: set[str], where: str) -> None:
    if not isinstance(value, dict) or set(value) != wanted:
        raise traitlets.TraitError(f"{where} must be a dictionary with {sorted(wanted)}; got {value!r}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise traitlets.TraitError(f"{where} must not be empty; got {value!r}")
    if value.count("`") % 2:
        raise traitlets.TraitError(f"{where} has a backtick without a partner: {value!r}")
    return value
