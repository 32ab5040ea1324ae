"""Priors: the fixed boxes (default boxes, anchors) that predictions start from, and the recipes that make them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

# One entry of a feature map's list: an aspect ratio w / h; the extra square of the geometric mean scale; or an aspect
# ratio with a scale of its own, such as (1.0, 0.1).
Ratio = float | Literal["extra"] | tuple[float, float]


# What a recipe may ask for at most, so that no file of a stranger asks for more memory than there is: 40 times the
# priors of SSD512, and sizes far beyond every detector that is known.
MAX_PRIORS = 1_000_000
_LIMITS = {"image_size": (1, 8192), "map_sizes": (1, 1024), "scales": (1e-4, 100), "ratios": (1e-3, 1e3)}
_LIMITS["steps"] = _LIMITS["image_size"]


@dataclass(frozen=True)
class PriorRecipe:
    """Everything that decides where the priors are. Weights belong to the recipe that they were trained with.

    Attributes:
        name: how checkpoints and messages call it.
        image_size: side of the square input image, in pixels.
        map_sizes: side of each feature map, in cells, from the finest to the coarsest.
        scales: one per feature map, and one that comes after the last: a prior of ratio r on map k is
            scales[k] * sqrt(r) wide and scales[k] / sqrt(r) high, in fractions of the image side; the prior "extra"
            is a square of side sqrt(scales[k] * scales[k + 1]).
        ratios: per feature map, the priors of one cell *in the order of the predictions*: aspect ratios (w / h), the
            word "extra", or pairs (aspect ratio, scale) that do not follow the map's scale.
        steps: distance between the centres of neighbouring cells, per map, in pixels; None spreads the cells evenly
            (image_size / map_size).
        clip_sizes: limit widths and heights to 1, as torchvision does. Centres are never moved.

    Source: Liu et al. (2016), section 2.2, "Choosing scales and aspect ratios for default boxes".
    """

    name: str
    image_size: int
    map_sizes: tuple[int, ...]
    scales: tuple[float, ...]
    ratios: tuple[tuple[Ratio, ...], ...]
    steps: tuple[float, ...] | None = None
    clip_sizes: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.clip_sizes, bool):
            raise ValueError(
                f"recipe {self.name!r}: name must be text, and clip_sizes {self.clip_sizes!r} true or false"
            )
        maps = len(self.map_sizes)
        if maps == 0:
            raise ValueError(f"recipe {self.name!r}: needs at least one feature map")
        if len(self.scales) != maps + 1:
            raise ValueError(
                f"recipe {self.name!r}: {maps} feature maps need {maps + 1} scales (one comes after the last), "
                f"got {len(self.scales)}"
            )
        if len(self.ratios) != maps or any(not cell for cell in self.ratios):
            raise ValueError(f"recipe {self.name!r}: needs a list of ratios for each of the {maps} feature maps")
        if self.steps is not None and len(self.steps) != maps:
            raise ValueError(f"recipe {self.name!r}: needs a step for each of the {maps} feature maps")
        entries = [entry for cell in self.ratios for entry in cell if entry != "extra"]
        pairs = [entry for entry in entries if isinstance(entry, tuple)]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"recipe {self.name!r}: a ratio with a scale of its own has two numbers, got {pairs}")
        numbers: dict[str, tuple[object, ...]] = {
            "image_size": (self.image_size,),
            "map_sizes": self.map_sizes,
            "scales": (*self.scales, *(scale for _, scale in pairs)),
            "ratios": tuple(entry[0] if isinstance(entry, tuple) else entry for entry in entries),
            "steps": self.steps or (),
        }
        for field, values in numbers.items():
            for value in values:
                self._require_number(field, value)
        if self.num_priors > MAX_PRIORS:
            raise ValueError(
                f"recipe {self.name!r}: map_sizes {self.map_sizes} make {self.num_priors:,} priors, more than the "
                f"{MAX_PRIORS:,} that are allowed"
            )

    def _require_number(self, field: str, value: object) -> None:
        low, high = _LIMITS[field]
        whole = field in ("image_size", "map_sizes")
        kind = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:  # NaN is not in between
            wanted = f"{'a whole' if whole else 'a finite'} number above 0, from {low:g} to {high:g}"
            raise ValueError(f"recipe {self.name!r}: {field} has {value!r}, which must be {wanted}")

    @property
    def priors_per_cell(self) -> tuple[int, ...]:
        """Number of priors of a cell, for each feature map."""
        return tuple(len(cell) for cell in self.ratios)

    @property
    def priors_per_map(self) -> tuple[int, ...]:
        """Number of priors of each feature map; SSD300: 5776, 2166, 600, 150, 36, 4."""
        return tuple(side * side * k for side, k in zip(self.map_sizes, self.priors_per_cell, strict=True))

    @property
    def num_priors(self) -> int:
        """Number of all priors, P; SSD300: 8732."""
        return sum(self.priors_per_map)

    def map_slices(self) -> list[slice]:
        """For each feature map, where its priors lie among all P."""
        ends = [sum(self.priors_per_map[: k + 1]) for k in range(len(self.map_sizes))]
        return [slice(end - n, end) for end, n in zip(ends, self.priors_per_map, strict=True)]

    def locate(self, index: int) -> tuple[int, int, int, int]:
        """Which (map, row, column, prior of the cell) the prior `index` is.

        Raises:
            IndexError: if there is no such prior.
        """
        for k, where in enumerate(self.map_slices()):
            if where.start <= index < where.stop:
                cell, prior = divmod(index - where.start, self.priors_per_cell[k])
                row, column = divmod(cell, self.map_sizes[k])
                return k, row, column, prior
        raise IndexError(f"recipe {self.name!r} has priors 0..{self.num_priors - 1}, no {index}")

    def shapes(self, k: int) -> list[tuple[float, float]]:
        """(width, height) of the priors of one cell of feature map `k`, as fractions of the image side."""
        sizes = []
        for entry in self.ratios[k]:
            if isinstance(entry, str):
                ratio, scale = 1.0, math.sqrt(self.scales[k] * self.scales[k + 1])
            else:
                ratio, scale = entry if isinstance(entry, tuple) else (entry, self.scales[k])
            w, h = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes.append((min(w, 1.0), min(h, 1.0)) if self.clip_sizes else (w, h))
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PriorRecipe:
        """The inverse of `to_dict`, also after a trip through JSON (which turns tuples into lists).

        Raises:
            ValueError: if a field is missing, unknown or out of range.
        """
        try:
            steps = values.get("steps")
            return cls(
                **{
                    **values,
                    "map_sizes": tuple(values["map_sizes"]),
                    "scales": tuple(values["scales"]),
                    "ratios": tuple(
                        tuple(tuple(entry) if isinstance(entry, list) else entry for entry in cell)
                        for cell in values["ratios"]
                    ),
                    "steps": None if steps is None else tuple(steps),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:  # no dict, a field is missing, or of the wrong type
            raise ValueError(f"not a prior recipe: {error}") from error


def make_priors(
    recipe: PriorRecipe, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make all priors of a recipe, in the order of the stacked predictions.

    The order is: feature map, then row, then column, then the priors of the cell in the order of `recipe.ratios`.

    Args:
        recipe: the prior recipe.
        device: where the result lies.
        dtype: of the result; the arithmetic is done in float64.

    Returns:
        (P, 4) cxcywh, in fractions of the image side. Priors may reach over the border of the image.

    Source: Liu et al. (2016), section 2.2: centres at (column + 0.5, row + 0.5) / side of the map.
    """
    maps = []
    for k, side in enumerate(recipe.map_sizes):
        step = recipe.image_size / side if recipe.steps is None else recipe.steps[k]
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) * step / recipe.image_size  # (side,)
        cy, cx = torch.meshgrid(centres, centres, indexing="ij")  # (side, side) each: row by row
        sizes = torch.tensor(recipe.shapes(k), dtype=torch.float64)  # (K, 2)
        grid = torch.stack((cx, cy), dim=-1)[:, :, None, :].expand(-1, -1, len(sizes), -1)  # (side, side, K, 2)
        boxes = torch.cat((grid, sizes.expand(side, side, -1, -1)), dim=-1)  # (side, side, K, 4)
        maps.append(boxes.reshape(-1, 4))  # (side * side * K, 4)
    return torch.cat(maps).to(device=device, dtype=dtype)


_FOUR: tuple[Ratio, ...] = (1.0, 2.0, 1 / 2, "extra")
_SIX: tuple[Ratio, ...] = (1.0, 2.0, 3.0, 1 / 2, 1 / 3, "extra")
# The original code and torchvision write the same shapes in another order: weights follow it.
_FOUR_EXTRA_SECOND: tuple[Ratio, ...] = (1.0, "extra", 2.0, 1 / 2)
_SIX_EXTRA_SECOND: tuple[Ratio, ...] = (1.0, "extra", 2.0, 1 / 2, 3.0, 1 / 3)
_SSD300_MAPS = (38, 19, 10, 5, 3, 1)
_SSD300_STEPS = (8.0, 16.0, 32.0, 64.0, 100.0, 300.0)

SSD300_VOC = PriorRecipe(
    name="ssd300-voc",  # the paper: 8732 priors
    image_size=300,
    map_sizes=_SSD300_MAPS,
    scales=(0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.0),
    ratios=(_FOUR, _SIX, _SIX, _SIX, _FOUR, _FOUR),
)

SSD300_CAFFE = PriorRecipe(
    name="ssd300-caffe",  # the original code's VOC configuration: sizes 30, 60, 111, ... pixels, fixed steps
    image_size=300,
    map_sizes=_SSD300_MAPS,
    scales=tuple(pixels / 300 for pixels in (30, 60, 111, 162, 213, 264, 315)),
    ratios=(_FOUR_EXTRA_SECOND, *(_SIX_EXTRA_SECOND,) * 3, *(_FOUR_EXTRA_SECOND,) * 2),
    steps=_SSD300_STEPS,
)

SSD300_COCO = PriorRecipe(
    name="ssd300-coco",  # torchvision's ssd300_vgg16, trained on COCO, whose objects are smaller
    image_size=300,
    map_sizes=_SSD300_MAPS,
    scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    ratios=(_FOUR_EXTRA_SECOND, *(_SIX_EXTRA_SECOND,) * 3, *(_FOUR_EXTRA_SECOND,) * 2),
    steps=_SSD300_STEPS,
    clip_sizes=True,
)

SSD512_VOC = PriorRecipe(
    name="ssd512-voc",  # the original code's sizes for 512 pixels: 24564 priors
    image_size=512,
    map_sizes=(64, 32, 16, 8, 4, 2, 1),
    scales=(0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05),
    ratios=(_FOUR, _SIX, _SIX, _SIX, _SIX, _FOUR, _FOUR),
)

SSDLITE320 = PriorRecipe(
    name="ssdlite320",  # torchvision's ssdlite320_mobilenet_v3_large: 3234 priors, none for very small objects
    image_size=320,
    map_sizes=(20, 10, 5, 3, 2, 1),
    scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
    ratios=(_SIX_EXTRA_SECOND,) * 6,
    clip_sizes=True,
)

SSD300_MOBILENET = PriorRecipe(
    name="ssd300-mobilenet",  # TensorFlow's SSD on MobileNet: 1917 priors, three of each cell of the first map
    image_size=300,
    map_sizes=(19, 10, 5, 3, 2, 1),
    scales=(0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
    # the first prior is a small square; 0.3333 is what the program that trained it says
    ratios=(((1.0, 0.1), 2.0, 0.5), *((1.0, 2.0, 0.5, 3.0, 0.3333, "extra"),) * 5),
)
