"""Weights of torchvision's detectors, brought into the form of ours: `from_torchvision` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from ssdlib.model import ARCHITECTURES, SSD
from ssdlib.priors import SSD300_COCO, SSDLITE320, PriorRecipe

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
    try:
        model.load_state_dict(dict(zip(model.state_dict(), found.tensors, strict=True)))
    except (RuntimeError, ValueError) as error:  # another shape or number of tensors
        raise ValueError(f"{type(theirs).__name__} does not fit {found.architecture}: {error}") from error
    return model.eval()


@dataclass(frozen=True)
class Converted:
    """What our network needs to be the same as one of torchvision's."""

    architecture: str  # in `ssdlib.model.ARCHITECTURES`
    num_classes: int
    recipe: PriorRecipe
    mean: Sequence[float]
    std: Sequence[float]
    tensors: list[Tensor]  # in the order of our state dict


def download(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Get a detector of torchvision with its weights for COCO, and the names of its 90 labels (10 are "N/A 12", ...).

    Args:
        name: one of `MODELS`. The file is loaded once, and kept where torch.hub keeps its files.

    Raises:
        OSError: if the weights cannot be downloaded.
        ValueError: for another name.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r} of torchvision can be taken over, only {' and '.join(MODELS)}")
    weights = torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    names = enumerate(weights.meta["categories"])
    classes = tuple(f"N/A {label}" if name == "N/A" else name for label, name in names)  # a name is for one label
    return torchvision.models.get_model(name, weights=weights), classes[1:]


def convert(theirs: nn.Module) -> Converted:
    """Find out which of the `MODELS` this is, and bring its tensors into our order.

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
    # Both list their layers from the image to the heads, so that the order of the tensors is the same, once the
    # scale of conv4_3 has come behind conv4_3, and the head of the offsets before that of the classes.
    parts = ("backbone.features", "backbone.scale_weight", "backbone.extra", "head.regression", "head.class")
    return Converted(
        architecture=architecture,
        num_classes=len(outputs) // recipe.priors_per_cell[0],
        recipe=recipe,
        mean=transform.image_mean,
        std=transform.image_std,
        tensors=[state[name] for part in parts for name in state if name.startswith(part)],
    )
