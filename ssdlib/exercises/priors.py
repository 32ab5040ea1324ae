"""Checkers for the chapter on priors."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.exercises.checking import Answer, Case, Mistake, check, shown
from ssdlib.priors import SSD300_VOC, SSD512_VOC, PriorRecipe, Ratio, make_priors


def check_index_of(answer: Answer) -> None:
    """Check `index_of(recipe, k, row, column, shape)`: the index of a prior, the inverse of `PriorRecipe.locate`."""
    places = [
        ("the very first prior", SSD300_VOC, 0),
        ("the second shape of the first cell", SSD300_VOC, 1),
        ("the first shape of the second cell", SSD300_VOC, 4),
        ("the second row of the first map", SSD300_VOC, 4 * 38),
        ("the first prior of the second map", SSD300_VOC, 5776),
        ("a prior on the third map", SSD300_VOC, 8000),
        ("the very last prior", SSD300_VOC, 8731),
        ("another recipe", SSD512_VOC, 20000),
    ]
    check(answer, [Case(what, (r, *r.locate(i)), i) for what, r, i in places], _INDEX_MISTAKES)


def _start(recipe: PriorRecipe, k: int) -> int:
    return recipe.map_slices()[k].start


_INDEX_MISTAKES = [
    Mistake(
        "row and column have changed places. The priors go row by row, so a step down is a whole row of cells away.",
        lambda r, k, y, x, s: _start(r, k) + (x * r.map_sizes[k] + y) * r.priors_per_cell[k] + s,
    ),
    Mistake(
        "all priors of the finer maps come first.",
        lambda r, k, y, x, s: (y * r.map_sizes[k] + x) * r.priors_per_cell[k] + s,
    ),
    Mistake(
        "a step to the next cell passes all priors of a cell, not one.",
        lambda r, k, y, x, s: _start(r, k) + y * r.map_sizes[k] + x + s,
    ),
    Mistake(
        "the number of priors of a cell is not the same on all maps: see `priors_per_cell`.",
        lambda r, k, y, x, s: _start(r, k) + (y * r.map_sizes[k] + x) * r.priors_per_cell[0] + s,
    ),
    Mistake(
        "this is one shape after the other for the whole map. In the order of the predictions, the shapes of one cell "
        "stand together.",
        lambda r, k, y, x, s: _start(r, k) + s * r.map_sizes[k] ** 2 + y * r.map_sizes[k] + x,
    ),
    Mistake(
        "the indices start at 0.",
        lambda r, k, y, x, s: _start(r, k) + (y * r.map_sizes[k] + x) * r.priors_per_cell[k] + s + 1,
    ),
]


def check_bottle_recipe(answer: Any) -> None:
    """Check a PriorRecipe: `SSD300_VOC` with one more ratio on one map, which covers all bottles of 0.1 x 0.5."""
    reply = _flaw_of_recipe(answer)
    if reply:
        print(f"Not yet: {reply}")
    else:
        print("Right: one more ratio, and all 200 bottles overlap some prior by at least 0.5.")


def _flaw_of_recipe(recipe: Any) -> str:
    """What is wrong with the recipe for bottles; empty if nothing is."""
    if not isinstance(recipe, PriorRecipe):
        return f"the checker needs a PriorRecipe, and got {shown(recipe)}."
    if dataclasses.replace(recipe, name=SSD300_VOC.name, ratios=SSD300_VOC.ratios) != SSD300_VOC:
        return "something else than the ratios has changed. Start with dataclasses.replace(SSD300_VOC, ratios=...)."
    added: list[tuple[int, Ratio]] = []
    for k, (new, old) in enumerate(zip(recipe.ratios, SSD300_VOC.ratios, strict=True)):
        if missing := [ratio for ratio in old if ratio not in new]:
            return f"map {k} has lost the ratio {shown(missing[0])}. Add one, and keep the others."
        added += [(k, ratio) for ratio in new if ratio not in old]
    if not added:
        return "no ratio has been added."
    if len(added) > 1:
        return f"{len(added)} ratios have been added. One is enough, on the right map."
    ((k, ratio),) = added
    covered = int((_bottles_best(recipe) >= 0.5).sum())
    if covered == 200:
        return ""
    reply = f"with the ratio {shown(ratio)} on map {k}, {covered} of 200 bottles overlap some prior by at least 0.5."
    w, h = recipe.shapes(k)[recipe.ratios[k].index(ratio)]
    if w >= h:
        return f"{reply}\nHint: a ratio is width / height, and a bottle is higher than wide."
    return (
        f"{reply}\nHint: the new prior is {w:.2f} wide and {h:.2f} high, a bottle 0.1 and 0.5. The ratio decides the "
        f"shape, the scale of the map the size."
    )


def _bottles_best(recipe: PriorRecipe) -> torch.Tensor:
    """Largest overlap of each of 200 bottles at random places with a prior, (200,)."""
    size = torch.tensor([0.1, 0.5]).expand(200, 2)
    centres = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * (1 - size) + size / 2
    bottles_xyxy = cxcywh_to_xyxy(torch.cat((centres, size), dim=1))
    return iou(cxcywh_to_xyxy(make_priors(recipe)), bottles_xyxy).amax(dim=0)
