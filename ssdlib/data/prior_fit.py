"""Priors for one's own data: how many objects a recipe covers, and recipes that cover more.

An object is covered if some prior overlaps it by at least 0.5: it then has a prior that learns it without being forced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.priors import PriorRecipe, make_priors

COVERED = 0.5
SIZES = (0.0, 0.05, 0.1, 0.2, 0.4, math.inf)  # limits of the table: the root of the area, as a share of the image's
_CANDIDATES = 80  # shapes that `fit_by_recall` chooses from
_MOST = 20_000  # objects that it looks at
_REACH = 1.5  # a prior is at most so many times as large as the next map's scale: its cells see no further


def best_overlaps(boxes_xyxy: Tensor, recipe: PriorRecipe, chunk: int = 256) -> Tensor:
    """(M,) the largest IoU of each object (M, 4), fractional, with a prior of the recipe."""
    priors = cxcywh_to_xyxy(make_priors(recipe))
    parts = [iou(part, priors).amax(dim=1) for part in boxes_xyxy.split(chunk)]
    return torch.cat(parts) if parts else boxes_xyxy.new_zeros(0)


@dataclass(frozen=True)
class Coverage:
    """How many objects a recipe covers.

    Attributes:
        recipe: the priors.
        overlaps: (M,) the largest IoU of each object with a prior.
        by_class: name -> (covered, objects), of the classes that have objects.
        by_size: (least size, next size, covered, objects) of the sizes that have objects.
    """

    recipe: PriorRecipe
    overlaps: Tensor
    by_class: dict[str, tuple[int, int]]
    by_size: list[tuple[float, float, int, int]]

    @property
    def share(self) -> float:
        """Covered objects of all; nan without objects."""
        return float((self.overlaps >= COVERED).float().mean())


def coverage(boxes_xyxy: Tensor, labels: Tensor, classes: Sequence[str], recipe: PriorRecipe) -> Coverage:
    """Count the objects that the priors cover.

    Args:
        boxes_xyxy: (M, 4), fractional.
        labels: (M,) int64, 1..C-1.
        classes: names of the labels.
        recipe: the priors.
    """
    overlaps = best_overlaps(boxes_xyxy, recipe)
    covered = overlaps >= COVERED
    size = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1).sqrt()

    def count(where: Tensor) -> tuple[int, int]:
        return int(covered[where].sum()), int(where.sum())

    by_class = {name: count(labels == label) for label, name in enumerate(classes, start=1)}
    by_size = [(low, high, *count((size >= low) & (size < high))) for low, high in pairwise(SIZES)]
    return Coverage(
        recipe, overlaps, {name: n for name, n in by_class.items() if n[1]}, [row for row in by_size if row[3]]
    )


def shape_overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(N, K) IoU of shapes (N, 2) and (K, 2), widths and heights, laid upon each other with one centre."""
    shared = torch.minimum(a[:, None], b).prod(dim=2)
    return shared / (a.prod(dim=1)[:, None] + b.prod(dim=1) - shared)


def cluster_shapes(shapes: Tensor, clusters: int, *, seed: int = 0, rounds: int = 100) -> Tensor:
    """k-means of widths and heights (M, 2) under the distance 1 - IoU; (K, 2), K at most the number of shapes.

    Source: Redmon and Farhadi, YOLO9000 (2017), section 2, "Dimension clusters".
    """
    generator = torch.Generator().manual_seed(seed)
    centres = shapes[torch.randperm(len(shapes), generator=generator)[:clusters]]
    nearest = None
    for _ in range(rounds):
        now = shape_overlaps(shapes, centres).argmax(dim=1)
        if nearest is not None and torch.equal(now, nearest):
            break
        nearest = now
        own = [shapes[nearest == k] for k in range(len(centres))]
        centres = torch.stack([mine.mean(dim=0) if len(mine) else c for mine, c in zip(own, centres, strict=True)])
    return centres


def fit_by_clusters(boxes_xyxy: Tensor, recipe: PriorRecipe, *, seed: int = 0) -> PriorRecipe:
    """A recipe of as many shapes as the given one, by k-means: the smallest go to the finest map, and so on.

    Raises:
        ValueError: if there are fewer objects than shapes.
    """
    shapes = _shapes(boxes_xyxy, recipe)
    found = cluster_shapes(shapes, sum(recipe.priors_per_cell), seed=seed)
    found = found[found.prod(dim=1).argsort()]
    return _with_shapes(recipe, found.split(list(recipe.priors_per_cell)), "clusters")


def fit_by_recall(boxes_xyxy: Tensor, recipe: PriorRecipe, *, seed: int = 0) -> PriorRecipe:
    """A recipe of as many shapes as the given one, each the one that covers most objects that were not covered yet.

    What counts is the real overlap: of a shape at the cell of the map that is nearest to the object. Each map has as
    many shapes as before, none much larger than its cells see. Equal gains are decided by the mean overlap. Of very
    many objects, 20,000 are looked at.

    Raises:
        ValueError: if there are fewer objects than shapes.
    """
    chance = torch.randperm(len(boxes_xyxy), generator=torch.Generator().manual_seed(seed))
    boxes_xyxy = boxes_xyxy[chance[:_MOST]]
    shapes = _shapes(boxes_xyxy, recipe)
    now = torch.tensor([shape for k in range(len(recipe.map_sizes)) for shape in recipe.shapes(k)])
    candidates = torch.cat((cluster_shapes(shapes, _CANDIDATES, seed=seed), now)).unique(dim=0)  # (S, 2)
    maps, rows, tables = [], [], []
    for k in range(len(recipe.map_sizes)):
        limit = _REACH * recipe.scales[k + 1]
        fitting = candidates[candidates.prod(dim=1).sqrt() <= limit]
        tables.append(_placed_overlaps(boxes_xyxy, recipe, k, fitting))
        maps += [k] * len(fitting)
        rows.append(fitting)
    overlaps, choices, of_map = torch.cat(tables, dim=1), torch.cat(rows), torch.tensor(maps)  # (M, Q), (Q, 2), (Q,)
    left = torch.tensor(recipe.priors_per_cell)
    chosen: list[list[Tensor]] = [[] for _ in recipe.map_sizes]
    best = torch.zeros(len(boxes_xyxy))
    while left.any():
        reached = torch.maximum(best[:, None], overlaps)  # (M, Q) with one more
        gain = (reached >= COVERED).double().mean(dim=0) + 1e-3 * reached.double().mean(dim=0)
        pick = int(gain.masked_fill(left[of_map] == 0, -1).argmax())
        best, k = reached[:, pick], int(of_map[pick])
        chosen[k].append(choices[pick])
        left[k] -= 1
        if not (left[of_map] > 0).any():
            break
    for k, some in enumerate(chosen):  # a map whose cells see less than any shape keeps its own
        some += [torch.tensor(shape) for shape in recipe.shapes(k)[len(some) :]]
    return _with_shapes(recipe, [torch.stack(some) for some in chosen], "recall")


METHODS: dict[str, Callable[..., PriorRecipe]] = {"recall": fit_by_recall, "clusters": fit_by_clusters}
"""Ways to fit priors, by the names of `ssd priors fit --method`."""


def _placed_overlaps(boxes_xyxy: Tensor, recipe: PriorRecipe, k: int, shapes: Tensor) -> Tensor:
    """(M, S) IoU of each object with a prior of each shape, at the nearest cell of map k."""
    step = (recipe.image_size / recipe.map_sizes[k] if recipe.steps is None else recipe.steps[k]) / recipe.image_size
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    cells = ((centres / step).floor().clamp(0, recipe.map_sizes[k] - 1) + 0.5) * step  # (M, 2)
    low = torch.maximum(boxes_xyxy[:, None, :2], cells[:, None] - shapes / 2)  # (M, S, 2)
    high = torch.minimum(boxes_xyxy[:, None, 2:], cells[:, None] + shapes / 2)
    shared = (high - low).clamp(min=0).prod(dim=2)
    sizes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1)
    return shared / (sizes[:, None] + shapes.prod(dim=1) - shared)


def _shapes(boxes_xyxy: Tensor, recipe: PriorRecipe) -> Tensor:
    shapes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    needed = sum(recipe.priors_per_cell)
    if len(shapes) < needed:
        raise ValueError(f"{needed} shapes of priors cannot be fitted to {len(shapes)} objects")
    return shapes


def _with_shapes(recipe: PriorRecipe, of_maps: Sequence[Tensor], name: str) -> PriorRecipe:
    ratios = []
    for shapes in of_maps:
        ordered = shapes[shapes.prod(dim=1).argsort()].double()
        ratios.append(tuple((round(w / h, 4), round(math.sqrt(w * h), 4)) for w, h in ordered.tolist()))
    return replace(recipe, name=f"{recipe.name}-{name}", ratios=tuple(ratios), clip_sizes=False)
