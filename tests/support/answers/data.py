"""Answers to the code exercise of the chapter on data, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import numpy as np
import torch

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


def by_corners(boxes, width, height):
    x_min, y_min, x_max, y_max = boxes.unbind(1)
    return torch.stack((y_min, width - x_max, y_max, width - x_min), dim=1)


def by_matrix(boxes, width, height):
    corners = boxes.reshape(-1, 2, 2) @ torch.tensor([[0.0, -1.0], [1.0, 0.0]]) + torch.tensor([0, width])
    return torch.cat((corners.amin(1), corners.amax(1)), dim=1)


def by_centre(boxes, width, height):
    cx, cy, w, h = xyxy_to_cxcywh(boxes).T
    return cxcywh_to_xyxy(torch.stack((cy, width - cx, h, w), dim=1)).numpy()


def in_a_list(boxes, width, height):
    return [(b, width - c, d, width - a) for a, b, c, d in boxes.tolist()]


def the_other_way(boxes, width, height):
    x_min, y_min, x_max, y_max = boxes.unbind(1)
    return torch.stack((height - y_max, x_min, height - y_min, x_max), dim=1)


def roles_kept(boxes, width, height):
    return np.stack([boxes[:, 1], width - boxes[:, 0], boxes[:, 3], width - boxes[:, 2]], axis=1)


def new_width(boxes, width, height):
    return by_corners(boxes, height, width)


def pixels(boxes, width, height):
    return by_corners(boxes, width - 1, height)


def transposed(boxes, width, height):
    return boxes.reshape(-1, 2, 2).flip(2).reshape(-1, 4)


def half_turn(boxes, width, height):
    return torch.tensor([width, height, width, height]) - boxes[:, [2, 3, 0, 1]]


def forgotten(boxes, width, height):
    return boxes.clone()


def one_box_only(boxes, width, height):
    return by_corners(boxes[:1], width, height)


ANSWERS = {
    "check_turn_boxes": (
        [by_corners, by_matrix, by_centre, in_a_list],
        [
            (the_other_way, "turned clockwise"),
            (roles_kept, "minimum and maximum swap"),
            (new_width, "x ends at the width"),
            (pixels, "moved by a pixel"),
            (transposed, "at its diagonal"),
            (half_turn, "180 degrees"),
            (forgotten, "have not moved"),
            (one_box_only, "several boxes"),
        ],
    ),
}
