"""Transfer learning: a detector for new classes that starts from the weights of another detector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from ssdlib.backbones import VGG16, MobileNetV2, MobileNetV3, Tiny
from ssdlib.model import SSD

EARLY = "early"
_MOBILE = tuple(f"features.{i}" for i in range(7))  # blocks of up to 32 or 40 channels, a cell for 8 pixels
_EARLY: dict[type[nn.Module], tuple[str, ...]] = {
    VGG16: tuple(f"to_conv4_3.{i}" for i in range(6)),  # conv1 and conv2, as Fast R-CNN does
    MobileNetV2: _MOBILE,
    MobileNetV3: _MOBILE,
    Tiny: tuple(f"stages.0.{i}" for i in range(3)),
}


class Transfer(NamedTuple):
    """What a model took over from another one."""

    taken: int  # tensors that were copied whole
    classes: tuple[str, ...]  # those whose rows of the class heads were copied, besides background
    new: tuple[str, ...]  # names of the tensors that keep (where classes are new: in part) their random start

    def __str__(self) -> str:
        kept = f"classes kept: {', '.join(self.classes)}" if self.classes else "no class kept"
        fresh = ", ".join(sorted({name.rpartition(".")[0] for name in self.new})) or "nothing"
        return f"{self.taken} tensors taken over; {kept}; new: {fresh}"


@torch.no_grad()
def take_over(model: SSD, source: SSD, *, heads: bool = True) -> Transfer:
    """Copy the weights of a trained detector into a model of the same network, whatever its classes.

    Tensors of the same name and shape are copied whole. Of the class heads, the rows of background and of each class
    that both know by the same name are copied. The rest keeps the values it has, those of a fresh start.

    Args:
        model: is changed in place.
        source: the trained detector.
        heads: False leaves the heads as they are, for a model with other priors: it takes over the features alone.

    Raises:
        ValueError: if the two are different networks; or if heads are to be taken over and the priors differ, so that
            the offsets mean something else.
    """
    theirs = source.state_dict()
    ours = model.state_dict()
    fresh = _last_layers(model) if heads else ("offset_head.", "class_head.")
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    misfits = [n for n, tensor in ours.items() if not n.startswith(fresh) and shapes.get(n) != tensor.shape]
    if misfits:
        raise ValueError(
            f"{model.architecture} cannot start from {source.architecture}: {misfits[0]} does not fit"
            + (f", and {len(misfits) - 1} more" if misfits[1:] else "")
        )
    if heads and not same_priors(model, source):
        raise ValueError(f"{source.recipe.name!r} has other priors than {model.recipe.name!r}: its offsets do not fit")

    rows = [(0, 0)]  # background
    labels = {name: label for label, name in enumerate(source.classes, start=1)}
    rows += [(label, labels[name]) for label, name in enumerate(model.classes, start=1) if name in labels]
    rows = rows if heads else []
    to, of = [row for row, _ in rows], [row for _, row in rows]
    new = []
    for name, tensor in ours.items():
        if not name.startswith(fresh):
            tensor.copy_(theirs[name])
            continue
        if not heads:
            new.append(name)
            continue
        mine = tensor.unflatten(0, (-1, model.num_classes))  # (K, C, ...)
        mine[:, to] = theirs[name].unflatten(0, (-1, source.num_classes))[:, of].to(tensor)
        if len(rows) < model.num_classes:
            new.append(name)
    return Transfer(len(ours) - len(new), tuple(model.classes[row - 1] for row in to[1:]), tuple(new))


def early_parts(model: SSD) -> tuple[str, ...]:
    """The first layers of a model's backbone: edges and textures, which other objects are made of, too.

    They work on the largest maps, so that a step is faster if they need not learn.

    Returns:
        Names for `SSD.freeze`.

    Raises:
        ValueError: if the backbone is none of `ssdlib.backbones`.

    Source: Yosinski et al., How transferable are features in deep neural networks? (2014); Girshick, Fast R-CNN
        (2015), section 4.5, for how far up in VGG-16.
    """
    names = _EARLY.get(type(model.backbone))
    if names is None:
        known = ", ".join(kind.__name__ for kind in _EARLY)
        raise ValueError(f"which parts of {type(model.backbone).__name__} are early is not known; it is of {known}")
    return tuple(f"backbone.{name}" for name in names)


def same_priors(a: SSD, b: SSD) -> bool:
    """Whether the priors of two detectors are the same boxes in the same order."""
    return a.priors.shape == b.priors.shape and torch.equal(a.priors.cpu(), b.priors.cpu())


def _last_layers(model: SSD) -> tuple[str, ...]:
    """The beginnings of the names of the layers whose outputs are K times C scores."""
    heads: Iterable[tuple[str, nn.Module]] = model.class_head.convolutions.named_children()  # type: ignore[union-attr]
    names = []
    for name, layer in heads:
        last = f".{len(layer) - 1}" if isinstance(layer, nn.Sequential) else ""
        names.append(f"class_head.convolutions.{name}{last}.")
    return tuple(names)
