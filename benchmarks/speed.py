"""Time our code against torchvision's (mAP: torchmetrics') on the same tensors, and record it.

    OMP_NUM_THREADS=2 python benchmarks/speed.py
    OMP_NUM_THREADS=2 python benchmarks/speed.py --only detection --only mAP --name speed_detection

prints a table and writes ssdlib/engine/records/speed.json: command, commit, date, hardware, versions, and for each work
the medians of both, the ratio of every pair of runs, the peak memory of both, and in what the results agree.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import peers
import torch
import torchmetrics
import typer
from record import RESULTS, circumstances, write_record
from timing import Pair, Row, as_record, compare, table

from ssdlib.engine.precision import has_bfloat16


def works(folder: Path, small: bool) -> dict[str, Callable[[], Pair]]:
    """What is measured, by name; `small` for a test of the script, whose figures mean nothing."""
    n = 1 if small else 8
    name = "ssdlite320_mobilenet_v3_large" if small else "ssd300_vgg16"
    # Where bfloat16 is only imitated it takes ten times as long, and a test learns nothing from that.
    half = not small or has_bfloat16(torch.device("cpu"))
    rows: dict[str, Callable[[], Pair]] = {
        "matching + loss": lambda: peers.loss(2 if small else 32),
        "detection, trained": lambda: peers.detection(True, n),
        "detection, untrained": lambda: peers.detection(False, n),
        "pipeline": lambda: peers.pipeline(folder, 2 if small else 24),
        "mAP": lambda: peers.mean_average_precision(8 if small else 500),
        "training, float32": lambda: peers.training(False, 2 if small else 4, name),
        "training, bfloat16": lambda: peers.training(half, 2 if small else 4, name),
    }
    for batch in (1, n):
        for bfloat16 in (False, True):
            kind = "bfloat16" if bfloat16 else "float32"
            # SSD300 here too: an untrained SSDLite gives nearly equal scores, of which NMS may keep others.
            rows[f"inference, batch {batch}, {kind}"] = lambda b=batch, h=bfloat16: peers.inference(h and half, b)
    return rows


def main(
    name: Annotated[str, typer.Option(help="Name of the record.")] = "speed",
    only: Annotated[list[str], typer.Option(help="Only works whose name holds this text; may be repeated.")] = [],  # noqa: B006
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each work.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print a table, record after each work."""
    torch.set_num_threads(threads)
    command = "".join([f" --only {text!r}" for text in only] + [f" --rounds {rounds}" * (rounds != 7)])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for key, make in works(Path(folder), small).items():
            if only and not any(text in key for text in only):
                continue
            rows.append(compare(make(), rounds))
            gc.collect()  # the networks of the last work
            print(table(rows[-1:]), flush=True)
            record = {
                "command": f"OMP_NUM_THREADS={threads} python benchmarks/speed.py --name {name}{command}",
                **circumstances(),
                "torchmetrics": torchmetrics.__version__,
                "threads": threads,
                "rounds": rounds,
                "rows": as_record(rows),
            }
            write_record(record, name, results)
    print(table(rows))


if __name__ == "__main__":
    sys.exit(typer.run(main))
