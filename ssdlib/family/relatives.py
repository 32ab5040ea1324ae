"""The relatives that were trained side by side: how each is built, trained and asked, and weights of a short training.

Each network stands on the backbone of `ssd_tiny` (windows and OverFeat, on its first five convolutions), takes images
of 256 pixels, and says what it finds in the same form, so that one program can train, measure and compare them all;
they share no base class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ssdlib.detection import Detection, detect
from ssdlib.family.center_point import CELLS, CenterPoint, center_point_losses
from ssdlib.family.one_to_one import OneToOne, one_to_one_losses
from ssdlib.family.trained_windows import (
    SlidingWindows,
    TrainedOverFeat,
    overfeat_losses,
    sliding_window_losses,
)
from ssdlib.family.two_stage import TwoStage, two_stage_losses
from ssdlib.family.yolo import YOLO, yolo_losses
from ssdlib.model import ssd_tiny
from ssdlib.training import Losses, ssd_losses

WEIGHTS = Path(__file__).parent / "weights"
IMAGE_SIZE = 256
"""Side of the images that every relative takes, in pixels."""


@dataclass(frozen=True)
class Relative:
    """What a program needs to know of one relative.

    Attributes:
        title: what the book calls it.
        chapter: the file of the chapter that builds it, without suffix.
        build: makes the network from the number of classes, background counted.
        losses: what it is trained with, as `ssdlib.training.training_loop` takes it.
        predictions: of a network, the boxes that one image makes it predict, before any selection.
        detect: of a network and images (N, 3, 256, 256) in 0..1, one detection dict an image, boxes fractional.
        version: one more whenever the network or its losses changed so that what was measured of it no longer holds.
    """

    title: str
    chapter: str
    build: Callable[[int], nn.Module]
    losses: Losses
    predictions: Callable[[Any], int]
    detect: Callable[[Any, Tensor], list[Detection]]
    version: int = 1


def _count_priors(model: Any) -> int:
    return len(model.priors)


def _detect_by_ssd(model: Any, images: Tensor) -> list[Detection]:
    if len(images) == 0:
        return []
    offsets, logits = model(images)
    return detect(offsets, logits, model.priors, activation=model.activation)


RELATIVES: dict[str, Relative] = {
    "ssd": Relative("SSD", "07_detections", ssd_tiny, ssd_losses, _count_priors, _detect_by_ssd),
    "windows": Relative(
        "Windows", "18_before_detectors", SlidingWindows, sliding_window_losses, _count_priors, SlidingWindows.detect
    ),
    "overfeat": Relative(
        "OverFeat", "19_overfeat", TrainedOverFeat, overfeat_losses, _count_priors, TrainedOverFeat.detect
    ),
    "two_stage": Relative(
        "Two stages",
        "20_two_stages",
        TwoStage,
        two_stage_losses,
        lambda model: len(model.priors) + model.num_proposals,
        TwoStage.detect,
    ),
    "yolo": Relative("YOLO", "21_yolo", YOLO, yolo_losses, _count_priors, YOLO.detect),
    "center_point": Relative(
        "Centre points", "23_after_ssd", CenterPoint, center_point_losses, lambda model: CELLS**2, CenterPoint.detect
    ),
    "one_to_one": Relative(
        "One to one", "23_after_ssd", OneToOne, one_to_one_losses, _count_priors, OneToOne.detect, version=2
    ),
}
"""By the names of their weights."""


def load_relative(name: str, folder: str | Path = WEIGHTS) -> nn.Module:
    """A relative with the weights of its recorded training on the drawn scenes of `ssdlib.data.make_toy_voc`.

    They learned for as many seconds as all others, on one processor (`benchmarks/family.py`), which is enough for a
    comparison and less than a network deserves.

    Args:
        name: one of `RELATIVES`.
        folder: where the file NAME.safetensors is; by default that of the package.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        ValueError: if there is no such relative, or its file is damaged or for another network.
        FileNotFoundError: if the relative has no weights yet.
    """
    if name not in RELATIVES:
        raise ValueError(f"there is no relative {name!r}; there are {', '.join(RELATIVES)}")
    path = Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights of {name!r}: no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["relative"])
            if about["name"] != name:
                raise ValueError(f"it is of {about['name']!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = RELATIVES[name].build(about["num_classes"])
        model.load_state_dict(tensors)  # copies into the network's own float32 tensors
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights of {name!r} as it is today: {error}") from error
    return model.eval()


def relative_bytes(name: str, model: nn.Module, num_classes: int) -> bytes:
    """The file that `load_relative` reads: a network's weights in half precision, with what rebuilds it.

    Args:
        name: one of `RELATIVES`.
        model: its network, on the CPU.
        num_classes: that it was built with.

    Raises:
        FloatingPointError: if a weight is not finite in half precision.
    """
    tensors = {}
    for key, tensor in model.state_dict().items():
        tensors[key] = (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        if tensor.is_floating_point() and not tensors[key].isfinite().all():
            raise FloatingPointError(f"{key} of {name!r} is not finite in half precision")
    return save(tensors, metadata={"relative": json.dumps({"name": name, "num_classes": num_classes})})
