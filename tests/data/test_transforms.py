"""The way from the data set to the network: what augmentation may change, and what must stay together."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pvariance
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from ssdlib.data.transforms import CROP_OVERLAPS, FILL, Augmentation, RandomIoUCrop, model_input
from ssdlib.model import prepare

OFF = Augmentation(color=False, zoom_out=1.0, crop=1.0, horizontal_flip=0.0, vertical_flip=0.0)
STRONG = Augmentation(color=False, zoom_out=3.0, zoom_out_p=0.5, crop=0.3, horizontal_flip=0.5, vertical_flip=0.5)
# Objects that do not touch each other, in an image of 200 x 160.
BOXES = [[4.0, 6, 64, 66], [80, 10, 190, 60], [10, 80, 90, 150], [110, 80, 150, 155]]


def target_of(boxes: list[list[float]]) -> dict[str, Tensor]:
    """Labels 1, 2, ...; every second object is difficult."""
    labels = torch.arange(1, len(boxes) + 1)
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "difficult": labels % 2 == 0}


def painted(boxes: list[list[float]], width: int, height: int) -> Tensor:
    """A black image in which object i is a flat gray of 50 i."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for i, (x_min, y_min, x_max, y_max) in enumerate(boxes, start=1):
        image[:, int(y_min) : int(y_max), int(x_min) : int(x_max)] = 50 * i
    return image


def noise(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


# ---- without augmentation --------------------------------------------------------------------------------------


def test_without_augmentation_it_is_the_resize_of_predict():
    image, target = noise(160, 200), target_of(BOXES)
    varied, changed = model_input(64)(image, target)
    assert varied.dtype == torch.float32
    assert varied.shape == (3, 64, 64)
    assert torch.equal(varied, prepare(image, 64))
    torch.testing.assert_close(changed["boxes"], target["boxes"] / torch.tensor([200, 160, 200, 160]))
    assert torch.equal(changed["labels"], target["labels"])
    assert torch.equal(changed["difficult"], target["difficult"])
    assert (changed["boxes"].dtype, changed["labels"].dtype) == (torch.float32, torch.int64)
    assert type(varied) is type(changed["boxes"]) is Tensor


def test_range_of_the_values():
    white, _ = model_input(32)(torch.full((3, 50, 40), 255, dtype=torch.uint8), target_of([]))
    assert torch.equal(white, torch.ones(3, 32, 32))
    black, _ = model_input(32)(torch.zeros(3, 50, 40, dtype=torch.uint8), target_of([]))
    assert torch.equal(black, torch.zeros(3, 32, 32))


@pytest.mark.parametrize("size", [64, 300])
def test_an_object_as_large_as_the_image_is_never_lost_to_rounding(size: int):
    transform = model_input(size)
    for width in range(21, 500, 13):
        image = torch.zeros(3, 1 + width // 2, width, dtype=torch.uint8)
        _, changed = transform(image, target_of([[0.0, 0.0, float(width), float(1 + width // 2)]]))
        torch.testing.assert_close(changed["boxes"], torch.tensor([[0.0, 0, 1, 1]]))


def test_all_switched_off_is_no_augmentation():
    image, target = noise(70, 90), target_of([[5, 6, 40, 50]])
    for got, expected in zip(model_input(64, OFF)(image, target), model_input(64)(image, target), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_objects_below_a_pixel_leave_with_labels_and_marks():
    boxes = [[0.0, 0, 100, 100], [200, 200, 203, 300], [300, 300, 400, 303], [500, 500, 508, 508]]  # of 1024 -> 256
    _, changed = model_input(256)(torch.zeros(3, 1024, 1024, dtype=torch.uint8), target_of(boxes))
    assert changed["labels"].tolist() == [1, 4]
    assert changed["difficult"].tolist() == [False, True]
    assert (changed["boxes"] * 1024).tolist() == [boxes[0], boxes[3]]


def test_a_target_without_marks_stays_without():
    target = target_of(BOXES)
    del target["difficult"]
    _, changed = model_input(64, STRONG)(noise(160, 200), target)
    assert changed.keys() == {"boxes", "labels"}
    assert len(changed["boxes"]) == len(changed["labels"])


# ---- steps -----------------------------------------------------------------------------------------------------


def test_flips_are_exact():
    image, target = noise(256, 512), target_of([[8.0, 16, 128, 200], [256, 0, 512, 256]])
    plain, expected = model_input(256)(image, target)
    x_min, y_min, x_max, y_max = expected["boxes"].unbind(-1)
    varied, changed = model_input(256, replace(OFF, horizontal_flip=1.0))(image, target)
    assert torch.equal(changed["boxes"], torch.stack((1 - x_max, y_min, 1 - x_min, y_max), dim=-1))
    assert torch.equal(changed["labels"], target["labels"])
    torch.testing.assert_close(varied, plain.flip(2), rtol=0, atol=1.01 / 255)
    varied, changed = model_input(256, replace(OFF, vertical_flip=1.0))(image, target)
    assert torch.equal(changed["boxes"], torch.stack((x_min, 1 - y_max, x_max, 1 - y_min), dim=-1))
    torch.testing.assert_close(varied, plain.flip(1), rtol=0, atol=1.01 / 255)


def test_flags_switch_steps():
    def names(**flags: Any) -> list[str]:
        steps = Augmentation(**flags).steps()
        inner = [step.transforms[0] if isinstance(step, v2.RandomApply) else step for step in steps]
        return [type(step).__name__ for step in inner]

    assert OFF.steps() == []
    assert names() == ["RandomZoomOut", "RandomIoUCrop", "RandomHorizontalFlip"]
    assert names(zoom_out=1.0) == ["RandomIoUCrop", "RandomHorizontalFlip"]
    assert names(crop=1.0) == ["RandomZoomOut", "RandomHorizontalFlip"]
    assert names(horizontal_flip=0.0) == ["RandomZoomOut", "RandomIoUCrop"]
    assert names(vertical_flip=0.5)[-1] == "RandomVerticalFlip"
    zoom, crop, flip = Augmentation(zoom_out=2.5, zoom_out_p=0.3, crop=0.6, crop_p=0.4, horizontal_flip=0.2).steps()
    assert (tuple(zoom.side_range), zoom.p) == ((1.0, 2.5), 0.3)
    assert (crop.p, crop.transforms[0].min_scale, crop.transforms[0].options) == (0.4, 0.6, CROP_OVERLAPS)
    assert flip.p == 0.2


def test_colours_change_the_image_and_no_box():
    image, target = noise(80, 80), target_of([[8.0, 8, 40, 40]])
    plain, expected = model_input(64)(image, target)
    transform = model_input(64, replace(OFF, color=True))
    images = []
    for _ in range(8):
        varied, changed = transform(image, target)
        assert torch.equal(changed["boxes"], expected["boxes"])
        assert varied.min() >= 0
        assert varied.max() <= 1
        images.append(varied)
    assert sum(not torch.equal(varied, plain) for varied in images) >= 6


def test_zoom_out_puts_the_image_on_a_canvas_of_the_mean_colour():
    image, target = torch.zeros(3, 100, 100, dtype=torch.uint8), target_of([[0.0, 0, 100, 100]])
    transform = model_input(128, replace(OFF, zoom_out=4.0, zoom_out_p=1.0))
    sides = []
    for _ in range(60):
        varied, changed = transform(image, target)
        x_min, y_min, x_max, y_max = (128 * changed["boxes"][0]).tolist()
        sides.append((x_max - x_min) / 128)
        # The inside is the black image, the outside the fill, away from the interpolated edge.
        inside = torch.zeros(128, 128, dtype=torch.bool)
        inside[math.ceil(y_min) + 2 : int(y_max) - 2, math.ceil(x_min) + 2 : int(x_max) - 2] = True
        outside = torch.ones(128, 128, dtype=torch.bool)
        outside[max(0, int(y_min) - 2) : math.ceil(y_max) + 2, max(0, int(x_min) - 2) : math.ceil(x_max) + 2] = False
        assert not varied[:, inside].any()
        fill = torch.tensor(FILL)[:, None].expand(3, int(outside.sum()))
        torch.testing.assert_close(varied[:, outside] * 255, fill)
    assert min(sides) < 0.35
    assert max(sides) > 0.8
    assert min(sides) >= 0.24


# ---- what must stay together -----------------------------------------------------------------------------------


def test_every_box_stays_on_its_object_with_its_label_and_mark():
    image, target = painted(BOXES, 200, 160), target_of(BOXES)
    transform = model_input(128, STRONG)
    seen, sizes = 0, set()
    for seed in range(150):
        torch.manual_seed(seed)
        varied, changed = transform(image, target)
        boxes, labels = changed["boxes"], changed["labels"].tolist()
        assert boxes.shape == (len(labels), 4)
        assert torch.equal(changed["difficult"], changed["labels"] % 2 == 0)
        assert len(set(labels)) == len(labels) > 0
        assert ((boxes >= 0) & (boxes <= 1)).all()
        sizes.add(len(labels))
        for label, (x_min, y_min, x_max, y_max) in zip(labels, (128 * boxes).tolist(), strict=True):
            patch = varied[:, math.ceil(y_min) + 2 : int(y_max) - 2, math.ceil(x_min) + 2 : int(x_max) - 2] * 255
            if patch.numel():
                seen += 1
                assert (patch - 50 * label).abs().max() < 3, (seed, label)
    assert seen > 200
    assert sizes == {1, 2, 3, 4}


def test_boxes_are_tight_after_augmentation():
    image, target = painted([[60.0, 40, 140, 120]], 200, 160), target_of([[60.0, 40, 140, 120]])
    transform = model_input(128, replace(OFF, crop=0.3, horizontal_flip=0.5, vertical_flip=0.5))
    for seed in range(60):
        torch.manual_seed(seed)
        varied, changed = transform(image, target)
        ys, xs = (varied[0] > 25 / 255).nonzero().unbind(1)
        extent = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        assert (extent - 128 * changed["boxes"][0]).abs().max() <= 1, seed


@pytest.mark.parametrize("augmentation", [None, Augmentation(), STRONG])
def test_images_without_objects_survive_every_step(augmentation: Augmentation | None):
    transform = model_input(64, augmentation)
    for _ in range(10):
        varied, changed = transform(noise(60, 80), target_of([]))
        assert varied.shape == (3, 64, 64)
        assert changed["boxes"].shape == (0, 4)
        assert changed["labels"].shape == changed["difficult"].shape == (0,)
        assert changed["boxes"].dtype == torch.float32
        assert changed["labels"].dtype == torch.int64
        assert changed["difficult"].dtype == torch.bool


def test_inputs_are_not_changed():
    image, target = noise(160, 200), target_of(BOXES)
    image_before, before = image.clone(), {key: value.clone() for key, value in target.items()}
    transform = model_input(64, Augmentation(vertical_flip=0.5))
    for _ in range(20):
        transform(image, target)
    assert torch.equal(image, image_before)
    assert target.keys() == before.keys()
    assert all(torch.equal(target[key], before[key]) for key in before)
    assert type(target["boxes"]) is Tensor


def test_the_global_seed_decides():
    image, target = noise(160, 200), target_of(BOXES)
    transform = model_input(64, Augmentation())
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(transform(image, target)[0])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# ---- the crop --------------------------------------------------------------------------------------------------


def crops_of(crop: v2.RandomIoUCrop, boxes: list[list[float]], draws: int) -> list[dict[str, Any]]:
    image = tv_tensors.Image(torch.zeros(3, 160, 200, dtype=torch.uint8))
    objects = tv_tensors.BoundingBoxes(torch.tensor(boxes).reshape(-1, 4), format="XYXY", canvas_size=(160, 200))
    return [crop.make_params([image, objects]) for _ in range(draws)]


@pytest.mark.parametrize("min_overlap", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_every_crop_is_valid(min_overlap: float):
    boxes = [*BOXES, [10.0, 5, 195, 150]]
    crops = [c for c in crops_of(RandomIoUCrop(sampler_options=[min_overlap, 2.0]), boxes, 200) if c]
    assert len(crops) > 50  # nearly half of the draws ask for a crop: it must really come
    for params in crops:
        left, top, width, height = (params[key] for key in ("left", "top", "width", "height"))
        assert 0 <= left < left + width <= 200
        assert 0 <= top < top + height <= 160
        assert width >= int(0.3 * 200)
        assert height >= int(0.3 * 160)
        assert 0.5 <= width / height <= 2
        kept = [
            left < (x_min + x_max) / 2 < left + width and top < (y_min + y_max) / 2 < top + height
            for x_min, y_min, x_max, y_max in boxes
        ]
        assert params["is_within_crop_area"].tolist() == kept
        assert any(kept)
        window = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
        assert box_iou(torch.tensor(boxes)[torch.tensor(kept)], window).max() >= min_overlap
    assert len({(params["left"], params["width"]) for params in crops}) > 30


def test_crops_come_as_often_as_asked():
    image, target = noise(160, 200), target_of(BOXES)
    for share, low, high in [(0.0, 0, 0), (0.3, 10, 50), (1.0, 60, 100)]:
        transform = model_input(64, replace(OFF, crop=0.5, crop_p=share))
        plain = model_input(64)(image, target)[0]
        assert low <= sum(not torch.equal(transform(image, target)[0], plain) for _ in range(100)) <= high


def test_a_crop_keeps_to_its_smallest_side():
    crops = [c for c in crops_of(RandomIoUCrop(min_scale=0.8, sampler_options=[0.0, 2.0]), BOXES, 100) if c]
    assert min(c["width"] for c in crops) >= 160
    assert min(c["height"] for c in crops) >= 128


def test_no_crop_without_objects_or_when_none_is_drawn():
    assert crops_of(RandomIoUCrop(sampler_options=[0.0]), [], 3) == [{}] * 3
    assert crops_of(RandomIoUCrop(sampler_options=[2.0]), BOXES, 3) == [{}] * 3


def test_where_no_crop_is_valid_another_minimum_is_drawn():
    """No crop of at least 0.3 of the side overlaps a single pixel by 0.9: it ends with "no crop", and soon."""
    assert crops_of(RandomIoUCrop(sampler_options=[0.9, 2.0]), [[100.0, 80, 101, 81]], 10) == [{}] * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "boxes",
    [BOXES, [[0.0, 0, 200, 160], [5, 5, 12, 12]], [[150.0, 110, 190, 150]]],
    ids=["four", "large and small", "corner"],
)
def test_the_distribution_is_that_of_torchvision(boxes: list[list[float]]):
    """Two samples of different generators: their means must agree within 4 standard errors."""
    ours = crops_of(RandomIoUCrop(sampler_options=CROP_OVERLAPS), boxes, 2500)
    theirs = crops_of(v2.RandomIoUCrop(sampler_options=CROP_OVERLAPS), boxes, 400)
    figures: dict[str, Callable[[dict[str, Any]], float]] = {
        "no crop": lambda c: 0.0 if c else 1.0,
        "area": lambda c: c["width"] * c["height"] if c else 200 * 160,
        "ratio": lambda c: c["width"] / c["height"] if c else 1.25,
        "left": lambda c: c["left"] if c else 0.0,
        "bottom": lambda c: c["top"] + c["height"] if c else 160.0,
        "kept": lambda c: float(c["is_within_crop_area"].sum()) if c else float(len(boxes)),
    }
    for name, figure in figures.items():
        a, b = [figure(c) for c in ours], [figure(c) for c in theirs]
        error = math.sqrt(pvariance(a) / len(a) + pvariance(b) / len(b))
        assert abs(fmean(a) - fmean(b)) <= 4 * error, (name, fmean(a), fmean(b), error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": -1.0}, r"crop must be above 0 and at most 1, got -1\.0"),
        ({"crop": 0.0}, "crop must be above 0"),
        ({"crop": 5.0}, r"crop must be .* got 5\.0"),
        ({"zoom_out": 0.5}, r"zoom_out must be from 1 to 10, got 0\.5"),
        ({"zoom_out": 1e9}, "zoom_out must be from 1 to 10"),
        ({"horizontal_flip": 7.0}, r"horizontal_flip is a probability, from 0 to 1, got 7\.0"),
        ({"vertical_flip": -0.1}, "vertical_flip is a probability"),
        ({"zoom_out_p": 1.1}, "zoom_out_p is a probability"),
        ({"crop_p": math.nan}, "crop_p is a probability, from 0 to 1, got nan"),
        ({"crop": math.nan}, "crop must be"),
    ],
)
def test_an_augmentation_out_of_range(changes: dict[str, float], message: str):
    with pytest.raises(ValueError, match=f"^augmentation: {message}"):
        Augmentation(**changes)
    Augmentation(zoom_out=10.0, crop=1.0, zoom_out_p=0.0, crop_p=1.0, horizontal_flip=0.0, vertical_flip=1.0)


def test_a_transform_can_be_sent_to_another_process():
    transform = model_input(32, Augmentation(vertical_flip=0.5))
    again = pickle.loads(pickle.dumps(transform))
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[5.0, 5, 30, 30]]), "labels": torch.tensor([1])}
    for seed in range(3):
        torch.manual_seed(seed)
        expected, boxes = transform(image, target)
        torch.manual_seed(seed)
        found, again_boxes = again(image, target)
        assert torch.equal(found, expected)
        assert torch.equal(again_boxes["boxes"], boxes["boxes"])
