"""The classic mistake of deployment, measured: colours in the order that OpenCV reads, into a network that learned RGB.

    OMP_NUM_THREADS=2 python benchmarks/colour_order.py --data PATH/coco128

Nothing fails when red and blue are exchanged: the boxes come, and are worse. The record has a row for each detector:

    detector            a name of `ssd models`, or "ssd_tiny" for the small one that comes with the package
    images, objects     on which it was measured, "drawn" scenes or "photographs" (`kind`)
    mAP                 {"RGB": ..., "BGR": ...} at IoU 0.5, by area
    AP                  {"RGB": {class: ...}, "BGR": {class: ...}}
    found               {"RGB": ..., "BGR": ...}: objects that a detection of their class with a score of at least
                        `score` overlaps by half
    detections          {"RGB": ..., "BGR": ...}: how many detections have that score

The drawn scenes are made anew; the row of the photographs is left out where PATH or the weights are not given.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import photographs
import torch
from record import RESULTS, circumstances, write_record
from torch import Tensor

from ssdlib.data import VOCDataset, make_toy_voc
from ssdlib.metrics import evaluate
from ssdlib.model import SSD
from ssdlib.zoo import demo_model, open_model

PHOTOGRAPHS = "openimages:ssd300_mobilenet_v2"
ORDERS = {"RGB": lambda image: image, "BGR": lambda image: image.flip(0)}


def on_drawn_scenes(model: SSD, scenes: int, score: float) -> dict[str, Any]:
    """The row of the small detector."""
    row: dict[str, Any] = {"mAP": {}, "AP": {}, "found": {}, "detections": {}}
    with tempfile.TemporaryDirectory() as folder:
        dataset = VOCDataset(
            make_toy_voc(Path(folder) / "toy", 0, 0, scenes, progress=False), "test", classes=model.classes
        )
        targets: list[dict[str, Tensor]] = [target for _, target in dataset]
        for order, view in ORDERS.items():
            detections = [found for image, _ in dataset for found in model.predict([view(image)], min_score=0.01)]
            result = evaluate(detections, targets, model.num_classes)
            hits, drawn = photographs.found_by(score, detections, targets)
            row["mAP"][order] = round(result.mean, 4)
            row["AP"][order] = {model.classes[k - 1]: round(ap, 4) for k, ap in sorted(result.per_class.items())}
            row["found"][order], row["detections"][order] = int(torch.cat(hits).sum()), drawn
    objects = sum(len(target["labels"]) for target in targets)
    return {"detector": "ssd_tiny", "kind": "drawn", "images": scenes, "objects": objects, "score": score, **row}


def on_photographs(model: SSD, data: Path, limit: int | None) -> dict[str, Any]:
    """The row of a detector of everyday objects; its score is that of photographs.json."""
    seen = {order: photographs.measure(model, data, limit, view) for order, view in ORDERS.items()}
    one = seen["RGB"]
    return {
        "detector": PHOTOGRAPHS,
        "kind": "photographs",
        "images": one["images"],
        "objects": one["objects"],
        "score": 0.3,
        "mAP": {order: found["mAP"] for order, found in seen.items()},
        "AP": {order: {k: v["AP"] for k, v in found["by_class"].items()} for order, found in seen.items()},
        "found": {order: found["at_score_0.3"]["objects_found"] for order, found in seen.items()},
        "detections": {order: found["at_score_0.3"]["detections"] for order, found in seen.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder in the YOLO layout, with COCO's classes")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--images", type=int, help="only so many photographs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    command = f"python benchmarks/colour_order.py --scenes {asked.scenes}"
    rows = [on_drawn_scenes(demo_model(), asked.scenes, 0.5)]
    if asked.data is not None:
        command += f" --data {asked.data.name}"
        rows.append(on_photographs(open_model(PHOTOGRAPHS), asked.data, asked.images))
    for row in rows:
        print(f"{row['detector']}: mAP@0.5 {row['mAP']['RGB']:.3f} in RGB, {row['mAP']['BGR']:.3f} in BGR")
    write_record({"command": command, **circumstances(), "rows": rows}, "colour_order", asked.out)


if __name__ == "__main__":
    main()
