"""Presets: named configurations of a training run that are known to work or come from a paper."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ssdlib.data.transforms import Augmentation
from ssdlib.engine.config import TrainConfig

# Liu et al. (2016), section 3.1, with the zooming out of section 3.6 and the steps that go with it, twice 60k. Only
# the original code says: biases at twice the rate, and crops down to 0.3 of a side.
_PAPER = TrainConfig(
    architecture="ssd300_vgg16",
    iterations=120_000,
    batch_size=32,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="steps",
    warmup=0.0,
    bias_lr_multiplier=2.0,
    max_grad_norm=None,
    ema_decay=0.0,
    pretrained=True,
)

PRESETS = {
    # Thousands of images, such as drawn scenes: every image is seen a few times only, so flips are variation enough.
    "tiny": TrainConfig(
        iterations=2300, learning_rate=2e-3, augmentation=Augmentation(color=False, zoom_out=1.0, crop=1.0)
    ),
    # Hundreds of photographs: without crops and zooms the network would memorise them.
    "tiny_few": TrainConfig(augmentation=Augmentation(color=False, zoom_out=1.3, zoom_out_p=0.2, crop=0.7, crop_p=0.7)),
    # Hundreds of photographs, from a network that has seen millions: the first layers stay as they are, the rest of the
    # backbone moves slower than the heads, and few steps are enough. With `--init` it is the network of that detector.
    "finetune": TrainConfig(
        architecture="ssd300_mobilenet_v2_bn",
        pretrained=True,
        freeze="early",
        iterations=1000,
        learning_rate=1.5e-3,
        backbone_lr_multiplier=0.3,
        augmentation=Augmentation(zoom_out=1.3, zoom_out_p=0.2, crop=0.5, crop_p=0.7),
    ),
    "paper": _PAPER,
    "paper512": replace(_PAPER, architecture="ssd512_vgg16"),
    # Without ImageNet the first layers have to be learned from the boxes: batch normalisation makes a rate possible
    # that is twenty times the paper's, and twice as many images are seen.
    "scratch": TrainConfig(
        architecture="ssd300_vgg16_bn",
        iterations=120_000,
        batch_size=64,
        optimizer="sgd",
        learning_rate=2e-2,
        schedule="cosine",
        warmup=0.02,
        max_grad_norm=10.0,
        ema_decay=0.9995,
    ),
}
"""The names of `ssd train --preset`; `PRESET_NOTES` says what each is for."""


class PresetNote(NamedTuple):
    """What a user wants to know of a preset: what it is for, its command, on what it runs and how long, how good."""

    purpose: str
    command: str
    hardware: str
    time: str
    score: str


_VOC = "--data data/VOC2007 --data data/VOC2012"
_MEASURED = "ssdlib/engine/records"
_NOT_MEASURED = "not measured with ssdlib"

PRESET_NOTES = {
    "tiny": PresetNote(
        "the small network, for thousands of images such as drawn scenes",
        "ssd train --preset tiny --data data/toy --out runs/toy",
        "two CPU cores",
        f"minutes; measured: {_MEASURED}/tiny_toy.json",
        f"measured: {_MEASURED}/tiny_toy.json",
    ),
    "tiny_few": PresetNote(
        "the small network, for hundreds of photographs",
        "ssd train --preset tiny_few --data data/BCCD --out runs/bccd",
        "two CPU cores",
        f"minutes; measured: {_MEASURED}/tiny_bccd.json",
        f"measured: {_MEASURED}/tiny_bccd.json",
    ),
    "finetune": PresetNote(
        "from a network that has seen millions of photographs to your classes, with hundreds of photographs; "
        "from ImageNet, or from the detector of --init",
        "ssd train --preset finetune --data data/cards --out runs/cards",
        "two CPU cores; one GPU for SSD300 (estimated)",
        f"minutes; measured: {_MEASURED}/finetune_cards.json",
        f"measured: {_MEASURED}/finetune_cards.json",
    ),
    "paper": PresetNote(
        "SSD300 on VGG-16 as in the paper, from ImageNet weights, on VOC 2007 + 2012",
        f"ssd train --preset paper {_VOC} --out runs/ssd300",
        "one GPU with 12 GB (estimated)",
        "0.7 EFLOP: 5 hours at a sustained 40 TFLOP/s, if the data arrive as fast (arithmetic, not measured)",
        "mAP 77.2 on VOC 2007 test (Liu et al. 2016, final version, with zooming out and twice the iterations); "
        f"{_NOT_MEASURED}",
    ),
    "paper512": PresetNote(
        "SSD512 on VGG-16 as in the paper, from ImageNet weights, on VOC 2007 + 2012",
        f"ssd train --preset paper512 {_VOC} --out runs/ssd512",
        "one GPU with 24 GB (estimated)",
        "three times as long as preset paper, as there are 2.9 times as many pixels (arithmetic, not measured)",
        "mAP 79.8 on VOC 2007 test (Liu et al. 2016, final version, with zooming out and twice the iterations); "
        f"{_NOT_MEASURED}",
    ),
    "scratch": PresetNote(
        "SSD300 on VGG-16 with batch normalisation, from random weights, on VOC 2007 + 2012",
        f"ssd train --preset scratch {_VOC} --out runs/scratch",
        "one GPU with 24 GB (estimated)",
        "twice as long as preset paper (arithmetic, not measured)",
        "on VOC 2007 test, SSD300 from scratch has mAP 69.6 without batch normalisation (Shen et al. 2017), and "
        f"about 78 with it and a rate of 0.05 (Zhu et al. 2019); {_NOT_MEASURED}",
    ),
}
"""One note for each preset. Published figures are the papers', and none of ours; measured ones name their record."""


# What is known of how long to train: images of the data set, and images that were seen. The small network on blood
# cells (ssdlib/engine/records/tiny_bccd.json), the paper's run on VOC, and playing cards (.../finetune_cards.json).
_SMALL, _LARGE, _TUNED = (292, 2400 * 8), (16_551, 120_000 * 32), (296, 1000 * 8)


def advised_iterations(config: TrainConfig, images: int, *, tuned: bool = False) -> int:
    """How many steps fit a data set, by a rule of thumb: images seen grow with the square root of the images there are.

    Four times the photographs are worth twice the steps: each is seen half as often. The rule goes through one
    run for each kind of start; of the paper's it makes 320,000 iterations for the 118,287 images of COCO, where the
    paper (section 3.4) took 240,000 before it zoomed out.

    Args:
        config: of it, architecture and batch size matter here.
        images: of the data set.
        tuned: the run starts from a trained detector.

    Returns:
        Iterations, to two digits.
    """
    there, seen = _TUNED if tuned else _SMALL if config.architecture == "ssd_tiny" else _LARGE
    steps = max(1.0, seen * math.sqrt(images / there) / config.batch_size)
    return int(round(steps, min(0, 1 - math.floor(math.log10(steps)))))


def tunes(config: TrainConfig) -> bool:
    """Whether a run without `--init` is fine-tuning: it starts from a classifier that moves slower than the heads.

    The paper's run starts from a classifier, too, but all of it learns at one rate, and for long.
    """
    return config.pretrained and config.backbone_lr_multiplier < 1


def schedule_advice(config: TrainConfig, images: int, *, tuned: bool = False) -> str:
    """A line for whoever starts a run whose iterations are far (four times) from the rule; empty where they are not."""
    advised = advised_iterations(config, images, tuned=tuned)
    if advised / 4 <= config.iterations <= advised * 4:
        return ""
    epochs = config.iterations * config.batch_size / images
    times = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return (
        f"advice: {config.iterations:,} iterations show each of the {images:,} images {times} times; a rule of "
        f"thumb for as many images is about {advised:,} (--iterations {advised})"
    )
