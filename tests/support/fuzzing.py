"""The fuzzer: hostile input from a seed, and what must hold of it. The areas are in the modules fuzz_*.

A case is a function of a random generator and an empty folder. It makes an input, hands it to the package, and returns
"accepted" or "refused"; whatever it raises is a failure. `refused` says which errors are documented.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Case = Callable[[random.Random, Path], str]


@dataclass(frozen=True)
class Area:
    """One kind of input. `few` cases are run by the usual tests; a case may take `seconds` and `megabytes` more."""

    name: str
    case: Case
    few: int = 150
    seconds: float = 10.0
    megabytes: int = 500


@dataclass
class Result:
    """What the cases of an area gave."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)  # seed and stack trace
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{sum(self.outcomes.values())} cases in {self.seconds:.0f} s: {kinds}"


class TookTooLong(BaseException):
    """A case did not end in its time; no handler of errors may take it for one of the package's."""


def refused(
    action: Callable[[], Any],
    *names: object,
    errors: tuple[type[Exception], ...] = (OSError, ValueError),
    longest: int = 5000,
) -> bool:
    """Do something with hostile input; True if it was refused, as it should be refused: with one of the documented
    errors, in a message that names all of `names`, is not endless, and can be printed on any terminal.
    """
    try:
        action()
        return False
    except errors as error:
        message = str(error)
    assert all(str(name) in message for name in names), f"{names} are not all named: {message[:500]}"
    assert len(message) < longest, f"a message of {len(message)} characters: {message[:500]}"
    can_be_printed(message)
    return True


def can_be_printed(text: str) -> None:
    """No control characters but ends of lines and tabs, and no half surrogate pair."""
    text.encode("utf-8")
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160], repr(text[:500])


def run(
    area: Area, *, seed: int = 0, cases: int | None = None, seconds: float | None = None, most_failures: int = 20
) -> Result:
    """Run cases with the seeds `seed`, `seed` + 1, ... until there are enough, time is up, or too much has failed."""
    result, began = Result(), time.perf_counter()
    for number in range(seed, sys.maxsize):
        result.seconds = time.perf_counter() - began
        if number - seed == cases or (seconds is not None and result.seconds > seconds):
            break
        try:
            result.outcomes[one(area, number)] += 1
        except (Exception, TookTooLong):
            result.outcomes["FAILED"] += 1
            result.failures.append((number, traceback.format_exc()))
            if len(result.failures) == most_failures:
                break
    return result


def one(area: Area, seed: int) -> str:
    """Run one case within its bounds of time and memory."""
    with tempfile.TemporaryDirectory() as folder, _in_time(area.seconds):
        memory = _peak_megabytes(afresh=True)
        outcome = area.case(random.Random(f"{area.name} {seed}"), Path(folder))
        more = _peak_megabytes() - memory
        assert more < area.megabytes, f"the case took {more} MB"
    assert outcome in ("accepted", "refused"), outcome
    return outcome


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    began = time.perf_counter()
    alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def stop(*_: Any) -> None:
        raise TookTooLong(f"not done after {seconds} s")

    if alarm:
        usual = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, usual)
    took = time.perf_counter() - began
    assert took < seconds, f"the case took {took:.1f} s"


def _peak_megabytes(afresh: bool = False) -> int:
    """Most memory that this process took, since it was last asked `afresh` where the system can forget (Linux).

    Elsewhere it is the most ever taken, so that an earlier peak may hide a case's own; 0 where nothing is told.
    """
    try:
        import resource
    except ImportError:
        return 0
    status = Path("/proc/self/status")
    if status.exists():
        if afresh:
            Path("/proc/self/clear_refs").write_text("5")
        ((_, kilobytes, _),) = (line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) >> 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


# ---- hostile values ------------------------------------------------------------------------------------------

NUMBERS = [
    "0",
    "-1",
    "1",
    "1e308",
    "-1e308",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "9" * 400,
    "0x10",
    "1_0",
    "1,5",
    "½",
    "٣",
    "",
]
TEXTS = [
    "",
    " ",
    "\x1b[31m",
    "\x00",
    "\n",
    "\x85",
    "\u202e",
    "\ud800",
    "../..",
    "/etc/passwd",
    "C:\\x",
    "a" * 5000,
    "猫",
]
TEXTS += ["$\\frac{$", "<!--", "&amp;", "%s%n", "con", ".", "..", "a/b", "é" * 200, "{}", "None", "-1", "\ufeff"]


def number(rng: random.Random) -> str:
    """The text of a number, or of nearly one."""
    if rng.random() < 0.4:
        return rng.choice(NUMBERS)
    return str(rng.choice([rng.randint(-50, 350), rng.uniform(-50, 350), rng.randint(-(2**70), 2**70)]))


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has, and some that only Python's reader takes."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return rng.choice([0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 3, 300, 10**6])
    if kind == 2:
        return rng.choice([0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), -float("inf"), 1e-320])
    if kind in (3, 4, 5):
        return [None, True, False][kind - 3]
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 4, 30]))]
    if kind == 7:
        return {rng.choice([*TEXTS, "id", "name"]): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    deep: Any = rng.choice([0, "x"])
    for _ in range(rng.choice([3, 50, 400])):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def mutated(rng: random.Random, tree: Any) -> Any:
    """A copy of a tree of dictionaries and lists in which an entry somewhere is another, missing, or doubled."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        changed = dict(tree)
        kind = rng.randrange(6)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[rng.choice(TEXTS)] = value(rng)
        else:
            changed[key] = mutated(rng, tree[key])
        return changed
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        changed_list, place = list(tree), rng.randrange(len(tree))
        kind = rng.randrange(6)
        if kind == 0:
            del changed_list[place]
        elif kind == 1:
            changed_list.insert(place, changed_list[rng.randrange(len(tree))])
        else:
            changed_list[place] = mutated(rng, tree[place])
        return changed_list
    return value(rng)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some changed, cut, removed, repeated or put in; most often near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        if not data:
            break
        place = rng.randrange(min(len(data), rng.choice([32, 200, 10**9])))
        length = rng.choice([1, 1, 2, 4, 16])
        kind = rng.randrange(8)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = bytes(rng.randrange(256) for _ in range(length))
        elif kind == 3:
            data[place:place] = data[place : place + length * 8]
        elif kind == 4:
            data[place : place + length] = rng.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * length
        elif kind == 5:
            data[place] ^= 1 << rng.randrange(8)
        else:
            data[place : place + length] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(data)
