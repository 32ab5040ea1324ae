"""Segmentation of drawn scenes on the maps of a trained detector: three ways up, trained with the same batches.

    python benchmarks/segmentation.py --seeds 3

trains each of the ways with each seed, as far as the record does not have it yet, and writes segmentation.json after
each training, and for chapter 24 the decoder of the best way (first seed), in half precision:

    side, scenes, tests, steps, batch   of the training and of the test
    background                          figures of an answer that finds nothing
    ups                                 {way: parameters, multiply_adds}
    runs                                {"up", "seed", "mean_iou", "accuracy", "processor_seconds"} of each training
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from record import RESULTS, begun, circumstances, write_record
from torch import Tensor, nn

from ssdlib.data.files import replaced
from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.family.overfeat import multiply_adds
from ssdlib.family.pixel_metrics import count_pixels, mean_iou, pixel_accuracy
from ssdlib.family.segmentation import WEIGHTS, Segmenter, Up, decoder_bytes, enlarge, pixel_loss
from ssdlib.zoo import demo_model

UPS: tuple[Up, ...] = ("skip", "unpool", "transposed")
SHOWN = "skip"
SIDE, CLASSES, TRAIN_SEED, TEST_SEED = 256, 7, 0, 1


@torch.no_grad()
def encoded(model: Segmenter, images: Tensor) -> list[Tensor]:
    """The encoder's maps of all images, in half precision: the encoder is not trained, so they stay the same."""
    parts = [[m.half() for m in model.encode(x.float() / 255)] for x in images.split(16)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def train(model: Segmenter, maps: Sequence[Tensor], labels: Tensor, steps: int, seed: int, batch: int = 8) -> None:
    """AdamW with one cycle of the learning rate, on the labels of every fourth pixel.

    The head begins with the shares of the classes, so that training does not begin with learning them.
    """
    shares = torch.bincount(labels.flatten(), minlength=CLASSES) / labels.numel()
    nn.init.zeros_(model.decoder.head.weight)
    model.decoder.head.bias = nn.Parameter(shares.clamp(min=1e-4).log())
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
    model.decoder.train()
    for _ in range(steps):
        rows = torch.randint(len(labels), (batch,), generator=generator)
        optimizer.zero_grad()
        pixel_loss(model.decoder([level[rows].float() for level in maps]), labels[rows, ::4, ::4]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def test(model: Segmenter, maps: Sequence[Tensor], labels: Tensor) -> Tensor:
    """The counts (C, C) of all pixels."""
    counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for rows in torch.arange(len(labels)).split(20):
        logits = enlarge(model.decoder([level[rows].float() for level in maps]), 4)
        counts += count_pixels(logits.argmax(dim=1), labels[rows], CLASSES)
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--scenes", type=int, default=300, help="to learn from")
    parser.add_argument("--tests", type=int, default=100, help="scenes to test on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = {
        "command": f"python benchmarks/segmentation.py --steps {asked.steps} --seeds {asked.seeds}",
        **circumstances(),
        **{"side": SIDE, "scenes": asked.scenes, "tests": asked.tests, "steps": asked.steps, "batch": 8},
    }
    fixed = ("side", "scenes", "tests", "steps", "batch")
    record = {**begun(asked.out / "segmentation.json", {**settings, "ups": {}}, fixed, {}), **settings}
    images, labels = segmented_scenes(asked.scenes, SIDE, TRAIN_SEED)
    test_images, test_labels = segmented_scenes(asked.tests, SIDE, TEST_SEED)
    nothing = count_pixels(torch.zeros_like(test_labels), test_labels, CLASSES)
    record["background"] = figures(nothing)
    detector = demo_model()
    maps, test_maps = (encoded(Segmenter(detector, CLASSES), x) for x in (images, test_images))
    done = {(run["up"], run["seed"]) for run in record["runs"]}
    for seed in range(asked.seeds):
        for up in UPS:
            if (up, seed) in done:
                continue
            torch.manual_seed(seed)
            model = Segmenter(detector, CLASSES, up)
            started = time.process_time()
            train(model, maps, labels, asked.steps, seed)
            seconds = round(time.process_time() - started, 1)
            learned = sum(p.numel() for p in model.decoder.parameters())
            record["ups"][up] = {"parameters": learned, "multiply_adds": multiply_adds(model, SIDE, SIDE)}
            run = {"up": up, "seed": seed, **figures(test(model, test_maps, test_labels)), "processor_seconds": seconds}
            print(run, flush=True)
            record["runs"].append(run)
            if seed == 0 and up == SHOWN:
                with replaced(asked.weights / f"segmentation_{up}.safetensors") as part:
                    part.write_bytes(decoder_bytes(model))
            write_record(record, "segmentation", asked.out)


def figures(counts: Tensor) -> dict[str, float]:
    """Of the counts of all pixels."""
    return {"mean_iou": round(mean_iou(counts), 4), "accuracy": round(pixel_accuracy(counts), 4)}


if __name__ == "__main__":
    main()
