"""Presets: the configuration of a training run, and named ones that are known to work or come from a paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple, get_type_hints

from ssdlib.data.transforms import Augmentation


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, besides the data.

    Attributes:
        architecture: a name of `ssdlib.model.ARCHITECTURES`.
        iterations: how many steps; with the batch size, how many images are seen, whatever the size of the data set.
        batch_size: images a step, of all processes together.
        optimizer: "sgd" or "adamw".
        learning_rate: the largest of the schedule.
        schedule: "cosine" falls to 0 along half a cosine; "steps" divides by 10 at 2/3 and at 5/6 of the run, as the
            paper does after 80k and 100k of 120k iterations.
        warmup: share of the run in which the rate rises from 0.
        momentum: of SGD.
        weight_decay: pulls weights, but no biases and normalisations, towards 0.
        bias_rate: factor of the learning rate for biases; 2 in the original code.
        clip_norm: largest norm of the gradient; None does not clip.
        average: decay of the running average of the weights that is evaluated and saved; 0 keeps the last weights.
        augmentation: how the images are varied; None shows them as they are.
        augment_on: where that is done: "loader", by the processes that load the images, or "device", for a whole batch
            by the device that trains; for a GPU that waits for its images. The images are the same up to rounding.
        bfloat16: compute the network in bfloat16 (autocast) where that is safe.
        seed: of weights, order and augmentation. On a CPU the same seed gives the same run, whatever the number of
            workers.
        pretrained: start the backbone from torchvision's weights for ImageNet.
        compile: let torch.compile make the network faster; it needs a C++ compiler, and some minutes at the start.

    Raises:
        ValueError: if a value is out of its range; the message names it.
    """

    architecture: str = "ssd_tiny"
    iterations: int = 2400
    batch_size: int = 8
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_rate: float = 1.0
    clip_norm: float | None = 10.0
    average: float = 0.99
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    augment_on: str = "loader"
    bfloat16: bool = False
    seed: int = 0
    pretrained: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")
        if self.schedule not in ("cosine", "steps"):
            raise ValueError(f"schedule must be 'cosine' or 'steps', got {self.schedule!r}")
        if self.augment_on not in ("loader", "device"):
            raise ValueError(f"augment_on must be 'loader' or 'device', got {self.augment_on!r}")
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f"iterations and batch_size must be at least 1, got {self.iterations}, {self.batch_size}")
        for name in ("warmup", "average", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate", "bias_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, or none, got {self.clip_norm}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


# Liu et al. (2016), section 3.1, with the augmentation of section 3.6, and what only the original code says:
# biases at twice the rate, and 120k steps.
_PAPER = TrainConfig(
    architecture="ssd300_vgg16",
    iterations=120_000,
    batch_size=32,
    optimizer="sgd",
    learning_rate=1e-3,
    schedule="steps",
    warmup=0.0,
    bias_rate=2.0,
    clip_norm=None,
    average=0.0,
    pretrained=True,
)

PRESETS = {
    # Thousands of images, such as drawn scenes: every image is seen a few times only, so flips are variation enough.
    "tiny": TrainConfig(
        iterations=2300, learning_rate=2e-3, augmentation=Augmentation(colour=False, zoom_out=1.0, crop=1.0)
    ),
    # Hundreds of photographs: without crops and zooms the network would learn them by heart.
    "tiny_few": TrainConfig(
        augmentation=Augmentation(colour=False, zoom_out=1.3, zoom_out_p=0.2, crop=0.7, crop_p=0.7)
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
        clip_norm=10.0,
        average=0.9995,
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
_MEASURED = "benchmarks/results"
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
    "paper": PresetNote(
        "SSD300 on VGG-16 as in the paper, from weights for ImageNet, on VOC 2007 + 2012",
        f"ssd train --preset paper {_VOC} --out runs/ssd300",
        "one GPU with 12 GB (estimated)",
        "0.7 EFLOP: 5 hours at a sustained 40 TFLOP/s, if the data arrive as fast (arithmetic, not measured)",
        f"mAP 77.2 on VOC 2007 test (Liu et al. 2016, final version); {_NOT_MEASURED}",
    ),
    "paper512": PresetNote(
        "SSD512 on VGG-16 as in the paper, from weights for ImageNet, on VOC 2007 + 2012",
        f"ssd train --preset paper512 {_VOC} --out runs/ssd512",
        "one GPU with 24 GB (estimated)",
        "three times as long as preset paper, as there are 2.9 times as many pixels (arithmetic, not measured)",
        f"mAP 79.8 on VOC 2007 test (Liu et al. 2016, final version); {_NOT_MEASURED}",
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
"""One note for each preset. Published figures are the paper's, and none of ours; measured ones are in benchmarks/."""


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """Change a configuration by texts, as `ssd train --set` does.

    Args:
        config: where to start from.
        settings: "name=value", such as "momentum=0.95", "clip_norm=none", "augmentation.crop=0.5" or
            "augmentation=none".

    Raises:
        ValueError: if there is no such name, or the value is of another type or out of range.
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting: write name=value, such as momentum=0.95")
        name, value = name.strip(), value.strip()
        group, _, inner = name.rpartition(".")
        if group == "augmentation":
            augmentation = config.augmentation or Augmentation()
            config = replace(config, augmentation=_changed(augmentation, inner, value, name))
        else:
            config = _changed(config, name, value, name)
    return config


def config_from_dict(recorded: Mapping[str, Any]) -> TrainConfig:
    """The configuration of which config.json holds `dataclasses.asdict`; fields that it lacks get their defaults.

    Raises:
        ValueError: if it has a field that there is not, or a value out of range.
    """
    values = dict(recorded)
    try:
        if values.get("augmentation") is not None:
            values["augmentation"] = Augmentation(**values["augmentation"])
        return TrainConfig(**values)
    except TypeError as error:
        raise ValueError(f"this configuration is of another version of ssdlib: {error}") from error


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """The fields in which two configurations differ, as "name=theirs, not ours"."""
    pairs = ((f.name, getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(ours))
    return [f"{name}={recorded!r}, not {asked!r}" for name, asked, recorded in pairs if asked != recorded]


def _changed(config: Any, name: str, text: str, shown: str) -> Any:
    """The configuration with one field read from a text."""
    kinds = get_type_hints(type(config))
    if name not in kinds:
        known = ", ".join(kinds)
        raise ValueError(f"there is no setting {shown!r}; there are {known}")
    kind, default = kinds[name], getattr(config, name)
    if is_dataclass(default) or name == "augmentation":
        if text.lower() != "none":
            raise ValueError(f"{shown} takes none; its parts are set one by one, such as {shown}.crop=0.5")
        return replace(config, **{name: None})
    try:
        return replace(config, **{name: _parsed(text, kind)})
    except _WrongType as error:
        raise ValueError(f"{shown} takes {error}, got {text!r}") from None


class _WrongType(Exception):
    """A text that is no value of the field's type; the message says what would be."""


def _parsed(text: str, kind: Any) -> Any:
    """A value of one of the types of the fields: str, bool, int, float, float | None."""
    if kind is str:
        return text
    if kind is bool:
        known = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in known:
            raise _WrongType("true or false")
        return known[text.lower()]
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise _WrongType("a whole number") from None
    optional = kind is not float
    if optional and text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _WrongType("a number or none" if optional else "a number")
    return value
