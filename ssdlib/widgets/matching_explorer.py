"""MatchingExplorer: which priors an object gets, prior by prior and threshold by threshold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.matching import UNMATCHED, best_priors, match
from ssdlib.model import TINY
from ssdlib.plotting import draw_boxes, draw_priors, show_image
from ssdlib.priors import PriorRecipe, make_priors
from ssdlib.widgets.base import BookWidget, image_url, open_url

LEAST = 0.2
"""The smallest threshold: priors that overlap all objects by less are not sent to the page."""

LEVELS = 10_000
"""Overlaps travel as whole numbers, rounded down: `overlap >= threshold` is the same before and after."""

THIS, SHARED = "this image", "two objects, one best prior"


class MatchingExplorer(BookWidget):
    """The objects of an image and the priors that are matched with them, step by step.

    First every object is handed a prior of its own, the largest overlap first; then the threshold adds the others. A
    second scene has two objects whose best prior is the same one.

    Args:
        image: a JPEG or PNG file, a PIL image, or a tensor (3, H, W).
        boxes_xyxy: (M, 4), the objects in pixels of the image; M = 0 is legal.
        names: what the M objects are.
        recipe: the priors.
        traits: further traits, as below.

    Attributes:
        scene: "this image" or "two objects, one best prior".
        threshold: smallest overlap of the second step, 0.2 to 1, in steps of 0.01.
        step: how many of the steps are done, at first none: 1 to M hand one object its own prior, M + 1 applies the
            threshold.
        selected: the object whose priors alone are shown, 0 to M - 1, or -1 for all.
        scenes: what a page needs of both scenes.

    Raises:
        ValueError: if names and boxes do not fit, or a box is swapped or not finite.

    Example:
        >>> image = torch.zeros(3, 100, 100)
        >>> explorer = MatchingExplorer(image, torch.tensor([[20.0, 20.0, 50.0, 50.0]]), ["ball"])
        >>> (explorer.positives == 0).sum().item()
        5
        >>> explorer.threshold = 0.3
        >>> (explorer.positives == 0).sum().item()
        32
    """

    _module = "matching_explorer"

    title = traitlets.Unicode("Matching explorer: which priors each object gets").tag(sync=True)
    scenes = traitlets.List(traitlets.Dict()).tag(sync=True)
    scene = traitlets.Enum((THIS, SHARED), default_value=THIS).tag(sync=True)
    threshold = traitlets.Float(0.5, min=LEAST, max=1).tag(sync=True)
    step = traitlets.Int().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)

    def __init__(
        self,
        image: str | os.PathLike[str] | Tensor | Image.Image,
        boxes_xyxy: Tensor,
        names: Sequence[str],
        recipe: PriorRecipe = TINY,
        **traits: Any,
    ) -> None:
        address = image_url(image)
        given = _Scene(THIS, address, open_url(address).size, boxes_xyxy, names, recipe)
        self._known = {given.name: given, SHARED: _shared_prior()}
        # The scene comes first: a step and an object are checked against it.
        super().__init__(scenes=[known.state for known in self._known.values()], scene=traits.pop("scene", THIS))
        for name, value in traits.items():
            setattr(self, name, value)

    @property
    def positives(self) -> Tensor:
        """(P,) int64: the object of each prior of the scene, or -1, by :func:`ssdlib.matching.match`."""
        return match(self._scene.boxes, self._scene.priors, self.threshold)

    @property
    def _scene(self) -> _Scene:
        return self._known[self.scene]

    @traitlets.observe("scene")
    def _start_anew(self, change: Any) -> None:
        with self.hold_trait_notifications():
            self.selected, self.step = -1, 0

    @traitlets.validate("threshold")
    def _in_hundredths(self, proposal: Any) -> float:
        return float(round(proposal.value, 2))

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> Any:
        return _within("step", proposal.value, 0, len(self._scene.names) + 1)

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> Any:
        return _within("selected", proposal.value, -1, len(self._scene.names) - 1)

    def describe(self) -> str:
        """The objects and their positives at the present threshold, in words."""
        found, scene = self.positives, self._scene
        counts = [int((found == m).sum()) for m in range(len(scene.names))]
        objects = ", ".join(f"{name} {count}" for name, count in zip(scene.names, counts, strict=True))
        text = (
            f"A scene with {len(scene.names)} objects and the priors that are matched with them at a threshold of "
            f"{self.threshold:.2f}: {sum(counts)} of {len(found)} priors."
        )
        return f"{text} For each object: {objects}." if objects else text

    def picture(self) -> Figure:
        """The objects, and the positives in the colours of their maps."""
        scene, found = self._scene, self.positives
        width, height = scene.size
        inch = max(width, height) / 3.5  # photographs weigh much as PNG
        figure = Figure(figsize=(width / inch, height / inch + 0.3), layout="constrained")
        ax = figure.add_subplot()
        show_image(open_url(scene.image) if scene.image else Image.new("RGB", scene.size, "#e8ecf0"), ax)
        for k, where in enumerate(scene.recipe.map_slices(), start=1):
            own = found[where] != UNMATCHED
            draw_priors(ax, scene.priors[where][own], width, height, labels=[k] * int(own.sum()), linewidth=1)
        scale = torch.tensor([width, height, width, height])
        draw_boxes(ax, scene.boxes * scale, texts=[f"{m}" for m in range(len(scene.names))], color="#000000")
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.set_title(f"{int((found != UNMATCHED).sum())} positives of {len(found)} at {self.threshold:.2f}")
        return figure


class _Scene:
    """The objects and priors of a scene, in fractions, and what a page needs of them."""

    def __init__(
        self,
        name: str,
        image: str,
        size: tuple[int, int],
        boxes_xyxy: Tensor,
        names: Sequence[str],
        recipe: PriorRecipe,
    ) -> None:
        self.name, self.image, self.size, self.names, self.recipe = name, image, size, list(names), recipe
        scale = torch.tensor([*size, *size], dtype=torch.float32)
        self.boxes = boxes_xyxy.float().reshape(-1, 4) / scale
        if len(self.boxes) != len(self.names):
            raise ValueError(f"{len(self.boxes)} boxes, but {len(self.names)} names of objects")
        self.priors = make_priors(recipe)
        match(self.boxes, self.priors)  # refuses swapped boxes, by number
        corners = cxcywh_to_xyxy(self.priors)
        overlaps = iou(self.boxes, corners)  # (M, P)
        levels = torch.bucketize(overlaps, torch.arange(LEVELS + 1) / LEVELS, right=True) - 1  # (M, P)
        own = best_priors(overlaps).tolist() if self.names else []
        favourites = overlaps.argmax(dim=1).tolist() if self.names else []
        # The greedy choice takes ever smaller overlaps, the earlier object first: their order is the order of service.
        served = sorted((m for m in range(len(own)) if own[m] != UNMATCHED), key=lambda m: -float(overlaps[m, own[m]]))
        near = (overlaps >= LEAST).any(dim=0).nonzero().squeeze(1).tolist() if self.names else []
        sent = sorted({*near, *(own[m] for m in served), *favourites})
        where = {prior: row for row, prior in enumerate(sent)}
        best = overlaps[:, sent].argmax(dim=0).tolist() if sent else []
        tenths = (corners[sent] * scale * 10).round().int().tolist()
        self.state = {
            "name": name,
            "image": image,
            "size": list(size),
            "objects": [
                {"name": text, "box": [round(side, 1) for side in box]}
                for text, box in zip(self.names, (self.boxes * scale).tolist(), strict=True)
            ],
            "maps": list(recipe.map_sizes),
            "total": recipe.num_priors,
            # One row a prior: its map, its box in tenths of a pixel, the object that it overlaps most, and by how much.
            "priors": [
                [recipe.locate(prior)[0], *box, m, int(levels[m, prior])]
                for prior, box, m in zip(sent, tenths, best, strict=True)
            ],
            # In the order of service: the object, the row of its prior, their overlap; and the same of its favourite.
            "own": [
                [m, where[own[m]], int(levels[m, own[m]]), where[favourites[m]], int(levels[m, favourites[m]])]
                for m in served
            ],
        }


def _shared_prior() -> _Scene:
    """Two objects in the same cell of a small map, whose best prior is the same one."""
    recipe = PriorRecipe(name="3 x 3", image_size=240, map_sizes=(3,), scales=(0.4, 0.6), ratios=((1.0,),))
    boxes = torch.tensor([[76.8, 81.6, 124.8, 163.2], [115.2, 86.4, 163.2, 158.4]])
    return _Scene(SHARED, "", (240, 240), boxes, ["left", "right"], recipe)


def _within(name: str, value: Any, low: int, high: int) -> Any:
    if not low <= value <= high:
        raise traitlets.TraitError(f"{name} must be {low} to {high} in this scene; got {value}")
    return value
