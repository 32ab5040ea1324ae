"""Measure what it adds to a step that several processes of this machine, joined by gloo, add up their gradients.

    python benchmarks/processes.py

Each process has one thread and takes two images a step, with the small SSD. By turns the gradients are added up, and
are not (`no_sync`): the difference is what the other processes cost, beyond the cores that they share. Beside it the
time to add up as many numbers as SSD300 has, alone, and that by the arithmetic of `ssdlib.engine.scaling` from the
bandwidth that two processes reach. It writes ssdlib/engine/records/processes.json.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from record import RESULTS, circumstances, write_record
from torch.multiprocessing import spawn

from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.transforms import model_input
from ssdlib.engine import processes
from ssdlib.engine.loading import collate
from ssdlib.engine.scaling import Links, all_reduce_seconds
from ssdlib.model import build_model

IMAGES = 2  # of a process, in a step
LARGE = 26_285_486  # numbers of SSD300's gradient for VOC


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call that all processes begin together."""
    processes.barrier()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(rank: int, count: int, port: int, rounds: int, numbers: int, out: str) -> None:
    """What each process does; the first one writes the medians."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    with processes.process_group(torch.device("cpu")) as device:
        dataset = VOCDataset(sample_root(), "train")
        torch.manual_seed(0)
        model = build_model("ssd_tiny", dataset.classes)
        transform = model_input(model.recipe.image_size, None)
        images, targets = collate([transform(*dataset[IMAGES * rank + k]) for k in range(IMAGES)])
        network: Any = processes.shared(model, device)

        def step(together: bool) -> None:
            with nullcontext() if together or count == 1 else network.no_sync():
                sum(processes.shared_losses(network, images, targets).values()).backward()  # type: ignore[union-attr]
            model.zero_grad(set_to_none=True)

        large = torch.zeros(numbers)
        for together in (True, False):
            step(together)
        steps, alone, adding = [], [], []
        for _ in range(rounds):
            steps.append(timed(lambda: step(True)))
            alone.append(timed(lambda: step(False)))
            adding.append(timed(lambda: processes.all_reduce_sum(large)))
        row = {"processes": count, "step_seconds": statistics.median(steps)}
        row |= {"without_adding_seconds": statistics.median(alone)}
        row |= {"adds_seconds": statistics.median(a - b for a, b in zip(steps, alone, strict=True))}
        row |= {"large_seconds": statistics.median(adding) if count > 1 else 0.0}
        row["parameters"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if rank == 0:
            Path(out).write_text(json.dumps(row))
        processes.barrier()


def measured(count: int, rounds: int, numbers: int) -> dict[str, Any]:
    """The row of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        spawn(measure, (count, port, rounds, numbers, str(out)), nprocs=count)
        row: dict[str, Any] = json.loads(out.read_text())
    return row


def main(
    counts: Annotated[str, typer.Option(help="Numbers of processes.")] = "1,2,4",
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind.")] = 9,
    numbers: Annotated[int, typer.Option(min=1, help="Numbers of the large gradient.")] = LARGE,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print, record."""
    assert dist.is_available()
    rows = [measured(int(count), rounds, numbers) for count in counts.split(",")]
    two = next((row["large_seconds"] for row in rows if row["processes"] == 2), None)
    for row in rows:
        if two:
            bandwidth = 4 * numbers / two  # two processes send the whole gradient once
            row["large_by_arithmetic"] = all_reduce_seconds(numbers, row["processes"], Links(bandwidth, bandwidth, 0.0))
        row.update({name: round(value, 4) for name, value in row.items() if isinstance(value, float)})
        print(row)
    command = f"python benchmarks/processes.py --counts {counts} --rounds {rounds}"
    record = {"command": command, **circumstances(), "images": IMAGES, "numbers": numbers, "rows": rows}
    write_record(record, "processes", results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
