"""Time our code against torchvision's (mAP: three other libraries') on the same tensors, and record it.

    OMP_NUM_THREADS=2 python benchmarks/speed.py
    OMP_NUM_THREADS=2 python benchmarks/speed.py --only detection --only mAP

prints a table and writes ssdlib/engine/records/speed.json: command, commit, date, hardware, versions, and for each
work the medians of both, the ratio of every pair of runs, the peak memory of both, and in what the results agree. What
cannot be measured on a machine is named there with the reason: for one row, `pip install faster-coco-eval`.

speed.json is of a processor with AVX-512. Each other kind has a record of its own, such as speed_avx2.json. With
--only, the other rows of the record stay as they are if they were measured on the same code and machine; with --keep,
those of other code stay too, and say in "measured" when and of which commit they are.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import peer_data
import peer_networks
import peers
import torch
import torchmetrics
import typer
from record import RESULTS, circumstances, processor_kind, write_record
from timing import NotHere, Pair, compare, table

from ssdlib.deploy.runtimes import ONNX, OPENVINO

COCO_SIZE = "evaluation of COCO's size"
UNLIMITED = ("mAP", COCO_SIZE, f"{COCO_SIZE}, faster-coco-eval", "runtime, ONNX Runtime", "runtime, OpenVINO")
"""Works of NumPy and of runtimes, which the limits to PyTorch and oneDNN do not reach."""


def works(folder: Path, small: bool) -> dict[str, Callable[[], Pair]]:
    """What is measured, by name; `small` for a test of the script, whose figures mean nothing."""
    n = 1 if small else 8
    name = "ssdlite320_mobilenet_v3_large" if small else "ssd300_vgg16"
    batch = 2 if small else 4
    rows: dict[str, Callable[[], Pair]] = {
        "matching + loss": lambda: peers.loss(2 if small else 32),
        "detection, trained": lambda: peers.detection(True, n, target=0.30),
        "detection, untrained": lambda: peers.detection(False, n, target=0.06),
        "detection, SSD512": lambda: peers.detection(True, n, recipe="SSD512"),
        "detection, 1001 classes": lambda: peers.detection(True, 1 if small else 2, 1001),
        "pipeline": lambda: peer_data.pipeline(folder, 2 if small else 24),
        "mAP": lambda: peer_data.mean_average_precision(8 if small else 500),
        COCO_SIZE: lambda: peer_data.coco_evaluation(peer_data.PYCOCOTOOLS, 8 if small else 5000),
        f"{COCO_SIZE}, faster-coco-eval": lambda: peer_data.coco_evaluation(peer_data.FASTER, 8 if small else 5000),
        "training, float32": lambda: peer_networks.training(False, batch, name),
        "training, bfloat16": lambda: peer_networks.training(True, batch, name),
        "training, compiled": lambda: peer_networks.training(False, batch, name, compiled=True),
    }
    for images in (1, n):
        for bfloat16 in (False, True):
            kind = "bfloat16" if bfloat16 else "float32"
            # SSD300 here too: an untrained SSDLite gives nearly equal scores, of which NMS may keep others.
            rows[f"inference, batch {images}, {kind}"] = lambda b=images, h=bfloat16: peer_networks.inference(h, b)
    rows["inference, compiled"] = lambda: peer_networks.inference(False, 1, compiled=True)
    rows["runtime, ONNX Runtime"] = lambda: peer_networks.runtime(ONNX, folder, 2 if small else 20)
    rows["runtime, OpenVINO"] = lambda: peer_networks.runtime(OPENVINO, folder, 2 if small else 20)
    return rows


def default_name() -> str:
    """That of the record of this kind of processor."""
    return "speed" if processor_kind() == "avx512" else f"speed_{processor_kind()}"


def kept(path: Path, now: dict[str, Any], older: bool = False) -> dict[str, list[dict[str, Any]]]:
    """The rows of a record of the same machine, and the same code or `older`, which need not be measured again."""
    rows: dict[str, list[dict[str, Any]]] = {"rows": [], "not_here": []}
    if not path.is_file():
        return rows
    record = json.loads(path.read_text(encoding="utf-8"))
    if any(record.get(field) != now[field] for field in ("hardware", "versions", "threads")):
        return rows
    if record["commit"] != now["commit"]:
        if not older:
            return rows
        for row in record["rows"]:
            row.setdefault("measured", {field: record[field] for field in ("commit", "date")})
    return {field: record.get(field, []) for field in rows}


def main(
    name: Annotated[str, typer.Option(help="Name of the record; by default that of this kind of processor.")] = "",
    only: Annotated[list[str], typer.Option(help="Only works whose name holds this text; may be repeated.")] = [],  # noqa: B006
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows that older code gave, and say so.")] = False,
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each work.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print a table, record after each work."""
    torch.set_num_threads(threads)
    name = name or default_name()
    now = {**circumstances(), "torchmetrics": torchmetrics.__version__, "threads": threads}
    limits = now["hardware"].get("limited_by", "")
    command = f"{limits} OMP_NUM_THREADS={threads} python benchmarks/speed.py --rounds {rounds}".strip()
    with tempfile.TemporaryDirectory() as folder:
        todo = works(Path(folder), small)
        order = list(todo)
        record = {"command": command, **now, **kept(results / f"{name}.json", now, keep)}
        for key in order:
            if only and not any(text in key for text in only):
                continue
            for field in ("rows", "not_here"):
                record[field] = [row for row in record[field] if row["name"] != key]
            try:
                if limits and key in UNLIMITED:
                    raise NotHere(f"its library would use more of the processor than {limits} allows")
                row = compare(todo[key](), rounds)
            except NotHere as reason:
                print(f"{key}: {reason}", flush=True)
                record["not_here"].append({"name": key, "why": str(reason)})
            else:
                print(table([row]), flush=True)
                record["rows"].append({"name": key, **asdict(row)})
            for field in ("rows", "not_here"):
                record[field].sort(key=lambda each: order.index(each["name"]))
            write_record(record, name, results)
            gc.collect()  # the networks of this work


if __name__ == "__main__":
    sys.exit(typer.run(main))
