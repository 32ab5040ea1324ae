"""Small objects: what looking through windows gains, and costs, on drawn scenes put together to large images.

Each image is a mosaic of COLUMNS x ROWS scenes, each at the size that the detector learned, so that objects are as many
times smaller to it as there are columns. The windows do not fall on the borders of the scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, circumstances, write_record
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.data.synthetic.scenes import render_scene
from ssdlib.data.synthetic.shapes import OBJECTS
from ssdlib.deploy import Detector
from ssdlib.metrics import evaluate
from ssdlib.zoo import demo_model

SIDE = 320  # of a scene, in pixels


def mosaic(seed: int, columns: int, rows: int) -> tuple[Tensor, dict[str, Tensor]]:
    """An image (3, rows * SIDE, columns * SIDE) and its target in pixels."""
    rng = np.random.default_rng([seed, columns, rows])
    image = torch.zeros(3, rows * SIDE, columns * SIDE, dtype=torch.uint8)
    boxes, labels, difficult = [], [], []
    for row in range(rows):
        for column in range(columns):
            scene, objects = render_scene(rng, (SIDE, SIDE))
            left, top = column * SIDE, row * SIDE
            image[:, top : top + SIDE, left : left + SIDE] = TF.pil_to_tensor(scene)
            for each in objects:
                boxes.append([each.box[0] + left, each.box[1] + top, each.box[2] + left, each.box[3] + top])
                labels.append(list(OBJECTS).index(each.name) + 1)
                difficult.append(each.difficult)
    return image, {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "difficult": torch.tensor(difficult, dtype=torch.bool),
    }


def measure(images: int, columns: int, rows: int, tiles: Sequence[int | None]) -> list[dict[str, Any]]:
    """A row for each side of the windows; None is the whole image alone."""
    made = [mosaic(seed, columns, rows) for seed in range(images)]
    found = []
    for side in tiles:
        detector = Detector(demo_model(), min_score=0.01, tiles=side)
        started = time.perf_counter()
        detections = [detector(image).detection for image, _ in made]
        seconds = (time.perf_counter() - started) / images
        result = evaluate(detections, [target for _, target in made], detector.model.num_classes)
        found.append({"tiles": side, "mAP": round(result.mean, 4), "seconds_per_image": round(seconds, 4)})
        print(f"tiles {side}: mAP@0.5 {result.mean:.3f}, {1e3 * seconds:.0f} ms an image", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1000, 700, 500, 350])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    command = f"python benchmarks/tiles.py --images {asked.images}"
    record = {"command": command, **circumstances(), "images": asked.images, "scenes": [asked.columns, asked.rows]}
    record |= {"side": SIDE, "rows": measure(asked.images, asked.columns, asked.rows, [None, *asked.tiles])}
    write_record(record, "tiles", asked.out)


if __name__ == "__main__":
    main()
