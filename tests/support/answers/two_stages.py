"""Answers to the code exercises of the chapter on two stages, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torchvision.ops import roi_align


def four_weights(feature_map, x, y):
    height, width = feature_map.shape
    x = min(max(x - 0.5, 0), width - 1)
    y = min(max(y - 0.5, 0), height - 1)
    total = 0.0
    for row in range(height):
        for column in range(width):
            total += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row)) * float(feature_map[row, column])
    return total


def by_roi_align(feature_map, x, y):
    box = torch.tensor([[x, y, x, y]])
    return roi_align(feature_map[None, None], [box], 1, 1.0, 1, True).item()


def by_grid_sample(feature_map, x, y):
    height, width = feature_map.shape
    grid = torch.tensor([[[[2 * x / width - 1, 2 * y / height - 1]]]])
    return F.grid_sample(feature_map[None, None], grid, padding_mode="border", align_corners=False)[0, 0, 0, 0]


def without_half(feature_map, x, y):
    return four_weights(feature_map, x + 0.5, y + 0.5)


def swapped(feature_map, x, y):
    return four_weights(feature_map, y, x)


def nearest(feature_map, x, y):
    return feature_map[min(int(y), 2), min(int(x), 4)]


def plain_mean(feature_map, x, y):
    return four_weights(feature_map, math.floor(x - 0.5) + 1, math.floor(y - 0.5) + 1)


def exchanged(feature_map, x, y):
    return four_weights(feature_map, 2 * math.floor(x - 0.5) + 2 - x, 2 * math.floor(y - 0.5) + 2 - y)


ANSWERS = {
    "check_interpolate": (
        [four_weights, by_roi_align, by_grid_sample],
        [
            (without_half, "half a cell off"),
            (swapped, "x counts columns"),
            (nearest, "Four cells have a say"),
            (plain_mean, "are not equal"),
            (exchanged, "exchanged"),
        ],
    ),
}
