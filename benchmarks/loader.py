"""Measure what one core of a loader prepares: from JPEG files and from memory, augmented there or left to the device.

    python benchmarks/loader.py

writes ssdlib/engine/records/loader.json. The time is that of the processor (one thread), not of the clock, so that
other work on the machine counts little. The files are those of benchmarks/speed.py: drawn, of VOC's size.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from gpu_parts.work import Photographs
from record import RESULTS, circumstances, write_record

from ssdlib.data.transforms import Augmentation
from ssdlib.engine.loading import TrainingImages


def seconds_per_image(images: TrainingImages, rounds: int) -> float:
    """Median, over the rounds, of the processor's time for an image."""
    images[0]  # what is done once is no part of it
    times = []
    for epoch in range(rounds):
        started = time.process_time()
        for index in range(len(images)):
            images[epoch * len(images) + index]
        times.append((time.process_time() - started) / len(images))
    return statistics.median(times)


def main(
    images: Annotated[int, typer.Option(help="JPEG files.")] = 24,
    rounds: Annotated[int, typer.Option(help="Times that each is prepared.")] = 7,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print, record."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = Photographs(Path(folder), images)
        for source in ("JPEG files", "memory"):
            if source == "memory":
                dataset.cache_images()
            for on_device in (False, True):
                prepared = TrainingImages(dataset, 300, Augmentation(), 0, on_device)
                seconds = seconds_per_image(prepared, rounds)
                place = "device" if on_device else "loader"
                rows.append({"source": source, "augment_on": place, "images_per_second": round(1 / seconds, 1)})
                print(rows[-1])
    command = f"python benchmarks/loader.py --images {images} --rounds {rounds}"
    record = {"command": command, **circumstances(), "time": "processor, one thread", "size": 300, "rows": rows}
    write_record(record, "loader", results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
