"""Answers to the code exercises of the chapter on priors, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import dataclasses

from ssdlib.priors import SSD300_VOC, PriorRecipe, Ratio


def by_sums(recipe, k, row, column, shape):
    index = sum(side**2 * n for side, n in zip(recipe.map_sizes[:k], recipe.priors_per_cell, strict=False))
    index += row * recipe.map_sizes[k] * recipe.priors_per_cell[k]
    return float(index + column * recipe.priors_per_cell[k] + shape)


def by_search(recipe, *place):
    return next(i for i in range(recipe.num_priors) if recipe.locate(i) == place)


def columns_first(recipe, k, row, column, shape):
    return by_sums(recipe, k, column, row, shape)


def without_start(recipe, k, row, column, shape):
    return (row * recipe.map_sizes[k] + column) * len(recipe.ratios[k]) + shape


def one_per_cell(recipe, k, row, column, shape):
    return sum(recipe.priors_per_map[:k]) + row * recipe.map_sizes[k] + column + shape


def always_four(recipe, k, row, column, shape):
    return sum(recipe.priors_per_map[:k]) + 4 * (row * recipe.map_sizes[k] + column) + shape


def shapes_first(recipe, k, row, column, shape):
    side = recipe.map_sizes[k]
    return sum(recipe.priors_per_map[:k]) + (shape * side + row) * side + column


def from_one(recipe, k, row, column, shape):
    return by_sums(recipe, k, row, column, shape) + 1


def no_such_field(recipe, k, row, column, shape):
    return recipe.start[k] + row


def added(*ratios: tuple[int, Ratio]) -> PriorRecipe:
    new = [list(cell) for cell in SSD300_VOC.ratios]
    for k, ratio in ratios:
        new[k].append(ratio)
    return dataclasses.replace(SSD300_VOC, name="mine", ratios=tuple(map(tuple, new)))


LOST = dataclasses.replace(SSD300_VOC, ratios=((1.0, 2.0, 1 / 2, "extra"), (1 / 5,), *SSD300_VOC.ratios[2:]))

ANSWERS = {
    "check_index_of": (
        [by_sums, by_search],
        [
            (columns_first, "row by row"),
            (without_start, "finer maps come first"),
            (one_per_cell, "all priors of a cell"),
            (always_four, "not the same on all maps"),
            (shapes_first, "one shape after the other"),
            (from_one, "start at 0"),
            (no_such_field, "raised AttributeError"),
        ],
    ),
    "check_bottle_recipe": (
        [added((1, 1 / 5)), added((1, 0.22))],
        [
            (SSD300_VOC, "no ratio has been added"),
            (added((1, 5.0)), "width / height"),
            (added((0, 1 / 5)), "0.04 wide and 0.22 high"),
            (added((2, 1 / 5)), "scale of the map"),
            (added((1, 1 / 5), (0, 1 / 5)), "2 ratios have been added"),
            (dataclasses.replace(added((1, 1 / 5)), image_size=512), "something else"),
            (LOST, "map 1 has lost the ratio 1."),
        ],
    ),
}
