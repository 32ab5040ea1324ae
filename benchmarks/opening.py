"""Measure how long it takes to open a set of COCO's size, for the first and for the second time, and the memory.

    python benchmarks/opening.py

makes a set in the COCO layout in a temporary folder: 118,287 small JPEG files (hard links to a few), 860,000 boxes, and
outlines as long as COCO's, which nobody reads but which are nine tenths of its annotations. Then each row opens it in a
process of its own; the first writes the index, and the second takes it. It writes ssdlib/engine/records/opening.json.
The files were just written, so that the system has them in memory: a cold disk takes its own time on top.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from record import RESULTS, circumstances, write_record
from timing import status

from ssdlib.data import open_dataset

SIZES = [(640, 480), (640, 427), (480, 640), (500, 375)]
LINKS = 500  # to a file: systems allow some thousands
TARGETS = {"first seconds": 20.0, "second seconds": 2.0, "peak bytes": 1.2e9}


def make_set(root: Path, images: int, boxes: int, points: int, seed: int = 0) -> Path:
    """Write a set "train" in the COCO layout; `points` is the mean number of points of an outline."""
    rng = random.Random(seed)
    folder = root / "train"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    first, entries = "", []
    for number in range(images):
        size = SIZES[number // LINKS % len(SIZES)]
        name = f"{number:012}.jpg"
        if number % LINKS == 0:
            pixels = np.full((size[1], size[0], 3), number // LINKS % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            first = name
        else:
            os.link(folder / first, folder / name)
        url = f"images of the collection, number {number}, as the real file has an address here"
        entries.append({"id": number, "file_name": name, "width": size[0], "height": size[1], "note": url})
    with (root / "annotations" / "instances_train.json").open("w") as file:
        categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
        file.write(f'{{"images": {json.dumps(entries)}, "categories": {json.dumps(categories)}, "annotations": [')
        for number in range(boxes):
            entry = entries[rng.randrange(images)]
            width, height = rng.uniform(4, entry["width"]), rng.uniform(4, entry["height"])
            x, y = rng.uniform(0, entry["width"] - width), rng.uniform(0, entry["height"] - height)
            outline = [round(rng.uniform(0, 480), 2) for _ in range(2 * rng.randint(3, 2 * points - 3))]
            annotation: dict[str, Any] = {"segmentation": [outline], "area": round(width * height, 4), "iscrowd": 0}
            annotation |= {"image_id": entry["id"], "bbox": [round(v, 2) for v in (x, y, width, height)]}
            annotation |= {"category_id": rng.randint(1, 80), "id": number}
            file.write(("," if number else "") + json.dumps(annotation))
        file.write("]}")
    past = time.time() - 60  # nobody trains on what was written a second ago
    for path in (root / "annotations" / "instances_train.json", *folder.iterdir()):
        os.utime(path, (past, past))
    return root


def opened(root: Path) -> dict[str, float]:
    """Seconds and peak memory in bytes of a process that opens the set."""
    command = [sys.executable, __file__, "--open", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main(
    images: Annotated[int, typer.Option(min=2_000, help="JPEG files.")] = 118_287,
    boxes: Annotated[int, typer.Option(min=1, help="Objects.")] = 860_000,
    points: Annotated[int, typer.Option(min=3, help="Points of an outline, in the mean.")] = 26,
    folder: Annotated[Path | None, typer.Option(help="Where the set is made, and removed.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
    open_: Annotated[Path | None, typer.Option("--open", hidden=True)] = None,
) -> None:
    """Make the set, open it twice, print, record."""
    if open_ is not None:
        before = status("VmHWM")
        started = time.perf_counter()
        dataset = open_dataset(open_, "train")
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak": status("VmHWM"), "imports": before, "images": len(dataset)}))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = make_set(Path(made) / "set", images, boxes, points)
        megabytes = round((root / "annotations" / "instances_train.json").stat().st_size / 1e6)
        for time_ in ("first", "second"):
            result = opened(root)
            assert result["images"] == images
            met = result["seconds"] <= TARGETS[f"{time_} seconds"] and result["peak"] <= TARGETS["peak bytes"]
            row = {"time": time_, "seconds": round(result["seconds"], 2), "peak_mb": round(result["peak"] / 1e6)}
            rows.append({**row, "imports_mb": round(result["imports"] / 1e6), "met": met})
            print(rows[-1])
    record = {
        "command": f"python benchmarks/opening.py --images {images} --boxes {boxes} --points {points}",
        **circumstances(),
        "images": images,
        "boxes": boxes,
        "annotations_mb": megabytes,
        "targets": TARGETS,
        "rows": rows,
    }
    write_record(record, "opening", results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
