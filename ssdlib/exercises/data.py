"""Checkers for the chapter on data and augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_turn_boxes(answer: Answer) -> None:
    """Check `turn_boxes(boxes_xyxy, width, height)`: (M, 4) pixels, after `image.rot90(1, (1, 2))`."""
    check(answer, _turn_cases(), _TURN_MISTAKES)


def _turn_cases() -> list[Case]:
    lists = [
        ("a box in the upper left corner of a wide image", [[0, 0, 40, 10]], 200, 100),
        ("a box in the lower right corner of a wide image", [[150, 70, 200, 100]], 200, 100),
        ("a box around the whole image", [[0, 0, 200, 100]], 200, 100),
        ("an image that is higher than wide", [[20, 30, 50, 120]], 60, 150),
        (
            "several boxes, with edges between the pixels",
            [[10.5, 20, 40, 60.25], [0, 5, 80, 50], [70, 1, 71, 2]],
            80,
            90,
        ),
    ]
    cases = []
    for what, boxes, width, height in lists:
        boxes_xyxy = torch.tensor(boxes, dtype=torch.float32)
        cases.append(Case(what, (boxes_xyxy, width, height), _turned(boxes_xyxy, width, height)))
    return [*cases, Case("an image without objects", (torch.zeros(0, 4), 200, 100), torch.zeros(0, 4))]


def _turned(boxes_xyxy: Tensor, width: int, height: int, *, roles: bool = True, last: str = "width") -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    x_min, y_min, x_max, y_max = boxes_xyxy.unbind(dim=1)
    end = {"width": width, "height": height, "pixel": width - 1}[last]
    top, bottom = (end - x_max, end - x_min) if roles else (end - x_min, end - x_max)
    return torch.stack((y_min, top, y_max, bottom), dim=1)


def _clockwise(boxes_xyxy: Tensor, width: int, height: int) -> Tensor:
    x_min, y_min, x_max, y_max = boxes_xyxy.unbind(dim=1)
    return torch.stack((height - y_max, x_min, height - y_min, x_max), dim=1)


def _upside_down(boxes_xyxy: Tensor, width: int, height: int) -> Tensor:
    x_min, y_min, x_max, y_max = boxes_xyxy.unbind(dim=1)
    return torch.stack((width - x_max, height - y_max, width - x_min, height - y_min), dim=1)


_TURN_MISTAKES = [
    Mistake(
        "your boxes are turned clockwise. The image is turned the other way: its right edge becomes the upper one.",
        _clockwise,
    ),
    Mistake(
        "the upper edge of your boxes lies below the lower one. Along a mirrored axis, minimum and maximum swap.",
        lambda *a: _turned(*a, roles=False),
    ),
    Mistake(
        "what was x before the turn is measured from the other side after it, and x ends at the width.",
        lambda *a: _turned(*a, last="height"),
    ),
    Mistake(
        "all your boxes have moved by a pixel. Edges are not numbers of pixels: nothing has to be subtracted but x.",
        lambda *a: _turned(*a, last="pixel"),
    ),
    Mistake(
        "exchanging x and y mirrors the image at its diagonal. One of the two has to run the other way, too.",
        lambda boxes, width, height: boxes[:, [1, 0, 3, 2]],
    ),
    Mistake(
        "this turns by 180 degrees.",
        _upside_down,
    ),
    Mistake(
        "the boxes have not moved.",
        lambda boxes, width, height: boxes,
    ),
]
