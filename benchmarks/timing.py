"""Time two ways to do the same work: taking turns in one process, equal results required, and the memory of each."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class NotHere(Exception):
    """A work that cannot be measured on this machine, and why: it is marked in the record, and not waited for."""


@dataclass(frozen=True)
class Pair:
    """The same work done by us and by somebody else."""

    work: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    same: Callable[[Any, Any], str]  # of the two results: in what they agree, or AssertionError
    target: float  # largest ratio of the times that is good enough
    limit: float | None = None  # most seconds that ours may take
    pause: float = 0.0  # seconds before each run, in which the threads of the other side stop waiting for work


@dataclass(frozen=True)
class Row:
    """What came of a `Pair`: medians in seconds, their ratio, and the peak of memory above that before, in bytes."""

    work: str
    ours: float
    theirs: float
    ratio: float  # median of the ratios of neighbouring runs: what slows the machine down slows both
    ratios: list[float]
    target: float
    met: bool
    same: str
    ours_peak: int | None
    theirs_peak: int | None
    limit: float | None = None


def compare(pair: Pair, rounds: int = 7) -> Row:
    """Run both sides once to warm up and to compare their results, once for the memory, then by turns for the time."""
    same = pair.same(pair.ours(), pair.theirs())
    peaks = [peak_memory(side) for side in (pair.ours, pair.theirs)]
    times = [(seconds(pair.ours, pair.pause), seconds(pair.theirs, pair.pause)) for _ in range(rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [a / b for a, b in times]
    ratio = statistics.median(ratios)
    met = ratio <= pair.target and (pair.limit is None or ours <= pair.limit)
    rounded = [round(each, 3) for each in ratios]
    return Row(pair.work, ours, theirs, round(ratio, 3), rounded, pair.target, met, same, *peaks, pair.limit)


def seconds(work: Callable[[], Any], pause: float = 0.0) -> float:
    """Time of one call, after a pause; no garbage is collected during it."""
    time.sleep(pause)
    gc.disable()
    try:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    finally:
        gc.enable()


def peak_memory(work: Callable[[], Any]) -> int | None:
    """Bytes by which the memory of the process grows at most during a call; None where the system does not tell."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # gives back what is free: else it would be used again without being counted
        CLEAR.write_text("5")  # sets the peak back to what is in use now
        before = status("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None
    work()
    return max(0, status("VmHWM") - before)


def status(field: str) -> int:
    """A field of this process, in bytes, as Linux tells it, such as VmRSS."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    width = max(len(row.work) for row in rows)
    lines = [f"{'work':<{width}}       ours     theirs  ratio  target        memory, ours / theirs"]
    for row in rows:
        times = f"{1e3 * row.ours:6.1f} ms  {1e3 * row.theirs:6.1f} ms  {row.ratio:5.3f}"
        target = f"{row.target:.2f} {'met   ' if row.met else 'MISSED'}"
        peaks = ("?" if peak is None else f"{peak / 2**20:.0f} MiB" for peak in (row.ours_peak, row.theirs_peak))
        lines.append(f"{row.work:<{width}}  {times}  {target}  {' / '.join(peaks):>20}")
    return "\n".join(lines)


def as_record(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a JSON file."""
    return [asdict(row) for row in rows]
