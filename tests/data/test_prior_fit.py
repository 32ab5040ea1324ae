"""Coverage of priors, and priors that are fitted: hand-made cases, plain loops, and what must hold for any objects."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import boxes_xyxy, recipes
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.data.prior_fit import (
    METHODS,
    best_overlaps,
    cluster_shapes,
    coverage,
    fit_by_recall,
    shape_overlaps,
)
from ssdlib.model import TINY
from ssdlib.priors import PriorRecipe, make_priors

SMALL = PriorRecipe("small", 100, (4, 1), (0.25, 0.8, 1.0), ((1.0, 2.0), (1.0,)))


def objects(count: int, widths: tuple[float, float], ratio: float = 1.0, seed: int = 0) -> Tensor:
    """(count, 4) boxes somewhere in the image, `ratio` times as wide as high."""
    generator = torch.Generator().manual_seed(seed)
    w = widths[0] + (widths[1] - widths[0]) * torch.rand(count, generator=generator)
    size = torch.stack((w, w / ratio), dim=1)
    low = torch.rand(count, 2, generator=generator) * (1 - size)
    return torch.cat((low, low + size), dim=1)


@given(recipe=recipes(own_scales=True), boxes=boxes_xyxy(grid=None))
def test_best_overlaps_equal_the_loop(recipe: PriorRecipe, boxes: Tensor) -> None:
    priors = cxcywh_to_xyxy(make_priors(recipe))
    expected = [max(float(iou(box[None], prior[None])) for prior in priors[:40]) for box in boxes[:2]]
    found = best_overlaps(boxes[:2], recipe, chunk=1)
    if len(priors) <= 40:
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert all(ours >= loop - 1e-6 for ours, loop in zip(found.tolist(), expected, strict=True))


def test_coverage_by_hand() -> None:
    # On a prior of 0.25; nearly all of the image, IoU with the square of 0.8 0.64; a narrow strip that nothing covers.
    boxes = torch.tensor([[0.0, 0.0, 0.25, 0.25], [0.0, 0.0, 1.0, 1.0], [0.0, 0.4, 0.5, 0.43]])
    found = coverage(boxes, torch.tensor([1, 3, 1]), ("cat", "dog", "hen"), SMALL)
    assert found.overlaps.tolist()[:2] == pytest.approx([1.0, 0.64])
    assert found.share == pytest.approx(2 / 3)
    assert found.by_class == {"cat": (1, 2), "hen": (1, 1)}  # no dog is there
    assert found.by_size == [(0.1, 0.2, 0, 1), (0.2, 0.4, 1, 1), (0.4, math.inf, 1, 1)]
    assert math.isnan(coverage(boxes[:0], torch.tensor([], dtype=torch.int64), (), SMALL).share)


def test_an_overlap_of_exactly_one_half_covers() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.25, 0.125]])
    assert coverage(boxes, torch.tensor([1]), ("a",), replace(SMALL, ratios=((1.0,), (1.0,)))).share == 1


@given(shapes=st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), min_size=1, max_size=6))
def test_shapes_overlap_as_boxes_with_one_centre(shapes: list[tuple[float, float]]) -> None:
    table = torch.tensor(shapes)
    boxes = cxcywh_to_xyxy(torch.cat((torch.full_like(table, 0.5), table), dim=1))
    torch.testing.assert_close(shape_overlaps(table, table), iou(boxes, boxes), rtol=1e-4, atol=1e-5)


def test_clusters_of_two_kinds_of_objects() -> None:
    shapes = torch.cat((torch.tensor([[0.1, 0.2]] * 30), torch.tensor([[0.6, 0.3]] * 10)))
    shapes = shapes * (1 + 0.05 * torch.randn(40, 1))
    found = cluster_shapes(shapes, 2, seed=1)
    torch.testing.assert_close(found[found[:, 0].argsort()], torch.tensor([[0.1, 0.2], [0.6, 0.3]]), rtol=0.05, atol=0)
    assert len(cluster_shapes(shapes[:3], 5)) == 3
    mean = [shape_overlaps(shapes, cluster_shapes(shapes, k)).amax(dim=1).mean() for k in (1, 2, 8)]
    assert mean == sorted(mean)


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_recipe_fits_the_same_network(method: str) -> None:
    boxes = objects(60, (0.1, 0.7), 1.5)
    found = METHODS[method](boxes, TINY)
    assert found.priors_per_map == TINY.priors_per_map
    assert found.name == f"tiny-256-{method}"
    assert (found.scales, found.steps) == (TINY.scales, TINY.steps)
    assert PriorRecipe.from_dict(found.to_dict()) == found
    for k in range(len(TINY.map_sizes)):
        areas = [w * h for w, h in found.shapes(k)]
        assert areas == sorted(areas)
        if method == "recall":
            assert math.sqrt(areas[-1]) <= max(1.5 * TINY.scales[k + 1], *(s for s, _ in TINY.shapes(k))) + 1e-3
    assert METHODS[method](boxes, TINY) == found  # the same again
    with pytest.raises(ValueError, match="20 shapes of priors cannot be fitted to 19 objects"):
        METHODS[method](boxes[:19], TINY)


def test_long_objects_are_covered_by_fitted_priors() -> None:
    boxes = objects(200, (0.3, 0.6), 6.0)  # six times as wide as high
    labels = torch.ones(200, dtype=torch.int64)
    before = coverage(boxes, labels, ("a",), TINY).share
    after = coverage(boxes, labels, ("a",), fit_by_recall(boxes, TINY)).share
    others = objects(200, (0.3, 0.6), 6.0, seed=1)
    assert before < 0.3
    assert after > 0.95
    assert coverage(others, labels, ("a",), fit_by_recall(boxes, TINY)).share > 0.9


def test_recall_sees_the_distance_of_the_cells_and_clusters_do_not() -> None:
    """Many objects of one size and some larger: k-means gives the coarse maps, by order, what is too small there."""
    boxes = torch.cat((objects(300, (0.24, 0.3)), objects(100, (0.5, 0.55))))
    labels = torch.ones(400, dtype=torch.int64)
    shares = {name: coverage(boxes, labels, ("a",), fit(boxes, TINY)).share for name, fit in METHODS.items()}
    assert shares["recall"] == 1.0
    assert shares["clusters"] < 0.99


@given(boxes=boxes_xyxy(min_size=4, max_size=8, grid=None), seed=st.integers(0, 100))
def test_the_greedy_choice_loses_nothing_that_one_shape_would_cover(boxes: Tensor, seed: int) -> None:
    recipe = replace(SMALL, ratios=((1.0, 2.0), (1.0, 2.0)))
    covered = best_overlaps(boxes, fit_by_recall(boxes, recipe, seed=seed)) >= 0.5 - 1e-3  # shapes are rounded
    for k in range(2):
        for shape in recipe.shapes(k):
            pair = (shape[0] / shape[1], math.sqrt(shape[0] * shape[1]))
            one = replace(recipe, ratios=((pair,), (pair,)))
            where = one.map_slices()[k]
            alone = iou(boxes, cxcywh_to_xyxy(make_priors(one))[where]).amax(dim=1) >= 0.5
            assert covered.sum() >= alone.sum()
