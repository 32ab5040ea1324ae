"""Checker for the chapter on ablations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from ssdlib.exercises.checking import Answer, Case, Mistake, check

Runs = Sequence[int]


def check_share_of_splits(answer: Answer) -> None:
    """Check `share_of_splits(a, b)`: how many ways to divide all runs make means that lie as far apart, as a share."""
    check(answer, [Case(what, (list(a), list(b)), _share(a, b)) for what, a, b in _RUNS], _MISTAKES)


_RUNS: list[tuple[str, Runs, Runs]] = [
    ("three runs against three, all better", (300, 310, 320), (350, 360, 370)),
    ("three against three, all worse", (350, 360, 370), (300, 310, 320)),
    ("two groups that are mixed", (300, 330, 340), (320, 310, 370)),
    ("one run against one, which says nothing", (300,), (350,)),
    ("two runs against four, two of them with the same number", (300, 310), (350, 320, 340, 300)),
    ("runs that are all the same", (300, 300), (300, 300)),
]


def _splits(a: Runs, b: Runs) -> Iterator[tuple[list[int], list[int]]]:
    """Every way to divide all runs into two groups of these sizes."""
    every = [*a, *b]
    for chosen in combinations(range(len(every)), len(a)):
        yield [every[i] for i in chosen], [every[i] for i in range(len(every)) if i not in chosen]


def _share(
    a: Runs,
    b: Runs,
    *,
    distance: Callable[[Runs, Runs], float] = lambda a, b: abs(sum(a) / len(a) - sum(b) / len(b)),
    enough: Callable[[float, float], bool] = lambda here, seen: here >= seen - 1e-9,
) -> float:
    seen = distance(a, b)
    found = [enough(distance(*split), seen) for split in _splits(a, b)]
    return sum(found) / len(found)


def _by_numbers(a: Runs, b: Runs) -> float:
    """Puts into the second group every run whose number is not in the first."""
    every, seen, far = [*a, *b], abs(sum(a) / len(a) - sum(b) / len(b)), []
    for here in combinations(every, len(a)):
        there = [run for run in every if run not in here]
        far.append(bool(there) and abs(sum(here) / len(here) - sum(there) / len(there)) >= seen - 1e-9)
    return sum(far) / len(far)


_MISTAKES = [
    Mistake(
        "the division that was really made is one of those that are counted, and so is each that is just as far apart: "
        ">= and not >.",
        lambda a, b: _share(a, b, enough=lambda here, seen: here > seen + 1e-9),
    ),
    Mistake(
        "before the runs you did not know which would be better: take the size of the difference, without its sign.",
        lambda a, b: _share(a, b, distance=lambda a, b: sum(b) / len(b) - sum(a) / len(a)),
    ),
    Mistake(
        "as it is, but with the sign the other way round: take the size of the difference.",
        lambda a, b: _share(a, b, distance=lambda a, b: sum(a) / len(a) - sum(b) / len(b)),
    ),
    Mistake(
        "compare means: where one group has more runs than the other, sums differ for that reason alone.",
        lambda a, b: _share(a, b, distance=lambda a, b: abs(sum(a) - sum(b))),
    ),
    Mistake("two runs with the same number are two runs: divide by places, not by numbers.", _by_numbers),
    Mistake(
        "a share is wanted: divide by the number of all divisions.",
        lambda a, b: _share(a, b) * sum(1 for _ in _splits(a, b)),
    ),
]
