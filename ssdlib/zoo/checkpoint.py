"""Checkpoints: a model's weights in a safetensors file that also says which model, priors and classes they are for.

Nothing is pickled: a checkpoint of a stranger can be opened, and one of ours outlives a renamed module.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import ssdlib
from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import decode
from ssdlib.data.files import replaced
from ssdlib.model import SSD, build_model
from ssdlib.priors import PriorRecipe


def save_model(model: SSD, path: str | Path, *, half: bool = False, training: dict[str, Any] | None = None) -> Path:
    """Write a model's weights, with its architecture, priors, classes and normalisation, to one file.

    The file is written aside and moved into place: a crash never leaves half a checkpoint.

    Args:
        model: made by `build_model` or one of the functions of `ssdlib.model`.
        path: where to write, by custom with the ending .safetensors.
        half: store floats as float16, half the size; loading gives float32 again, rounded to 3 digits.
        training: anything worth knowing about how the weights came about, as JSON values.

    Returns:
        The path.

    Raises:
        ValueError: if the model was put together by hand, so that its architecture has no name.
    """
    path = Path(path)
    if model.architecture is None:
        raise ValueError("this SSD has no architecture name, so that a checkpoint could not say how to rebuild it")
    description = {
        "architecture": model.architecture,
        "recipe": model.recipe.to_dict(),
        "classes": list(model.classes),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "training": training or {},
        "versions": {"ssdlib": ssdlib.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    with replaced(path) as aside:
        # Not save_file, whose files nobody but their owner can read.
        aside.write_bytes(save(tensors, metadata={"ssdlib": json.dumps(description, sort_keys=True)}))
    return path


def read_description(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says about itself: architecture, recipe, classes, mean, std, training, versions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no safetensors file, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error
    if "ssdlib" not in metadata:
        raise ValueError(f"{path} was not written by ssdlib: it does not say which model its weights are for")
    try:
        description: dict[str, Any] = json.loads(metadata["ssdlib"])
        missing = {"architecture", "recipe", "classes", "mean", "std"} - description.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} has a description that is no JSON object: {error}") from error
    if missing:
        raise ValueError(f"{path} has a description without {', '.join(sorted(missing))}")
    return description


def load_model(path: str | Path, *, classes: Sequence[str] | None = None, recipe: PriorRecipe | None = None) -> SSD:
    """Rebuild a model from a checkpoint, in evaluation mode, on the CPU, in float32.

    Args:
        path: a file that `save_model` wrote.
        classes: the classes that the caller counts on.
        recipe: the priors that the caller counts on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, or is for other classes or other priors than expected.
    """
    path = Path(path)
    description = read_description(path)
    found = PriorRecipe.from_dict(description["recipe"])
    if classes is not None and tuple(classes) != tuple(description["classes"]):
        raise ValueError(f"{path} is for the classes {description['classes']}, not {list(classes)}")
    if recipe is not None and recipe != found:
        raise ValueError(f"{path} was trained with the priors of recipe {found.name!r}, not {recipe.name!r}")
    model = build_model(
        description["architecture"],
        classes=description["classes"],
        recipe=found,
        mean=description["mean"],
        std=description["std"],
    )
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        model.load_state_dict(tensors)  # copies into the model's own float32 tensors
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {description['architecture']}: {error}") from error
    return model.eval()


class _Program(nn.Module):
    """The network with its arithmetic up to NMS: images in 0..1 -> boxes (N, P, 4) xyxy and scores (N, P, C)."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        offsets, logits = self.model(images)
        return cxcywh_to_xyxy(decode(offsets, self.model.priors)), logits.softmax(dim=-1)


def export_model(model: SSD, path: str | Path) -> Path:
    """Write the network as a program that PyTorch runs without this package, for any number of images at once.

    `torch.export.load(path).module()` takes images (N, 3, S, S) of floats in 0..1. It gives boxes (N, P, 4) xyxy in
    fractions of the image, and scores (N, P, C) after the softmax, class 0 being background: what NMS needs.

    Args:
        model: any SSD; it is exported in evaluation mode.
        path: where to write, by custom with the ending .pt2.

    Returns:
        The path.
    """
    path = Path(path)
    size = model.recipe.image_size
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        _Program(model).eval(), (torch.zeros(2, 3, size, size),), dynamic_shapes={"images": {0: batch}}
    )
    with replaced(path) as aside:
        torch.export.save(program, aside)
    return path


def demo_model() -> SSD:
    """The small detector that comes with the package, trained on the synthetic scenes of `ssdlib.data.make_toy_voc`."""
    return load_model(Path(__file__).parent / "weights" / "ssd_tiny_toy.safetensors")
