"""Weights of torchvision's detectors, brought into the form of ours: `from_torchvision` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ssdlib.model import ARCHITECTURES, SSD
from ssdlib.priors import SSD300_COCO, SSDLITE320, PriorRecipe
from ssdlib.zoo.checkpoint import misfits

MODELS = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


def from_torchvision(theirs: nn.Module | str, classes: Sequence[str] | None = None) -> SSD:
    """Take over the weights of torchvision's `ssd300_vgg16` or `ssdlite320_mobilenet_v3_large`.

    A detector of the 80 classes of COCO, in one line, for a reader who is online:

        model = from_torchvision("ssd300_vgg16")

    `predict` and `detect` take SSD300's thresholds by default. SSDLite's are min_score=0.001, max_overlap=0.55,
    top_k=300, max_candidates=300.

    Args:
        theirs: torchvision's model, or its name: then with the weights that torchvision has for it, and the names
            of their classes. The file is downloaded once.
        classes: names of the objects; by default "1", "2", ...

    Returns:
        The same network in evaluation mode. Its predictions equal torchvision's on the same pixels (tested).

    Raises:
        OSError: if the weights cannot be downloaded.
        ValueError: if this is none of the two models, or has other priors.
    """
    if isinstance(theirs, str):
        theirs, names = download(theirs)
        classes = names if classes is None else classes
    found = convert(theirs)
    model = ARCHITECTURES[found.architecture](
        found.num_classes, recipe=found.recipe, classes=classes, mean=found.mean, std=found.std
    )
    problems = misfits(found.tensors, model.state_dict())
    if problems:
        raise ValueError(f"{type(theirs).__name__} does not fit {found.architecture}: {'; '.join(problems)}")
    model.load_state_dict(found.tensors)
    return model.eval()


@dataclass(frozen=True)
class Converted:
    """What our network needs to be the same as one of torchvision's."""

    architecture: str  # in `ssdlib.model.ARCHITECTURES`
    num_classes: int
    recipe: PriorRecipe
    mean: Sequence[float]
    std: Sequence[float]
    tensors: Mapping[str, Tensor]  # by the names of our state dict; one without a place there keeps its own


def download(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Get a detector of torchvision with its weights for COCO, and the names of its 90 labels (10 are "N/A 12", ...).

    Args:
        name: one of `MODELS`. The file is loaded once, and kept where torch.hub keeps its files.

    Raises:
        OSError: if the weights cannot be downloaded.
        ValueError: for another name.
    """
    weights = weights_of(name)
    return torchvision.models.get_model(name, weights=weights), class_names(name)


def weights_of(name: str) -> Any:
    """What torchvision says of the weights of one of `MODELS`; ValueError for another name."""
    if name not in MODELS:
        raise ValueError(f"no model {name!r} of torchvision can be taken over, only {' and '.join(MODELS)}")
    return torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]


def class_names(name: str) -> tuple[str, ...]:
    """The names of the 90 labels of one of `MODELS`."""
    categories = enumerate(weights_of(name).meta["categories"])
    return tuple(f"N/A {label}" if each == "N/A" else each for label, each in categories)[1:]  # a name is for one label


def convert(theirs: nn.Module) -> Converted:
    """Find out which of the `MODELS` this is, and give its tensors our names.

    Raises:
        ValueError: if it is none of them, or has other priors.
    """
    refusal = f"{type(theirs).__name__} is not torchvision's {' or '.join(MODELS)}"
    state = theirs.state_dict()
    head = "head.classification_head.module_list.0"
    if f"{head}.bias" in state:
        architecture, recipe, outputs = "ssd300_vgg16", SSD300_COCO, state[f"{head}.bias"]
    elif f"{head}.1.bias" in state and "backbone.extra.0.0.0.weight" in state:
        tail = state["backbone.extra.0.0.0.weight"].shape[1]  # 960, or 480 if it is reduced
        architecture = "ssdlite320_mobilenet_v3" + ("" if tail == 480 else "_full")
        recipe, outputs = SSDLITE320, state[f"{head}.1.bias"]
    else:
        raise ValueError(refusal)
    generator: Any = theirs.anchor_generator
    transform: Any = theirs.transform
    scales = torch.tensor(generator.scales)
    if scales.shape != (len(recipe.scales),) or not torch.allclose(scales, torch.tensor(recipe.scales)):
        raise ValueError(f"{refusal}: its priors have the scales {generator.scales}, not those of {recipe.name!r}")
    names = _LITE_NAMES if "ssdlite" in architecture else _VGG_NAMES
    return Converted(
        architecture=architecture,
        num_classes=len(outputs) // recipe.priors_per_cell[0],
        recipe=recipe,
        mean=transform.image_mean,
        std=transform.image_std,
        tensors={_renamed(name, names): tensor for name, tensor in state.items()},
    )


# What the name of a tensor begins with, in torchvision's network and in ours.
_HEAD_NAMES = {
    "head.regression_head.module_list.": "offset_head.convolutions.",
    "head.classification_head.module_list.": "class_head.convolutions.",
}
# theirs counts convolutions and ReLUs, where ours has blocks of the two
_UP_TO_CONV4_3 = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21), (0, 1, 3, 4, 6, 7, 8, 10, 11, 12), strict=True))
_UP_TO_CONV7 = {"1": 1, "3": 2, "5": 3, "7.1": 5, "7.3": 6}
_VGG_NAMES = {
    **{f"backbone.features.{i}.": f"backbone.to_conv4_3.{block}.0." for i, block in _UP_TO_CONV4_3.items()},
    "backbone.scale_weight": "backbone.l2_norm.scale",
    **{f"backbone.extra.0.{i}.": f"backbone.to_conv7.{block}.0." for i, block in _UP_TO_CONV7.items()},
    **{f"backbone.extra.{k}.{2 * i}.": f"backbone.auxiliary.{k - 1}.{i}.0." for k in range(1, 5) for i in range(2)},
    **_HEAD_NAMES,
}
# theirs cuts the features in two, in the middle of block 13
_LITE_NAMES = {
    **{f"backbone.features.0.{block}.": f"backbone.features.{block}." for block in range(13)},
    "backbone.features.0.13.": "backbone.features.13.block.0.",
    **{f"backbone.features.1.0.{i}.": f"backbone.features.13.block.{i}." for i in range(1, 4)},
    **{f"backbone.features.1.{i}.": f"backbone.features.{13 + i}." for i in range(1, 4)},
    "backbone.extra.": "backbone.auxiliary.",
    **_HEAD_NAMES,
}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    begin = next((begin for begin in names if name.startswith(begin)), "")
    return names.get(begin, "") + name.removeprefix(begin)
