"""Checkpoints: a model's weights in a safetensors file that also says which model, priors and classes they are for.

Nothing is pickled: a checkpoint of a stranger can be opened, and one of ours outlives a renamed module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from ssdlib.data.names import said, shown
from ssdlib.detection import class_scores
from ssdlib.model import SSD, build_model
from ssdlib.priors import PriorRecipe
from ssdlib.zoo.description import Description, described, parse_json

LAST, BEST = "model.safetensors", "best.safetensors"  # of a run: at its end, and of the best of its validations


def weights_in(folder: Path) -> Path:
    """The file with the weights of a run's folder: the best of its validations where there is one, else the last."""
    return folder / BEST if (folder / BEST).exists() else folder / LAST


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
        FloatingPointError: if a weight is not a finite number, as after a training that went wrong.
        ValueError: if the model was put together by hand, so that its architecture has no name; or if `load_model`
            would refuse its classes or normalisation.
    """
    path = Path(path)
    if model.architecture is None:
        raise ValueError("this SSD has no architecture name, so that a checkpoint could not say how to rebuild it")
    description = {
        "architecture": model.architecture,
        "recipe": model.recipe.to_dict(),
        "activation": model.activation,
        "classes": list(model.classes),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "training": training or {},
        "versions": {"ssdlib": ssdlib.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    text = json.dumps(description, sort_keys=True)
    described(parse_json(text, "this model"), f"this model cannot be written to {path}")
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    wrong = not_finite(tensors)
    if wrong:
        raise FloatingPointError(f"{path} was not written: {wrong} of this model is not finite")
    with replaced(path) as aside:
        # Not save_file, whose files nobody but their owner can read.
        aside.write_bytes(save(tensors, metadata={"ssdlib": text}))
    return path


def read_description(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says about itself: architecture, recipe, activation, classes, mean, std, training, versions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no safetensors file, or not one of ours, or says what cannot be; the message names the
            file and the entry.
    """
    with _opened(Path(path)) as file:
        entries = _entries(Path(path), file)
    described(entries, str(path))
    return entries


def load_model(path: str | Path, *, classes: Sequence[str] | None = None, recipe: PriorRecipe | None = None) -> SSD:
    """Rebuild a model from a checkpoint, in evaluation mode, on the CPU, in float32.

    Args:
        path: a file that `save_model` wrote.
        classes: the classes that the caller counts on.
        recipe: the priors that the caller counts on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a checkpoint, is for other classes or other priors than expected, or holds
            weights that do not fit or are not finite.
    """
    path = Path(path)
    with _opened(path) as file:
        found = described(_entries(path, file), str(path))
        if classes is not None and tuple(classes) != found.classes:
            raise ValueError(f"{path} is for the classes {shown(list(found.classes))}, not {shown(list(classes))}")
        if recipe is not None and recipe != found.recipe:
            raise ValueError(f"{path} was trained with the priors of recipe {found.recipe.name!r}, not {recipe.name!r}")
        _require_fit(path, file, found)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wrong = not_finite(tensors)
    if wrong:
        raise ValueError(f"{path} holds weights that are not finite, in {wrong}")
    model = _build(found)
    model.load_state_dict(tensors)  # copies into the model's own float32 tensors
    return model.eval()


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinite number."""
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    if not names:
        return None
    finite = torch.stack([tensors[name].isfinite().all() for name in names]).tolist()  # a GPU is asked once
    return next((name for name, good in zip(names, finite, strict=True) if not good), None)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, for `safe_open`; what goes wrong with it in the block is said with its name."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file: {said(error)}") from error


def _entries(path: Path, file: Any) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if "ssdlib" not in metadata:
        raise ValueError(f"{path} was not written by ssdlib: it does not say which model its weights are for")
    return parse_json(metadata["ssdlib"], f"the description in {path}")


def _build(found: Description) -> SSD:
    return build_model(
        found.architecture,
        classes=found.classes,
        recipe=found.recipe,
        activation=found.activation,
        mean=found.mean,
        std=found.std,
    )


def _require_fit(path: Path, file: Any, found: Description) -> None:
    """Compare the file with the network that it describes, before memory is given to either."""
    misfit = f"{path} does not fit {found.architecture}"
    try:
        with torch.device("meta"):  # shapes without numbers
            model = _build(found).eval()
            side = found.recipe.image_size
            model(torch.zeros(1, 3, side, side))
    except ValueError as error:
        raise ValueError(f"{misfit}: {said(error)}") from error
    shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    expected = model.state_dict()
    problems = misfits({name: tuple(there.get_shape()) for name, there in shapes.items()}, expected)
    for name in [] if problems else expected:
        numbers = shapes[name].get_dtype()
        if numbers not in (("F32", "F16", "BF16") if expected[name].is_floating_point() else ("I64",)):
            problems.append(f"{name} holds numbers of the type {numbers}")
    if problems:
        raise ValueError(f"{misfit}: {'; '.join(problems[:5])}")


def misfits(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> list[str]:
    """Say which tensors are missing, which are too many, and which have another shape; a few of each by name.

    Args:
        found: tensors, or their shapes.
        expected: a network's state dict.
    """
    sizes = {name: tuple(getattr(value, "shape", value)) for name, value in found.items()}
    kinds = {
        "are missing": [name for name in expected if name not in sizes],
        "are too many": [shown(name) for name in sizes if name not in expected],
        "have another shape": [
            f"{name} has the shape {shown(sizes[name])}, not {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in sizes and sizes[name] != tuple(tensor.shape)
        ],
    }
    return [
        f"{len(names)} tensors {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in kinds.items()
        if names
    ]


class Program(nn.Module):
    """The network with its arithmetic up to NMS: images in 0..1 -> boxes (N, P, 4) xyxy and scores (N, P, C)."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) in 0..1 -> boxes and scores."""
        offsets, logits = self.model(images)
        return cxcywh_to_xyxy(decode(offsets, self.model.priors)), class_scores(logits, self.model.activation)


def demo_model() -> SSD:
    """The small detector that comes with the package, trained on the synthetic scenes of `ssdlib.data.make_toy_voc`."""
    return load_model(Path(__file__).parent / "weights" / "ssd_tiny_toy.safetensors")
