"""PriorExplorer: the priors of every cell of every feature map, on an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import SSD, TINY, ssd300_vgg16, ssd512_vgg16, ssd_tiny
from ssdlib.plotting import color_of, draw_boxes, draw_grid
from ssdlib.priors import SSD300_CAFFE, SSD300_COCO, SSD300_VOC, SSD512_VOC, PriorRecipe, Ratio, make_priors
from ssdlib.widgets.anatomy import Anatomy, anatomy
from ssdlib.widgets.base import BookWidget, image_url, open_url

RECIPES = (SSD300_VOC, SSD300_CAFFE, SSD300_COCO, SSD512_VOC)
TITLES = {
    SSD300_VOC.name: "SSD300, paper",
    SSD300_CAFFE.name: "SSD300, original code (Caffe)",
    SSD300_COCO.name: "SSD300, torchvision (COCO)",
    SSD512_VOC.name: "SSD512, original code",
    TINY.name: "the book's small network",
}
NETWORKS: dict[tuple[int, ...], Callable[[int], SSD]] = {
    SSD300_VOC.map_sizes: ssd300_vgg16,
    SSD512_VOC.map_sizes: ssd512_vgg16,
    TINY.map_sizes: ssd_tiny,
}


class PriorExplorer(BookWidget):
    """Feature maps on an image; the priors of one cell, and where they come from.

    Args:
        image: a file, a tensor (3, H, W), a PIL image, or its address; it is squeezed to a square, as SSD sees it.
        recipes: one or more; by default the paper's, that of the original code, torchvision's, and SSD512's.
        traits: any of the attributes.

    Attributes:
        recipe: name of the recipe that is shown.
        map: number of the feature map, from 0.
        cell: (row, column). A map or recipe with fewer cells moves it to the nearest cell that it has.
        shown: which priors are drawn, by aspect ratio: "1", "2", "1/2", ..., "extra".
        compare: name of a recipe whose priors of the same place are drawn too, or "".
        show_receptive_field: light up the pixels that the 3 x 3 kernel at the cell can depend on.
        image: the picture, as the address that holds it; by default a scene of the sample.
        recipes: what is drawn, made from the recipes by `ssdlib.priors.make_priors`; it cannot be set.

    Example:
        >>> explorer = PriorExplorer(map=3)
        >>> explorer.cell = (2, 2)
        >>> explorer.indices
        range(8614, 8620)
        >>> explorer.priors[0]
        tensor([0.5000, 0.5000, 0.5500, 0.5500])
    """

    _module = "prior_explorer"

    title = traitlets.Unicode("Prior explorer: the priors of every cell").tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    recipes = traitlets.List(traitlets.Dict(), read_only=True).tag(sync=True)
    recipe = traitlets.Unicode().tag(sync=True)
    map = traitlets.Int(3).tag(sync=True)
    cell = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(2, 2)).tag(sync=True)
    shown = traitlets.List(traitlets.Unicode()).tag(sync=True)
    compare = traitlets.Unicode("").tag(sync=True)
    show_receptive_field = traitlets.Bool(False).tag(sync=True)

    def __init__(self, image: Any = None, *, recipes: Sequence[PriorRecipe] = RECIPES, **traits: Any) -> None:
        if not recipes:
            raise traitlets.TraitError("recipes must hold at least one PriorRecipe")
        self._by_name = {recipe.name: recipe for recipe in recipes}
        self._names = list(dict.fromkeys(ratio_name(r) for each in recipes for cell in each.ratios for r in cell))
        self.set_trait("recipes", [drawn(recipe) for recipe in self._by_name.values()])
        if not (isinstance(image, str) and image.startswith("data:")):
            image = _scene() if image is None else image_url(image)
        super().__init__(**{"image": image, "recipe": recipes[0].name, "shown": self._names, **traits})

    @traitlets.validate("image")
    def _check_image(self, proposal: Any) -> str:
        if not proposal.value.startswith("data:image/"):
            raise traitlets.TraitError(f"image must be made by image_url(...); got {proposal.value[:60]!r}")
        return str(proposal.value)

    @traitlets.validate("recipe", "compare")
    def _check_recipe(self, proposal: Any) -> str:
        name = proposal.trait.name
        if not (name == "compare" and proposal.value == ""):
            self._named(name, proposal.value)
        return str(proposal.value)

    @traitlets.validate("map")
    def _check_map(self, proposal: Any) -> int:
        maps = len(self._current.map_sizes)
        if not 0 <= proposal.value < maps:
            raise traitlets.TraitError(f"map must be 0 to {maps - 1} for {self.recipe!r}; got {proposal.value}")
        return int(proposal.value)

    @traitlets.validate("cell")
    def _check_cell(self, proposal: Any) -> tuple[int, int]:
        side = self._current.map_sizes[self.map]
        if not all(0 <= place < side for place in proposal.value):
            raise traitlets.TraitError(
                f"cell must be (row, column), each 0 to {side - 1} on this map of {side} x {side}; got {proposal.value}"
            )
        return tuple(proposal.value)

    @traitlets.validate("shown")
    def _check_shown(self, proposal: Any) -> list[str]:
        unknown = [name for name in proposal.value if name not in self._names]
        if unknown:
            raise traitlets.TraitError(f"shown must be a list of some of {self._names}; got {unknown[0]!r}")
        return list(proposal.value)

    @traitlets.observe("recipe", "map")
    def _stay_inside(self, change: Any) -> None:
        self.map = min(self.map, len(self._current.map_sizes) - 1)
        last = self._current.map_sizes[self.map] - 1
        self.cell = (min(self.cell[0], last), min(self.cell[1], last))

    @property
    def _current(self) -> PriorRecipe:
        return self._named("recipe", self.recipe)

    def _named(self, trait: str, name: str) -> PriorRecipe:
        if name not in self._by_name:
            raise traitlets.TraitError(f"{trait} must be one of {list(self._by_name)}; got {name!r}")
        return self._by_name[name]

    @property
    def indices(self) -> range:
        """Numbers of the cell's priors among all P."""
        side, per_cell = self._current.map_sizes[self.map], self._current.priors_per_cell[self.map]
        first = self._current.map_slices()[self.map].start + (self.cell[0] * side + self.cell[1]) * per_cell
        return range(first, first + per_cell)

    @property
    def priors(self) -> Tensor:
        """(K, 4) cxcywh of the cell, by :func:`ssdlib.priors.make_priors`."""
        return make_priors(self._current)[self.indices.start : self.indices.stop]

    @property
    def crossing(self) -> int:
        """How many priors of the map reach over the border of the image."""
        return crossing(self._current)[self.map]

    @property
    def receptive_field(self) -> tuple[float, float, float, float] | None:
        """Pixels that the 3 x 3 kernel at the cell can depend on, xyxy, not cut; None if the network is unknown."""
        network = network_of(self._current)
        return network.heads[self.map][0].receptive_field(*self.cell) if network else None

    def describe(self) -> str:
        """Map, cell and its priors, in words."""
        recipe, side = self._current, self._current.map_sizes[self.map]
        boxes = ", ".join(
            f"{ratio_name(ratio)} ({w * recipe.image_size:.0f} x {h * recipe.image_size:.0f} pixels)"
            for ratio, (w, h) in zip(recipe.ratios[self.map], recipe.shapes(self.map), strict=True)
            if ratio_name(ratio) in self.shown
        )
        return (
            f"A scene under the map of {side} x {side} cells of the recipe {recipe.name}. In row {self.cell[0]}, "
            f"column {self.cell[1]}, priors of these aspect ratios: {boxes or 'none'}. {self.crossing} of the map's "
            f"{recipe.priors_per_map[self.map]} priors reach over the border of the image."
        )

    def picture(self) -> Figure:
        """The image, the cells, and the priors of the cell; what lies outside the image is dashed."""
        figure = Figure(figsize=(3.6, 3.6), layout="constrained")
        ax = figure.add_subplot()
        boxes = cxcywh_to_xyxy(self.priors)
        margin = 0.02 + max(0.0, float(-boxes.min()), float(boxes.max()) - 1)
        # Coarse and of few colours: a page carries many pictures, and shows this one to few readers.
        coarse = open_url(self.image).resize((90, 90)).quantize(10, dither=Image.Dither.NONE).convert("RGB")
        ax.imshow(coarse, extent=(0, 1, 1, 0), alpha=0.5)
        side = self._current.map_sizes[self.map]
        draw_grid(ax, side, color="black", linewidth=0.3 if side > 20 else 0.6, alpha=0.6)
        row, column = self.cell
        ax.add_patch(Rectangle((column / side, row / side), 1 / side, 1 / side, color="black", alpha=0.35))
        for number, (ratio, box) in enumerate(zip(self._current.ratios[self.map], boxes, strict=True), start=1):
            if ratio_name(ratio) in self.shown:
                draw_boxes(ax, box, color=color_of(number), linestyle="--", linewidth=1.4)
                draw_boxes(ax, box, color=color_of(number))
                ax.patches[-1].set_clip_path(Rectangle((0, 0), 1, 1, transform=ax.transData))
        ax.set(xlim=(-margin, 1 + margin), ylim=(1 + margin, -margin), xticks=[0, 1], yticks=[0, 1], aspect="equal")
        ax.set_title(f"{self.recipe}: map of {side} x {side}, row {row}, column {column}", fontsize=9)
        return figure


def ratio_name(ratio: Ratio) -> str:
    """An aspect ratio as readers know it: "2", "1/3", "extra"; with a scale of its own, "1 at 0.1"."""
    if isinstance(ratio, str):
        return ratio
    if isinstance(ratio, tuple):
        return f"{ratio_name(ratio[0])} at {ratio[1]:.3g}"
    near = Fraction(ratio).limit_denominator(12)
    return str(near) if abs(near - ratio) < 1e-6 else f"{ratio:.3g}"


@cache
def network_of(recipe: PriorRecipe) -> Anatomy | None:
    """Anatomy of the network with these feature maps, or None."""
    build = NETWORKS.get(recipe.map_sizes)
    if build is None:
        return None
    with torch.device("meta"):
        network = build(2)
        return anatomy(network) if network.recipe.image_size == recipe.image_size else None


@cache
def crossing(recipe: PriorRecipe) -> tuple[int, ...]:
    """For each map, how many priors reach over the border; touching it from inside does not count."""
    boxes = cxcywh_to_xyxy(make_priors(recipe, dtype=torch.float64))
    over = ((boxes < -1e-9) | (boxes > 1 + 1e-9)).any(dim=1)
    return tuple(int(over[part].sum()) for part in recipe.map_slices())


@cache
def drawn(recipe: PriorRecipe) -> dict[str, Any]:
    """All of a recipe that the page needs: for each map the centres of rows and columns, and the shapes of a cell."""
    network = network_of(recipe)
    priors = make_priors(recipe, dtype=torch.float64)
    maps = []
    for k, part in enumerate(recipe.map_slices()):
        cells = priors[part].unflatten(0, (recipe.map_sizes[k], recipe.map_sizes[k], -1))  # (rows, columns, K, 4)
        head = network.heads[k][0] if network else None
        maps.append(
            {
                "name": network.layers[network.maps[k]].name if network else "",
                "side": recipe.map_sizes[k],
                "centres": cells[0, :, 0, 0].tolist(),
                "shapes": cells[0, 0, :, 2:].tolist(),
                "ratios": [ratio_name(ratio) for ratio in recipe.ratios[k]],
                "scale": recipe.scales[k],
                "next": recipe.scales[k + 1],
                "first": part.start,
                "crossing": crossing(recipe)[k],
                "field": {"start": head.start, "step": head.step, "side": head.field} if head else None,
            }
        )
    return {
        "name": recipe.name,
        "title": TITLES.get(recipe.name, recipe.name),
        "size": recipe.image_size,
        "steps": list(recipe.steps or ()),
        "clipped": recipe.clip_sizes,
        "count": recipe.num_priors,
        "maps": maps,
    }


@cache
def _scene() -> str:
    return image_url(VOCDataset(sample_root(), "test").image_path(19))
