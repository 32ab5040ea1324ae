"""Everything that wants a GPU, in parts of at most nine minutes: what is most worth in a short loan comes first.

    python benchmarks/gpu.py --workers 16 --cells data/BCCD
    python benchmarks/gpu.py --workers 16 --only smoke,latency

does the parts one after the other and writes a record of each, ssdlib/engine/records/gpu_PART.json, after every figure.
Run again, it goes on: what is recorded is not measured again, and runs go on from their states (in runs/gpu). A part
that fails is told, and the others are done. `make gpu` is this command.

    smoke     (a)  every preset in float32, bfloat16, compiled and with CUDA graphs, at batches 8 to 128: images a
                   second, waiting, milliseconds a step, memory, and the share of what the device can do
    cells     (b)  SSD300 and the small SSD on blood cells: mAP by class, minutes
    paper     (c)  the paper's 120,000 steps on 16,551 drawn scenes, as far as the minutes go; curves and mAP
    loader    (d)  1 to 16 workers, from files and from memory, augmented by the loader and on the device; JPEG files
                   that the device decodes
    resume    (e)  a run that is killed and goes on: what its weights differ from those of one that was not
    latency   (f)  network and detection, batch 1 and 64, by number format, compiled, as a CUDA graph; torchvision too
    profile   (g)  where the time of a training step goes, as a figure

With `--device cpu --small` it is a test of the script.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from gpu_parts.latency import latency
from gpu_parts.loading import loading
from gpu_parts.profiles import profiles
from gpu_parts.runs import cells, paper, resume
from gpu_parts.smoke import smoke
from gpu_parts.work import Asked, Figures
from record import RESULTS

from ssdlib.engine.precision import fastest_convolutions

PARTS: dict[str, Callable[[Asked], Figures]] = {
    "smoke": smoke,
    "cells": cells,
    "paper": paper,
    "loader": loading,
    "resume": resume,
    "latency": latency,
    "profile": profiles,
}
LETTERS = dict(zip("abcdefg", PARTS, strict=True))


def chosen(only: str) -> list[str]:
    """The parts of `--only`, by name or letter, in their order.

    Raises:
        typer.BadParameter: if there is no such part.
    """
    names = [LETTERS.get(each.strip(), each.strip()) for each in only.split(",") if each.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise typer.BadParameter(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}, or a to g")
    return [name for name in PARTS if name in names or not names]


def main(
    only: Annotated[str, typer.Option(help="Parts, separated by commas: names, or letters a to g.")] = "",
    device: Annotated[str, typer.Option(help='"cuda", or "cpu" for a test.')] = "cuda",
    workers: Annotated[int, typer.Option(help="Processes that load images.")] = 8,
    minutes: Annotated[float, typer.Option(help="Of a part, at most; a figure that was begun is ended.")] = 9.0,
    data: Annotated[Path | None, typer.Option("--cells", help="Blood cells (BCCD), in the VOC layout.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Classifier's weights (VGG-16) for the paper's run.")] = None,
    name: Annotated[str, typer.Option(help="Name of the records: NAME_PART.json.")] = "gpu",
    folder: Annotated[Path, typer.Option(help="Folder for drawn images and runs.")] = Path("runs/gpu"),
    small: Annotated[bool, typer.Option("--small", help="Tiny, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the records.")] = RESULTS,
) -> None:
    """Measure part by part, print, record after each figure."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("there is no CUDA device; with --device cpu --small the script is tested without")
    command = f"python benchmarks/gpu.py --device {device} --workers {workers}"
    command += f" --cells data/{data.name}" if data else ""
    asked = Asked(where, small, workers, minutes, name, results, folder, data, weights, command)
    failed = []
    with fastest_convolutions(where):
        for part in chosen(only):
            started = time.monotonic()
            try:
                PARTS[part](asked)
            except Exception as error:  # a short loan is not to be lost to one part
                failed.append(part)
                traceback.print_exc()
                print(f"{part}: FAILED: {error}", file=sys.stderr)
            print(f"{part}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(typer.run(main))
