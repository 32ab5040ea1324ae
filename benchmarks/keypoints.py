"""Keypoints of drawn fish, read from the maps of the small detector, whose weights stay as they are.

    python benchmarks/keypoints.py --seeds 3

trains the head with each seed, as far as the record does not have it yet, tests it on scenes that it has not seen, and
writes keypoints.json after each training, and for chapter 20 the head of the first seed, in half precision:

    side, scenes, tests, steps, batch   of the training and of the test
    fish                                how many there are to learn from, and to test on
    keypoints                           their names
    constant                            figures of an answer that knows nothing: the mean place in the box
    parameters                          of the head
    runs                                {"seed", "true_boxes", "found_boxes", "found", "processor_seconds"} of each
                                        training: figures in the true boxes, and in those that the detector finds, and
                                        which part of the fish it finds (score 0.3 or more, IoU 0.5 or more)

Figures are of the keypoints that are seen: "pixels", the mean distance from the true place, "near", the share that is
off by at most a tenth of the longer side of the box, and "near_each", the same for each keypoint.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS, begun, circumstances, write_record
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.data.files import replaced
from ssdlib.data.synthetic.keypoints import FISH_KEYPOINTS, keypoint_scenes
from ssdlib.family.keypoints import (
    WEIGHTS,
    KeypointReader,
    decode_keypoints,
    head_bytes,
    keypoint_loss,
    keypoint_targets,
)
from ssdlib.model import SSD
from ssdlib.zoo import demo_model

SIDE, TRAIN_SEED, TEST_SEED = 256, 0, 1
JITTER = 0.1  # of a side: boxes that are found are not exact
NEAR = 0.1


class Fish(NamedTuple):
    """All fish of some scenes: F of them in N scenes that have one."""

    images: Tensor  # (N, 3, 256, 256) uint8
    maps: list[Tensor]  # (N, channels, height, width) in half precision: the encoder is not trained
    image: Tensor  # (F,) int64
    boxes: Tensor  # (F, 4) xyxy, fractional
    points: Tensor  # (F, K, 2), fractional
    visible: Tensor  # (F, K)


def gather(model: KeypointReader, count: int, seed: int) -> Fish:
    """Draw scenes, and keep what is needed of those with a fish."""
    images, targets = keypoint_scenes(count, SIDE, seed)
    kept = [i for i, target in enumerate(targets) if len(target["boxes"])]
    images, own = images[kept], [targets[i] for i in kept]
    parts = [[level.half() for level in model.maps(x.float() / 255)] for x in images.split(16)]
    maps = [torch.cat(level) for level in zip(*parts, strict=True)]
    image = torch.repeat_interleave(torch.tensor([len(target["boxes"]) for target in own]))
    boxes, points, visible = (torch.cat([target[key] for target in own]) for key in ("boxes", "points", "visible"))
    return Fish(images, maps, image, boxes / SIDE, points / SIDE, visible)


def heatmaps(model: KeypointReader, fish: Fish, rows: Tensor, boxes: Tensor) -> Tensor:
    """What the head says of some fish in boxes of theirs."""
    maps = [level[fish.image[rows]].float() for level in fish.maps]
    result: Tensor = model.head(model.regions(maps, [*boxes[:, None]]))
    return result


def train(model: KeypointReader, fish: Fish, steps: int, batch: int, seed: int) -> None:
    """AdamW with one cycle of the learning rate; the sides of each box move a little, each time anew."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.15)
    for _ in range(steps):
        rows = torch.randint(len(fish.boxes), (batch,), generator=generator)
        true = fish.boxes[rows]
        size = (true[:, 2:] - true[:, :2]).repeat(1, 2)
        boxes = true + JITTER * size * (2 * torch.rand(batch, 4, generator=generator) - 1)
        targets = keypoint_targets(fish.points[rows], fish.visible[rows], boxes)
        optimizer.zero_grad()
        keypoint_loss(heatmaps(model, fish, rows, boxes), targets).backward()
        optimizer.step()
        schedule.step()


def figures(points: Tensor, fish: Fish, rows: Tensor) -> dict[str, Any]:
    """How far keypoints (R, K, 2) of some fish are from the true ones."""
    distance = SIDE * (points - fish.points[rows]).norm(dim=2)  # (R, K) pixels
    longer = SIDE * (fish.boxes[rows, 2:] - fish.boxes[rows, :2]).amax(dim=1, keepdim=True)
    seen, near = fish.visible[rows], distance <= NEAR * longer
    each = [near[seen[:, k], k].double().mean().item() for k in range(near.shape[1])]
    return {
        "pixels": round(distance[seen].double().mean().item(), 2),
        "near": round(near[seen].double().mean().item(), 4),
        "near_each": [round(share, 4) for share in each],
    }


@torch.no_grad()
def read(model: KeypointReader, fish: Fish, rows: Tensor, boxes: Tensor) -> Tensor:
    """(R, K, 2): the keypoints of some fish, read in boxes of theirs."""
    parts = [
        decode_keypoints(heatmaps(model, fish, some, own), own)[0]
        for some, own in zip(rows.split(32), boxes.split(32), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def found_boxes(detector: SSD, fish: Fish, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which fish the detector finds (R,), and its best boxes of them (R, 4), fractional."""
    rows, boxes = [], []
    detections = [one for part in fish.images.split(16) for one in detector.predict(list(part), min_score=0.3)]
    for i, found in enumerate(detections):
        own = found["boxes"][found["labels"] == classes.index("fish") + 1] / SIDE
        for row in (fish.image == i).nonzero().flatten().tolist():
            if len(own):
                overlap, best = iou(fish.boxes[row : row + 1], own)[0].max(dim=0)
                if overlap >= 0.5:
                    rows.append(row)
                    boxes.append(own[best])
    return torch.tensor(rows, dtype=torch.int64), torch.stack(boxes) if boxes else torch.zeros(0, 4)


def constant(learned: Fish, fish: Fish) -> Tensor:
    """(F, K, 2): each keypoint at the place in the box that it has on average where it is seen."""
    size = learned.boxes[:, None, 2:] - learned.boxes[:, None, :2]
    share, seen = (learned.points - learned.boxes[:, None, :2]) / size, learned.visible[..., None]
    mean = (share * seen).sum(dim=0) / seen.sum(dim=0)  # (K, 2)
    return fish.boxes[:, None, :2] + mean * (fish.boxes[:, None, 2:] - fish.boxes[:, None, :2])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32, help="fish in a step")
    parser.add_argument("--scenes", type=int, default=2000, help="to learn from; about a third has a fish")
    parser.add_argument("--tests", type=int, default=600, help="scenes to test on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = {"side": SIDE, "scenes": asked.scenes, "tests": asked.tests, "steps": asked.steps, "batch": asked.batch}
    command = f"python benchmarks/keypoints.py --steps {asked.steps} --seeds {asked.seeds}"
    settings = {"command": command, **circumstances(), **counts, "keypoints": list(FISH_KEYPOINTS)}
    record = {**begun(asked.out / "keypoints.json", settings, (*counts, "keypoints"), {}), **settings}
    detector = demo_model()
    assert detector.classes is not None
    reader = KeypointReader(detector, len(FISH_KEYPOINTS)).eval()
    learned, fish = gather(reader, asked.scenes, TRAIN_SEED), gather(reader, asked.tests, TEST_SEED)
    everyone = torch.arange(len(fish.boxes))
    rows, boxes = found_boxes(detector, fish, detector.classes)
    record["fish"] = [len(learned.boxes), len(fish.boxes)]
    record["constant"] = figures(constant(learned, fish), fish, everyone)
    record["parameters"] = sum(p.numel() for p in reader.head.parameters())
    for seed in range(asked.seeds):
        if seed in [run["seed"] for run in record["runs"]]:
            continue
        torch.manual_seed(seed)
        model = KeypointReader(detector, len(FISH_KEYPOINTS)).eval()
        started = time.process_time()
        train(model, learned, asked.steps, asked.batch, seed)
        seconds = round(time.process_time() - started, 1)
        run = {
            "seed": seed,
            "true_boxes": figures(read(model, fish, everyone, fish.boxes), fish, everyone),
            "found_boxes": figures(read(model, fish, rows, boxes), fish, rows) if len(rows) else None,
            "found": round(len(rows) / len(everyone), 4),
            "processor_seconds": seconds,
        }
        print(run, flush=True)
        record["runs"].append(run)
        if seed == 0:
            with replaced(asked.weights / "keypoints.safetensors") as part:
                part.write_bytes(head_bytes(model))
        write_record(record, "keypoints", asked.out)


if __name__ == "__main__":
    main()
