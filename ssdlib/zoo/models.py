"""The table of published weights that we can use, and one door to every detector: `open_model`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdlib.model import SSD
from ssdlib.zoo.checkpoint import load_model, weights_in
from ssdlib.zoo.imagenet import CLASSIFIERS
from ssdlib.zoo.openimages import CLASSES, PACKAGE, VERSION, openimages_model
from ssdlib.zoo.torchvision_detectors import class_names, from_torchvision, weights_of


@dataclass(frozen=True)
class ZooModel:
    """What is known of published weights before they are fetched.

    Attributes:
        name: what `open_model`, and the command line in place of a run, take.
        architecture: in `ssdlib.model.ARCHITECTURES`.
        classes: names of the objects that it finds; none for a backbone, which is no detector yet.
        input_size: side of the square input image, in pixels.
        parameters: numbers that were learned.
        megabytes: what is fetched, once.
        trained_on: the data.
        licence: of the weights.
        origin: where they come from.
        checked: how we know that our network computes the same.
    """

    name: str
    architecture: str
    classes: tuple[str, ...]
    input_size: int
    parameters: int
    megabytes: float
    trained_on: str
    licence: str
    origin: str
    checked: str

    @property
    def is_detector(self) -> bool:
        """Whether it finds objects; else it is a backbone that a training may start from."""
        return bool(self.classes)


_TORCHVISION = "BSD-3-Clause, as torchvision; the photographs of {} have their own terms"


def _from_torchvision(name: str, architecture: str, side: int) -> ZooModel:
    meta = weights_of(name).meta
    return ZooModel(
        name=f"torchvision:{name}",
        architecture=architecture,
        classes=class_names(name),
        input_size=side,
        parameters=meta["num_params"],
        megabytes=meta["_file_size"],
        trained_on="COCO 2017",
        licence=_TORCHVISION.format("COCO"),
        origin=f"torchvision, weights {weights_of(name)}; it downloads the file and checks its sum",
        checked="predictions equal those of torchvision's network with the same weights, drawn at random",
    )


def _backbone(classifier: str, architecture: str, side: int) -> ZooModel:
    weights: Any = CLASSIFIERS[architecture]
    return ZooModel(
        name=f"imagenet:{classifier}",
        architecture=architecture,
        classes=(),
        input_size=side,
        parameters=weights.meta["num_params"],
        megabytes=weights.meta["_file_size"],
        trained_on="ImageNet-1k",
        licence=_TORCHVISION.format("ImageNet"),
        origin=f"torchvision, weights {weights}; it downloads the file and checks its sum",
        checked="features equal those of torchvision's classifier with the same weights, drawn at random",
    )


_ENTRIES = (
    ZooModel(
        name="openimages:ssd300_mobilenet_v2",
        architecture="ssd300_mobilenet_v2",
        classes=CLASSES,
        input_size=300,
        parameters=4_951_996,
        megabytes=32.7,
        trained_on="Open Images V4",
        licence="Apache-2.0, as its package.json says; there is no LICENSE file inside",
        origin=f"npm {PACKAGE} {VERSION}, a TensorFlow Lite model in it; both SHA-256 sums are checked",
        checked="raw predictions equal those of the original runtime on four photographs to 1e-3",
    ),
    _from_torchvision("ssd300_vgg16", "ssd300_vgg16", 300),
    _from_torchvision("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3", 320),
    _backbone("mobilenet_v2", "ssd300_mobilenet_v2_bn", 300),
    _backbone("mobilenet_v3_large", "ssdlite320_mobilenet_v3_full", 320),
    _backbone("vgg16", "ssd300_vgg16", 300),
    _backbone("vgg16_bn", "ssd300_vgg16_bn", 300),
)
ZOO: Mapping[str, ZooModel] = {entry.name: entry for entry in _ENTRIES}
"""All of them, by name."""


def open_model(source: str | os.PathLike[str]) -> SSD:
    """Open a detector: the folder of a run, a checkpoint, or a name of `ZOO`, whose weights are fetched once.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the weights cannot be fetched; the message says what to do.
        ValueError: if it is no checkpoint of ours, or no detector of `ZOO`.
    """
    text = os.fspath(source)
    if text.partition(":")[0] not in {name.partition(":")[0] for name in ZOO} or ":" not in text:
        path = Path(source)
        return load_model(weights_in(path) if path.is_dir() else path)
    entry = zoo_model(text)
    if not entry.is_detector:
        raise ValueError(
            f"{text} is a backbone, which finds nothing yet: train with architecture={entry.architecture} and "
            "pretrained=true"
        )
    kind, _, name = text.partition(":")
    return openimages_model() if kind == "openimages" else from_torchvision(name)


def zoo_model(name: str) -> ZooModel:
    """The entry of `ZOO` with that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in ZOO:
        raise ValueError(f"there are no published weights {name!r}; there are {', '.join(ZOO)}")
    return ZOO[name]
