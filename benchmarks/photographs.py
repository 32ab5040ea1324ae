"""How good a detector of everyday objects is on photographs of COCO: AP by class, mAP by size, and what it is bad at.

    OMP_NUM_THREADS=2 python benchmarks/photographs.py --data PATH/coco128

PATH/coco128 is a data set in the YOLO layout, with COCO's 80 classes: images/train2017, labels/train2017, config.yaml.
Only the classes that detector and data have in common are judged. Sizes are the root of an object's area as a share of
the image's. For "over 0.1", smaller objects neither count nor make a false alarm, and smaller detections are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from record import RESULTS, circumstances, write_record
from torch import Tensor

from ssdlib.boxes import area, cxcywh_to_xyxy, iou
from ssdlib.data import load_image
from ssdlib.metrics import evaluate
from ssdlib.model import SSD
from ssdlib.nms import nms
from ssdlib.zoo import open_model

# What COCO calls one of its classes, and what Open Images calls it.
SYNONYMS = {
    "cow": ("Cattle",),
    "cup": ("Mug", "Coffee cup"),
    "dining table": ("Table",),
    "mouse": ("Computer mouse",),
    "tv": ("Computer monitor",),
}
SIZES = (0.0, 0.05, 0.1, 0.2, 0.4, 1.01)
Boxes = dict[str, Tensor]


def shared_classes(coco: Sequence[str], model: Sequence[str]) -> dict[str, list[int]]:
    """The labels of the model that stand for each class of COCO."""
    labels = {name.lower(): label for label, name in enumerate(model, start=1)}
    found = {name: [labels[n.lower()] for n in (name, *SYNONYMS.get(name, ())) if n.lower() in labels] for name in coco}
    return {name: which for name, which in found.items() if which}


def read_labels(path: Path, wanted: Mapping[int, int]) -> Boxes:
    """An image's objects of the wanted classes (number in the file: label), fractional xyxy."""
    rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    kept = [(wanted[int(row[0])], [float(x) for x in row[1:5]]) for row in rows if int(row[0]) in wanted]
    boxes = cxcywh_to_xyxy(torch.tensor([box for _, box in kept]).reshape(-1, 4))
    return {"boxes": boxes, "labels": torch.tensor([label for label, _ in kept], dtype=torch.int64)}


def relabelled(found: Boxes, classes: Sequence[Sequence[int]]) -> Boxes:
    """Detections under the labels 1, 2, ... of the classes; where several of the model's are one class, after NMS."""
    parts = []
    for label, which in enumerate(classes, start=1):
        rows = torch.isin(found["labels"], torch.tensor(which)).nonzero().squeeze(1)
        if len(which) > 1:
            rows = rows[nms(found["boxes"][rows], found["scores"][rows], 0.45)]
        parts.append((rows, torch.full((len(rows),), label)))
    rows, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return {"boxes": found["boxes"][rows], "labels": labels, "scores": found["scores"][rows]}


def side(boxes: Boxes) -> Tensor:
    return area(boxes["boxes"]).sqrt()


def map_over(limit: float, detections: Sequence[Boxes], targets: Sequence[Boxes], num_classes: int) -> float:
    large = [{key: value[side(found) > limit] for key, value in found.items()} for found in detections]
    judged = [{**target, "difficult": side(target) <= limit} for target in targets]
    return evaluate(large, judged, num_classes).mean


def found_by(score: float, detections: Sequence[Boxes], targets: Sequence[Boxes]) -> tuple[list[Tensor], int]:
    """For each image, which objects overlap a detection of their class by half; and how many detections there are."""
    hits, count = [], 0
    for found, target in zip(detections, targets, strict=True):
        drawn = {key: value[found["scores"] >= score] for key, value in found.items()}
        right = (iou(target["boxes"], drawn["boxes"]) >= 0.5) & (target["labels"][:, None] == drawn["labels"])
        hits.append(right.any(dim=1))
        count += len(drawn["scores"])
    return hits, count


def measure(
    model: SSD, data: Path, limit: int | None = None, view: Callable[[Tensor], Tensor] = lambda image: image
) -> dict[str, Any]:
    """The record's figures; each image (3, H, W) goes through `view` before the detector sees it."""
    names = list(yaml.safe_load((data / "config.yaml").read_text())["names"].values())
    classes = shared_classes(names, model.classes)
    wanted = {names.index(name): label for label, name in enumerate(classes, start=1)}
    detections, targets = [], []
    for path in sorted((data / "images" / "train2017").iterdir())[:limit]:
        image = view(load_image(path))
        (found,) = model.predict([image], min_score=0.01)
        found["boxes"] = found["boxes"] / torch.tensor([image.shape[2], image.shape[1]] * 2)
        detections.append(relabelled(found, list(classes.values())))
        targets.append(read_labels(data / "labels" / "train2017" / f"{path.stem}.txt", wanted))
    result = evaluate(
        detections,
        [{**t, "difficult": torch.zeros(len(t["labels"]), dtype=torch.bool)} for t in targets],
        1 + len(classes),
    )
    labels, sides = torch.cat([t["labels"] for t in targets]), torch.cat([side(t) for t in targets])
    hits, drawn = found_by(0.3, detections, targets)
    hit = torch.cat(hits)
    by_class = {
        name: {
            "AP": round(result.per_class[label], 3),
            "objects": int((labels == label).sum()),
            "median_size": round(float(sides[labels == label].median()), 3),
        }
        for label, name in enumerate(classes, start=1)
        if label in result.per_class
    }
    by_size = [
        {
            "size": [low, min(high, 1.0)],
            "objects": int(inside.sum()),
            "recall": round(float(hit[inside].float().mean()), 3),
        }
        for low, high in pairwise(SIZES)
        if (inside := (sides >= low) & (sides < high)).any()
    ]
    by_class = dict(sorted(by_class.items(), key=lambda item: -item[1]["AP"]))
    over = {str(limit): round(map_over(limit, detections, targets, 1 + len(classes)), 4) for limit in (0.1, 0.2)}
    return {
        "images": len(targets),
        "objects": len(labels),
        "mAP": round(result.mean, 4),
        "mAP_over_size": over,
        "by_class": by_class,
        "at_score_0.3": {"detections": drawn, "objects_found": int(hit.sum()), "recall_by_size": by_size},
        "bad_at": [name for name, row in by_class.items() if row["AP"] < 0.2],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in the YOLO layout, with COCO's classes")
    parser.add_argument("--model", default="openimages:ssd300_mobilenet_v2", help="a name of `ssd models`, or a run")
    parser.add_argument("--images", type=int, help="only so many")
    parser.add_argument("--name", default="photographs", help="of the record")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    command = f"python benchmarks/photographs.py --data {asked.data.name} --model {asked.model}"
    found = measure(open_model(asked.model), asked.data, asked.images)
    threads = torch.get_num_threads()
    write_record(
        {"command": command, **circumstances(), "threads": threads, "model": asked.model, **found},
        asked.name,
        asked.out,
    )


if __name__ == "__main__":
    main()
