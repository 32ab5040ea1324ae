"""Measure how the cost of matching, loss, detection and evaluation grows, beside torchvision, and draw it.

    OMP_NUM_THREADS=2 python benchmarks/growth.py

writes ssdlib/engine/records/growth.json and growth.svg: seconds and peak memory against images, objects, priors
(SSD300, SSD512), classes, and the images of an evaluation of COCO's size (5,000 images with 100 detections each).
The drawing is `ssdlib.plotting.show_growth`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import peer_data
import peers
import torch
import typer
from record import RESULTS, circumstances, write_record
from timing import Pair, compare, peak_memory, seconds

from ssdlib.metrics import evaluate
from ssdlib.plotting import show_growth, use_book_style


def series(small: bool) -> list[tuple[str, str, dict[int, Callable[[], Pair]]]]:
    """(work, what grows, size -> the pair)."""
    batch = 1 if small else 8
    grow: list[tuple[str, str, dict[int, Callable[[], Pair]]]] = []

    def add(work: str, what: str, sizes: dict[int, Callable[[], Pair]]) -> None:
        grow.append((work, what, dict(list(sizes.items())[:1]) if small else sizes))

    add("matching + loss", "images", {n: lambda n=n: peers.loss(n) for n in (1, 2, 4, 8, 16, 32, 64)})
    add("matching + loss", "objects an image", {n: lambda n=n: peers.loss(batch, n) for n in (1, 4, 16, 64)})
    priors = {8732: "SSD300", 24564: "SSD512"}
    add("matching + loss", "priors", {n: lambda r=r: peers.loss(batch, recipe=r) for n, r in priors.items()})
    add("detection", "images", {n: lambda n=n: peers.detection(True, n) for n in (1, 2, 4, 8, 16, 32)})
    add("detection", "priors", {n: lambda r=r: peers.detection(True, batch, recipe=r) for n, r in priors.items()})
    classes = (21, 81, 1001)
    add("matching + loss", "classes", {n: lambda n=n: peers.loss(2, classes=n) for n in classes})
    add("detection", "classes", {n: lambda n=n: peers.detection(True, 2, n) for n in classes})
    return grow


def main(
    name: Annotated[str, typer.Option(help="Name of the record and of the drawing.")] = "growth",
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each point.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the record and the drawing.")] = RESULTS,
) -> None:
    """Measure, print, record, draw."""
    torch.set_num_threads(threads)
    measured: list[dict[str, Any]] = []
    for work, what, sizes in series(small):
        points = []
        for size, make in sizes.items():
            row = compare(make(), rounds)
            points.append({"size": size, "ours": row.ours, "theirs": row.theirs, "ratio": row.ratio})
            points[-1] |= {"ours_peak": row.ours_peak, "theirs_peak": row.theirs_peak, "same": row.same}
            print(f"{work}, {size} {what}: {1e3 * row.ours:.1f} ms, {row.ratio:.2f} x torchvision", flush=True)
        measured.append({"work": work, "what": what, "points": points})
    points = []
    for images in (4, 8) if small else (625, 1250, 2500, 5000):
        found, targets = peer_data.evaluation_data(images, 100, 81)
        peak = peak_memory(lambda f=found, t=targets: evaluate(f, t, 81))
        time = statistics.median(seconds(lambda f=found, t=targets: evaluate(f, t, 81)) for _ in range(rounds))
        points.append({"size": images, "ours": time, "ours_peak": peak})
        memory = "?" if peak is None else f"{peak / images / 1024:.0f} KiB"
        print(
            f"evaluation, {images} images: {time:.3f} s, {1e6 * time / images:.0f} us and {memory} an image", flush=True
        )
    measured.append({"work": "evaluation, 100 detections an image, 80 classes", "what": "images", "points": points})
    record = {
        "command": f"OMP_NUM_THREADS={threads} python benchmarks/growth.py --name {name} --rounds {rounds}"
        f" --threads {threads}",
        **circumstances(),
        "threads": threads,
        "rounds": rounds,
        "series": measured,
    }
    write_record(record, name, results)
    use_book_style()
    figure = plt.figure(figsize=(9.6, 4.6))
    for ax, one in zip(figure.subplots(2, 4).flat, measured, strict=True):
        show_growth(one, ax)
    figure.savefig(results / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(typer.run(main))
