"""Long runs of the fuzzer, such as --minutes 10; --area images --seed 41 --cases 1 repeats one case."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from support import fuzz_areas, fuzzing

EXTRA = 6 << 30  # bytes of address space that a case may take before the system refuses more


def bound_memory() -> None:
    """A case that asks for endless memory is a failed case, and not the end of the machine."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + EXTRA,) * 2)


def main() -> int:
    areas = {area.name: area for area in fuzz_areas.AREAS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="for all areas together; by default 10")
    parser.add_argument("--cases", type=int, help="of each area, in place of a time")
    parser.add_argument("--area", action="append", choices=areas, help="only this one; can be given more than once")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; a long run goes on from there")
    asked = parser.parse_args()
    chosen = [areas[name] for name in asked.area or areas]
    seconds = None if asked.cases else 60 * (asked.minutes or 10) / len(chosen)
    torch.set_num_threads(1)
    bound_memory()
    failed = 0
    for area in chosen:
        result = fuzzing.run(area, seed=asked.seed, cases=asked.cases, seconds=seconds)
        print(f"{area.name:12s} {result}", flush=True)
        failed += len(result.failures)
        for seed, trace in result.failures:
            print(f"--- {area.name}, seed {seed}\n{trace[-2500:]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
