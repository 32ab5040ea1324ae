"""What all checkers do: try the reader's function on cases, compare, and say what is wrong in one place."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Answer = Callable[..., Any]

MOST_NUMBERS = 24  # of a tensor that a message writes out
CHANGED = (
    "leave what you are given as it is: whoever calls the function goes on using it. Work on a copy, such as "
    "`x.clone()` of a tensor, or build a new list or dictionary."
)


@dataclass(frozen=True)
class Case:
    """One call of the reader's function, and what has to come out.

    Attributes:
        what: what is special about it, as in "boxes that lie apart".
        arguments: of the call. The reader's function gets copies.
        expected: a number, a tensor, or nested lists of numbers.
        most: so many numbers, and no more, may a tensor have that is made on the way; None for no limit.
    """

    what: str
    arguments: tuple[Any, ...]
    expected: Any
    most: int | None = None


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


class TooMuch(Exception):
    """More numbers at once than the case allows; the message says how many."""


def check(
    answer: Any,
    cases: Iterable[Case],
    mistakes: Sequence[Mistake] = (),
    *,
    read: Callable[[Any], Any] | None = None,
    right: str = "",
    may_change: Collection[int] = (),
) -> None:
    """Try a function on all cases and print whether it is right, or the first case that goes wrong and a hint.

    A function whose results are right is still refused if it changes its arguments.

    Args:
        answer: the reader's function. Never raises for what it does, except for an interrupt by the reader.
        cases: what to try, the simplest first.
        mistakes: typical ones, the likeliest first.
        read: makes of a result (the reader's, or that of a mistake) what `Case.expected` is compared with; raises
            Unreadable for a result that it cannot read.
        right: a sentence to print with a right answer.
        may_change: places of the arguments that it may change.
    """
    if not callable(answer):
        print(f"Not yet: the checker needs the function itself, without a call, and got {shown(answer)}.")
        return
    cases = list(cases)
    given = [copy.deepcopy(case.arguments) for case in cases]
    results = [_call(answer, arguments, case, read) for arguments, case in zip(given, cases, strict=True)]
    for case, result in zip(cases, results, strict=True):
        if complaint := _complaint(result, case.expected):
            _refuse(answer, case, complaint, _hint(mistakes, cases, results, read))
            return
    for case, arguments in zip(cases, given, strict=True):
        if complaint := _changed(answer, case.arguments, arguments, may_change):
            _refuse(answer, case, complaint, CHANGED)
            return
    print(f"Right: all {len(cases)} cases come out as they should." + (f" {right}" if right else ""))


def _refuse(answer: Answer, case: Case, complaint: str, hint: str) -> None:
    name = getattr(answer, "__name__", "your function")
    print(f"Not yet: {case.what}.\n  {name}({', '.join(shown(a) for a in case.arguments)})\n  {complaint}")
    if hint:
        print(f"Hint: {hint}")


def attempt(answer: Answer, case: Case, read: Callable[[Any], Any] | None = None) -> Any:
    """Call a function with copies of the arguments: what it returns, as a tensor where possible, or the exception."""
    return _call(answer, copy.deepcopy(case.arguments), case, read)


def _call(answer: Answer, arguments: tuple[Any, ...], case: Case, read: Callable[[Any], Any] | None) -> Any:
    try:
        result = answer(*arguments) if case.most is None else _measured(answer, arguments, case.most)
        if result is None or result is ...:
            return None
        return as_tensor(result if read is None else read(result))
    except Exception as error:  # whatever the reader's code does is reported, not raised
        return error


class _Largest(TorchFunctionMode):
    """Remembers the shape of the largest tensor that any function of PyTorch gives back."""

    shape: tuple[int, ...] = ()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and look at what comes."""
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor) and each.numel() > math.prod(self.shape):
                self.shape = tuple(each.shape)
        return result


def _measured(answer: Answer, arguments: tuple[Any, ...], most: int) -> Any:
    """Call a function and look how large the tensors become that it makes.

    Raises:
        TooMuch: if one has more than `most` numbers.
    """
    with _Largest() as largest:
        result = answer(*arguments)
    if math.prod(largest.shape) > most:
        raise TooMuch(f"made a tensor of shape {largest.shape} on the way")
    return result


def _changed(answer: Answer, before: Sequence[Any], after: Sequence[Any], allowed: Collection[int]) -> str:
    """What a call has changed among its arguments; empty if nothing."""
    for number, (was, now) in enumerate(zip(before, after, strict=True)):
        if number not in allowed and not _untouched(was, now):
            names = [each.name for each in _parameters(answer) if each.kind is each.POSITIONAL_OR_KEYWORD]
            name = names[number] if number < len(names) else f"argument {number + 1}"
            return f"came back: the right result, but {name} is {shown(now)} after the call"
    return ""


def _parameters(answer: Answer) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(answer).parameters.values()
    except (TypeError, ValueError):  # a function that is written in C
        return ()


def _untouched(was: Any, now: Any) -> bool:
    """Whether a value is what it was: tensors, arrays, numbers, texts, and all that holds them.

    Of a network only the weights count, and of functions nothing.
    """
    if isinstance(was, Tensor) and isinstance(now, Tensor):
        return was.dtype == now.dtype and _untouched(was.detach().numpy(), now.detach().numpy())
    if isinstance(was, np.ndarray) and isinstance(now, np.ndarray):
        return np.array_equal(was, now, equal_nan=was.dtype.kind in "fc")
    if isinstance(was, nn.Module) and isinstance(now, nn.Module):
        return _untouched(dict(was.state_dict()), dict(now.state_dict()))
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(_untouched(was[key], now[key]) for key in was)
    if isinstance(was, list | tuple) and isinstance(now, list | tuple):
        return len(was) == len(now) and all(map(_untouched, was, now))
    if type(was) is not type(now) or callable(was):
        return callable(was) and callable(now)
    return _untouched(vars(was), vars(now)) if hasattr(was, "__dict__") else bool(was == now)


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
    if isinstance(result, TooMuch):
        return f"{result}"
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
