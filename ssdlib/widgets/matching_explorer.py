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

from ssdlib.matching import UNMATCHED, match
from ssdlib.model import TINY
from ssdlib.plotting import draw_boxes, draw_priors, show_image
from ssdlib.priors import PriorRecipe, make_priors
from ssdlib.widgets.base import BookWidget, image_url, open_url

LEAST = 0.2
"""The smallest threshold."""

UNIT = 10**12
"""Centres and sizes of priors travel as whole numbers of this part of the image: Python and the page compute with
exactly the same numbers, so that `overlap >= threshold` is the same in both."""

THIS, SHARED = "this image", "two objects, one best prior"


class MatchingExplorer(BookWidget):
    """The objects of an image and the priors that are matched with them, step by step.

    First every object is handed a prior of its own, the largest overlap first; then the threshold adds the others. The
    objects can be moved. A second scene has two objects whose best prior is the same one.

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
        boxes: the M objects where they are now, [x_min, y_min, x_max, y_max] in pixels, in tenths; another scene puts
            them back.
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
    boxes = traitlets.List(traitlets.List(traitlets.Float(), minlen=4, maxlen=4)).tag(sync=True)

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
        scene = traits.pop("scene", THIS)
        first = self._known.get(scene, given).boxes
        super().__init__(scenes=[known.state for known in self._known.values()], scene=scene, boxes=first)
        for name, value in traits.items():
            setattr(self, name, value)

    @property
    def positives(self) -> Tensor:
        """(P,) int64: the object of each prior of the scene, or -1, by :func:`ssdlib.matching.match`."""
        return match(self._fractions, self._scene.priors, self.threshold)

    @property
    def _fractions(self) -> Tensor:
        """(M, 4) float64: where the objects are now, in fractions of the image."""
        width, height = self._scene.size
        return torch.tensor(self.boxes, dtype=torch.float64).reshape(-1, 4) / torch.tensor(
            [width, height, width, height], dtype=torch.float64
        )

    @property
    def _scene(self) -> _Scene:
        return self._known[self.scene]

    @traitlets.observe("scene")
    def _start_anew(self, change: Any) -> None:
        with self.hold_trait_notifications():
            self.selected, self.step, self.boxes = -1, 0, self._scene.boxes

    @traitlets.validate("threshold")
    def _in_hundredths(self, proposal: Any) -> float:
        return float(round(proposal.value, 2))

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> Any:
        return _within("step", proposal.value, 0, len(self._scene.names) + 1)

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> Any:
        return _within("selected", proposal.value, -1, len(self._scene.names) - 1)

    @traitlets.validate("boxes")
    def _check_boxes(self, proposal: Any) -> list[list[float]]:
        scene = self._scene
        boxes = [[round(side, 1) for side in box] for box in proposal.value]
        if len(boxes) != len(scene.names):
            raise traitlets.TraitError(f"boxes must be those of the {len(scene.names)} objects; got {len(boxes)}")
        width, height = scene.size
        for x_min, y_min, x_max, y_max in boxes:
            if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
                raise traitlets.TraitError(
                    f"boxes must lie in the picture of {width} x {height}, with x_min < x_max and y_min < y_max; "
                    f"got {[x_min, y_min, x_max, y_max]}"
                )
        return boxes

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
            draw_priors(ax, scene.priors[where][own].float(), width, height, labels=[k] * int(own.sum()), linewidth=1)
        draw_boxes(
            ax,
            torch.tensor(self.boxes).reshape(-1, 4),
            texts=[f"{m}" for m in range(len(scene.names))],
            color="#000000",
        )
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
        given = boxes_xyxy.double().reshape(-1, 4)
        if len(given) != len(self.names):
            raise ValueError(f"{len(given)} boxes, but {len(self.names)} names of objects")
        parts = (make_priors(recipe, dtype=torch.float64) * UNIT).round()  # (P, 4)
        self.priors = parts / UNIT
        match(given, self.priors)  # refuses swapped boxes, by number
        limit = torch.tensor([*size, *size], dtype=torch.float64)
        self.boxes: list[list[float]] = given.clamp(min=0).minimum(limit).round(decimals=1).tolist()
        maps = []
        for k, part in enumerate(recipe.map_slices()):
            side = recipe.map_sizes[k]
            cells = parts[part].unflatten(0, (side, side, -1)).long()  # (rows, columns, K, 4)
            maps.append({"centres": cells[0, :, 0, 0].tolist(), "shapes": cells[0, 0, :, 2:].tolist()})
        self.state = {
            "name": name,
            "image": image,
            "size": list(size),
            "names": self.names,
            "boxes": self.boxes,
            "maps": maps,  # in parts of the image: the centres of rows and columns, and the shapes of a cell's priors
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
