"""Priors: hand-computed values, the published counts, plain loops, torchvision's generator, and the recipe as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from support.strategies import recipes
from torch import Tensor
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.priors import (
    SSD300_CAFFE,
    SSD300_COCO,
    SSD300_MOBILENET,
    SSD300_VOC,
    SSD512_VOC,
    PriorRecipe,
    make_priors,
)

ALL = [SSD300_VOC, SSD300_CAFFE, SSD300_COCO, SSD512_VOC]
SMALL = PriorRecipe(
    name="small",
    image_size=100,
    map_sizes=(2, 1),
    scales=(0.2, 0.5, 0.8),
    ratios=((1.0, 4.0), (1.0, 1 / 4, "extra")),
)


def slow_priors(recipe: PriorRecipe) -> list[tuple[float, float, float, float]]:
    """All priors, one by one, in Python's float64."""
    priors = []
    for k, side in enumerate(recipe.map_sizes):
        step = recipe.steps[k] if recipe.steps is not None else recipe.image_size / side
        for row in range(side):
            for column in range(side):
                for ratio in recipe.ratios[k]:
                    if isinstance(ratio, str):
                        w = h = math.sqrt(recipe.scales[k] * recipe.scales[k + 1])
                    elif isinstance(ratio, tuple):
                        w, h = ratio[1] * math.sqrt(ratio[0]), ratio[1] / math.sqrt(ratio[0])
                    else:
                        w, h = recipe.scales[k] * math.sqrt(ratio), recipe.scales[k] / math.sqrt(ratio)
                    if recipe.clip_sizes:
                        w, h = min(w, 1.0), min(h, 1.0)
                    x, y = (column + 0.5) * step, (row + 0.5) * step
                    priors.append((x / recipe.image_size, y / recipe.image_size, w, h))
    return priors


def torchvision_priors(recipe: PriorRecipe) -> Tensor:
    """(P, 4) xyxy in pixels, by torchvision's generator; cells must be ordered 1, extra, r, 1/r, ..."""
    generator = DefaultBoxGenerator(
        aspect_ratios=[list(cell[2::2]) for cell in recipe.ratios],
        scales=list(recipe.scales),
        steps=None if recipe.steps is None else list(recipe.steps),
        clip=recipe.clip_sizes,
    )
    side = recipe.image_size
    images = ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    return generator(images, [torch.zeros(1, 1, cells, cells) for cells in recipe.map_sizes])[0]


# --- values --------------------------------------------------------------------------------------------------------


def test_small_recipe_by_hand() -> None:
    expected = [
        # map 0: two rows of two cells, the column changes first; a square of 0.2 and a box of ratio 4
        [0.25, 0.25, 0.2, 0.2],
        [0.25, 0.25, 0.4, 0.1],
        [0.75, 0.25, 0.2, 0.2],
        [0.75, 0.25, 0.4, 0.1],
        [0.25, 0.75, 0.2, 0.2],
        [0.25, 0.75, 0.4, 0.1],
        [0.75, 0.75, 0.2, 0.2],
        [0.75, 0.75, 0.4, 0.1],
        # map 1: one cell; a square of 0.5, a box of ratio 1/4, and the extra square of sqrt(0.5 * 0.8)
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, 0.25, 1.0],
        [0.5, 0.5, 0.6324555, 0.6324555],
    ]
    torch.testing.assert_close(make_priors(SMALL), torch.tensor(expected))


def test_small_recipe_with_steps_and_clipped_sizes_by_hand() -> None:
    # Steps of 60 pixels on an image of 100: centres at 30 and 90 pixels. The widest prior would be 1.2 wide.
    recipe = replace(SMALL, map_sizes=(2, 1), steps=(60.0, 100.0), scales=(0.6, 0.5, 0.8), clip_sizes=True)
    priors = make_priors(recipe)
    torch.testing.assert_close(priors[1], torch.tensor([0.3, 0.3, 1.0, 0.3]))
    torch.testing.assert_close(priors[7], torch.tensor([0.9, 0.9, 1.0, 0.3]))  # its centre is not moved
    torch.testing.assert_close(make_priors(replace(recipe, clip_sizes=False))[1, 2], torch.tensor(1.2))


@given(recipes(own_scales=True))
def test_priors_equal_a_loop(recipe: PriorRecipe) -> None:
    expected = torch.tensor(slow_priors(recipe), dtype=torch.float64)
    torch.testing.assert_close(make_priors(recipe, dtype=torch.float64), expected, rtol=1e-14, atol=0)


@given(recipes())
def test_priors_equal_torchvision(recipe: PriorRecipe) -> None:
    ours = cxcywh_to_xyxy(make_priors(recipe)) * recipe.image_size
    torch.testing.assert_close(ours, torchvision_priors(recipe), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("recipe", [SSD300_COCO, SSD300_CAFFE], ids=lambda recipe: recipe.name)
def test_published_recipes_equal_torchvision(recipe: PriorRecipe) -> None:
    ours = cxcywh_to_xyxy(make_priors(recipe)) * 300
    torch.testing.assert_close(ours, torchvision_priors(recipe), rtol=1e-5, atol=1e-4)  # in pixels


def test_coco_recipe_is_the_one_of_torchvisions_detector() -> None:
    # The numbers of torchvision.models.detection.ssd300_vgg16, written out there inside the function.
    generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    theirs = generator(images, [torch.zeros(1, 1, side, side) for side in (38, 19, 10, 5, 3, 1)])[0]
    torch.testing.assert_close(cxcywh_to_xyxy(make_priors(SSD300_COCO)) * 300, theirs, rtol=1e-5, atol=1e-4)


def test_paper_recipe_by_hand() -> None:
    priors = make_priors(SSD300_VOC, dtype=torch.float64)
    root = math.sqrt
    half = 0.5 / 38
    by_hand = {
        0: [half, half, 0.1, 0.1],
        1: [half, half, 0.1 * root(2), 0.1 / root(2)],
        2: [half, half, 0.1 / root(2), 0.1 * root(2)],
        3: [half, half, root(0.1 * 0.2), root(0.1 * 0.2)],
        4: [3 * half, half, 0.1, 0.1],  # next column
        4 * 38: [half, 3 * half, 0.1, 0.1],  # next row
        5776: [0.5 / 19, 0.5 / 19, 0.2, 0.2],  # next map
        5778: [0.5 / 19, 0.5 / 19, 0.2 * root(3), 0.2 / root(3)],
        5780: [0.5 / 19, 0.5 / 19, 0.2 / root(3), 0.2 * root(3)],
        8728: [0.5, 0.5, 0.9, 0.9],
        8731: [0.5, 0.5, root(0.9 * 1.0), root(0.9 * 1.0)],
    }
    for index, expected in by_hand.items():
        torch.testing.assert_close(priors[index].tolist(), expected)


# --- counts and order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [SSD300_VOC, SSD300_CAFFE, SSD300_COCO], ids=lambda recipe: recipe.name)
def test_ssd300_has_8732_priors(recipe: PriorRecipe) -> None:
    assert recipe.priors_per_cell == (4, 6, 6, 6, 4, 4)
    assert recipe.priors_per_map == (5776, 2166, 600, 150, 36, 4)
    assert recipe.num_priors == len(make_priors(recipe)) == 8732


def test_ssd512_has_24564_priors() -> None:
    assert SSD512_VOC.map_sizes == (64, 32, 16, 8, 4, 2, 1)
    assert SSD512_VOC.priors_per_map == (16384, 6144, 1536, 384, 96, 16, 4)
    assert SSD512_VOC.num_priors == len(make_priors(SSD512_VOC)) == 24564


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_each_map_has_its_own_priors(recipe: PriorRecipe) -> None:
    priors = make_priors(recipe, dtype=torch.float64)
    for k, where in enumerate(recipe.map_slices()):
        # Every cell repeats the same shapes, and there are side * side different centres.
        shapes = torch.tensor(recipe.shapes(k), dtype=torch.float64)
        side, cell = recipe.map_sizes[k], recipe.priors_per_cell[k]
        assert torch.equal(priors[where, 2:].reshape(-1, cell, 2), shapes.expand(side * side, -1, -1))
        assert len(priors[where, :2].unique(dim=0)) == side * side


@given(recipes())
def test_map_slices_cut_all_priors_without_a_gap(recipe: PriorRecipe) -> None:
    indices = list(range(recipe.num_priors))
    slices = recipe.map_slices()
    assert [index for where in slices for index in indices[where]] == indices
    assert tuple(len(indices[where]) for where in slices) == recipe.priors_per_map


@given(recipes())
def test_locate_agrees_with_the_order_of_the_priors(recipe: PriorRecipe) -> None:
    in_order = [
        (k, row, column, prior)
        for k, side in enumerate(recipe.map_sizes)
        for row in range(side)
        for column in range(side)
        for prior in range(recipe.priors_per_cell[k])
    ]
    assert [recipe.locate(index) for index in range(recipe.num_priors)] == in_order


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_locate_finds_the_cell_that_the_prior_is_centred_on(recipe: PriorRecipe) -> None:
    priors = make_priors(recipe, dtype=torch.float64)
    for index in range(0, recipe.num_priors, 97):
        k, row, column, prior = recipe.locate(index)
        step = recipe.image_size / recipe.map_sizes[k] if recipe.steps is None else recipe.steps[k]
        cx, cy, w, h = priors[index].tolist()
        assert (column, row) == (int(cx * recipe.image_size / step), int(cy * recipe.image_size / step))
        assert (w, h) == recipe.shapes(k)[prior]


@pytest.mark.parametrize("index", [-1, 11, 8732])
def test_locate_refuses_an_index_that_does_not_exist(index: int) -> None:
    with pytest.raises(IndexError, match=rf"recipe 'small' has priors 0..10, no {index}"):
        SMALL.locate(index)


# --- facts about the paper's recipe --------------------------------------------------------------------------------


def beyond_the_border(priors_cxcywh: Tensor) -> int:
    corners = cxcywh_to_xyxy(priors_cxcywh)
    return int(((corners < 0) | (corners > 1)).any(dim=1).sum())


def test_clamping_the_papers_priors_shrinks_20_of_8732_and_moves_none() -> None:
    # Clamping centre-size priors to 0..1 does next to nothing: it shortens 2 shapes on the 9 cells of conv10_2 and 2 on
    # the single cell of conv11_2. Nearly a third of all priors reach over the border before, and still do.
    priors = make_priors(SSD300_VOC)
    clamped = priors.clamp(0, 1)
    changed = (clamped != priors).any(dim=1)
    assert int(changed.sum()) == 20
    assert [int(changed[where].sum()) for where in SSD300_VOC.map_slices()] == [0, 0, 0, 0, 18, 2]
    assert torch.equal(clamped[:, :2], priors[:, :2])
    assert torch.equal(clamped, make_priors(replace(SSD300_VOC, clip_sizes=True)))
    assert beyond_the_border(priors) == 2744
    assert beyond_the_border(clamped) == 2740


@pytest.mark.parametrize(
    ("recipe", "clipped"),
    [(SSD300_VOC, 20), (SSD300_CAFFE, 20), (SSD300_COCO, 2), (SSD512_VOC, 42)],
    ids=lambda value: getattr(value, "name", None),
)
def test_priors_are_clipped_only_where_the_recipe_says_so(recipe: PriorRecipe, clipped: int) -> None:
    sizes = make_priors(replace(recipe, clip_sizes=False))[:, 2:]
    assert int((sizes > 1).any(dim=1).sum()) == clipped
    assert [known.name for known in ALL if known.clip_sizes] == ["ssd300-coco"]
    assert torch.equal(make_priors(recipe)[:, 2:], sizes.clamp(max=1) if recipe.clip_sizes else sizes)


@pytest.mark.parametrize(
    ("recipe", "outside"),
    # 10 cells of 32 pixels are 320 pixels wide: the last row and column of conv8_2, 19 cells of 6 priors, are centred
    # on 304 of 300 pixels.
    [(SSD300_VOC, 0), (SSD512_VOC, 0), (SSD300_CAFFE, 19 * 6), (SSD300_COCO, 19 * 6)],
    ids=lambda value: getattr(value, "name", None),
)
def test_centres_lie_inside_the_image_except_where_fixed_steps_overshoot(recipe: PriorRecipe, outside: int) -> None:
    priors = make_priors(recipe, dtype=torch.float64)
    beyond = ((priors[:, :2] <= 0) | (priors[:, :2] > 1)).any(dim=1)
    assert int(beyond.sum()) == int(beyond[recipe.map_slices()[2]].sum()) == outside
    assert priors[:, :2].max() <= 304 / 300
    assert len(priors.unique(dim=0)) == recipe.num_priors


def test_ratio_keeps_the_area_and_extra_lies_between_two_scales() -> None:
    for k, cell in enumerate(SSD300_VOC.ratios):
        here, following = SSD300_VOC.scales[k], SSD300_VOC.scales[k + 1]
        for ratio, (w, h) in zip(cell, SSD300_VOC.shapes(k), strict=True):
            if isinstance(ratio, str):
                assert w == h
                assert here < w < following
            else:
                assert w * h == pytest.approx(here**2)
                assert w / h == pytest.approx(ratio)


def test_recipes_with_the_same_shapes_in_another_order_differ() -> None:
    # Why weights belong to their recipe: the second prior of a cell is wide in one, the extra square in the other.
    paper, caffe = SSD300_VOC.shapes(0), SSD300_CAFFE.shapes(0)
    assert paper[1][0] > paper[1][1]
    assert caffe[1][0] == caffe[1][1]
    assert paper != caffe
    torch.testing.assert_close(torch.tensor(sorted(paper)), torch.tensor(sorted(caffe)))


# --- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_priors_of_every_type_are_rounded_once(dtype: torch.dtype) -> None:
    priors = make_priors(SSD300_VOC, dtype=dtype)
    assert priors.dtype == dtype
    assert torch.equal(priors, make_priors(SSD300_VOC, dtype=torch.float64).to(dtype))


def test_priors_default_to_float32_on_the_cpu_and_obey_device() -> None:
    priors = make_priors(SMALL)
    assert (priors.dtype, priors.device.type, priors.is_contiguous()) == (torch.float32, "cpu", True)
    assert make_priors(SMALL, device="meta").device.type == "meta"


def test_each_call_gives_a_tensor_of_its_own() -> None:
    first = make_priors(SMALL)
    first.zero_()
    assert not torch.equal(make_priors(SMALL), first)


# --- the recipe ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [*ALL, SSD300_MOBILENET, SMALL], ids=lambda recipe: recipe.name)
def test_recipe_survives_a_trip_through_json(recipe: PriorRecipe) -> None:
    assert PriorRecipe.from_dict(recipe.to_dict()) == recipe
    back = PriorRecipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert back == recipe
    assert hash(back) == hash(recipe)


def test_a_prior_with_a_scale_of_its_own_by_hand() -> None:
    recipe = replace(SMALL, ratios=(((1.0, 0.1), 4.0), (1.0, "extra", (4.0, 0.3))))
    expected = [[0.1, 0.1], [0.4, 0.1], [0.5, 0.5], [0.6324555, 0.6324555], [0.6, 0.15]]
    torch.testing.assert_close(make_priors(recipe)[[0, 1, 8, 9, 10], 2:], torch.tensor(expected))
    # written as a ratio alone, it has the scale of its map
    own = replace(SMALL, ratios=(((1.0, 0.2), (4.0, 0.2)), ((1.0, 0.5), 1 / 4, "extra")))
    assert torch.equal(make_priors(own), make_priors(SMALL))


def test_priors_of_tensorflows_mobilenet() -> None:
    priors = make_priors(SSD300_MOBILENET)
    assert SSD300_MOBILENET.priors_per_map == (1083, 600, 150, 54, 24, 6)
    assert len(priors) == 1917
    half, root = 0.5 / 19, math.sqrt(2)
    expected = [[half, half, 0.1, 0.1], [half, half, 0.2 * root, 0.2 / root], [half, half, 0.2 / root, 0.2 * root]]
    torch.testing.assert_close(priors[:3], torch.tensor(expected))
    torch.testing.assert_close(priors[-1], torch.tensor([0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95)]))


@given(recipes(own_scales=True))
def test_any_recipe_survives_a_trip_through_json(recipe: PriorRecipe) -> None:
    back = PriorRecipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert back == recipe
    assert torch.equal(make_priors(back), make_priors(recipe))


def test_from_dict_does_not_change_its_argument() -> None:
    values = json.loads(json.dumps(SMALL.to_dict()))
    before = json.dumps(values)
    PriorRecipe.from_dict(values)
    assert json.dumps(values) == before


def test_recipe_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SMALL.image_size = 200  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"map_sizes": (), "scales": (1.0,), "ratios": ()}, "at least one feature map"),
        ({"map_sizes": (2, 0)}, "map_sizes has 0, which must be"),
        ({"map_sizes": (2, -1)}, "map_sizes has -1, which must be"),
        ({"image_size": 0}, "image_size has 0, which must be a whole number"),
        ({"image_size": math.nan}, "image_size has nan, which must be"),
        ({"scales": (0.2, 0.5)}, "2 feature maps need 3 scales .* got 2"),
        ({"scales": (0.2, 0.5, 0.8, 0.9)}, "2 feature maps need 3 scales .* got 4"),
        ({"scales": (0.2, -0.5, 0.8)}, "-0.5, which must be a finite number above 0"),
        ({"scales": (0.2, 0.0, 0.8)}, "0.0, which must be a finite number above 0"),
        ({"scales": (0.2, math.inf, 0.8)}, "inf, which must be a finite number above 0"),
        ({"scales": (0.2, math.nan, 0.8)}, "nan, which must be a finite number above 0"),
        ({"ratios": ((1.0,),)}, "ratios for each of the 2 feature maps"),
        ({"ratios": ((1.0,), ())}, "ratios for each of the 2 feature maps"),
        ({"ratios": ((1.0,), ("Extra",))}, "'Extra', which must be a finite number above 0"),
        ({"ratios": ((1.0,), (-2.0,))}, "-2.0, which must be a finite number above 0"),
        ({"ratios": ((1.0,), (None,))}, "None, which must be a finite number above 0"),
        ({"ratios": ((1.0,), ((1.0, 0.0),))}, "scales has 0.0, which must be"),
        ({"ratios": ((1.0,), ((math.nan, 0.1),))}, "ratios has nan, which must be"),
        ({"ratios": ((1.0,), (("extra", 0.1),))}, "ratios has 'extra', which must be"),
        ({"ratios": ((1.0,), ((1.0, 0.1, 0.2),))}, "a scale of its own has two numbers"),
        ({"ratios": ((1.0,), ((),))}, "a scale of its own has two numbers"),
        ({"steps": (50.0,)}, "a step for each of the 2 feature maps"),
        ({"map_sizes": (2.5, 1)}, "map_sizes has 2.5, which must be a whole number"),
        ({"map_sizes": (2.0, 1)}, "map_sizes has 2.0, which must be a whole number"),
        ({"map_sizes": (True, 1)}, "map_sizes has True, which must be a whole number"),
        ({"map_sizes": (10**400, 1)}, "map_sizes has 10+, which must be a whole number above 0, from 1 to 1024"),
        ({"map_sizes": (1025, 1)}, "map_sizes has 1025, which must be"),
        ({"map_sizes": (1024, 1)}, r"map_sizes \(1024, 1\) make 2,097,155 priors, more than the 1,000,000"),
        ({"image_size": 8193}, "image_size has 8193, which must be a whole number above 0, from 1 to 8192"),
        ({"image_size": 100.5}, "image_size has 100.5, which must be a whole number"),
        ({"scales": (0.2, 1e308, 0.8)}, "scales has 1e[+]308, which must be"),
        ({"scales": (0.2, "0.5", 0.8)}, "scales has '0.5', which must be"),
        ({"ratios": ((1.0,), (1e-300,))}, "ratios has 1e-300, which must be"),
        ({"name": 3}, "name must be text"),
        ({"clip_sizes": "no"}, "clip_sizes 'no' true or false"),
        ({"steps": (50.0, 0.0)}, "0.0, which must be a finite number above 0"),
    ],
)
def test_recipe_refuses_what_makes_no_priors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"recipe ('small'|3): .*{message}"):
        replace(SMALL, **change)
    with pytest.raises(ValueError, match=message):
        PriorRecipe.from_dict({**asdict(SMALL), **change})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {key: value for key, value in SMALL.to_dict().items() if key != "scales"},
        {key: value for key, value in SMALL.to_dict().items() if key != "name"},
        {**SMALL.to_dict(), "colour": "red"},
        {**SMALL.to_dict(), "map_sizes": 2},
        None,
        [1, 2],
    ],
)
def test_from_dict_refuses_what_is_no_recipe(values: Any) -> None:
    with pytest.raises(ValueError, match="not a prior recipe"):
        PriorRecipe.from_dict(values)


# --- coverage of the image -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [0.1, 0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("ratio", [1 / 2, 1.0, 2.0])
def test_priors_come_close_to_any_object(side: float, ratio: float) -> None:
    # What the recipe is for: wherever an object of a usual shape lies inside the image, some prior overlaps it by half.
    priors = cxcywh_to_xyxy(make_priors(SSD300_VOC))
    width, height = min(1.0, side * math.sqrt(ratio)), min(1.0, side / math.sqrt(ratio))
    corner = torch.rand(50, 2) * torch.tensor([1 - width, 1 - height])
    objects = torch.cat((corner, corner + torch.tensor([width, height])), dim=1)
    assert iou(objects, priors).amax(dim=1).min() > 0.5
