"""Answers to the code exercise of the chapter on YOLO, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.family.yolo_v1 import read_grid


def by_hand(numbers, row, column, cells):
    x, y, root_w, root_h = numbers
    cx, cy, w, h = (column + x) / cells, (row + y) / cells, root_w**2, root_h**2
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def by_the_whole_grid(numbers, row, column, cells):
    output = torch.zeros(cells, cells, 5)
    output[row, column, :4] = torch.tensor(numbers)
    return cxcywh_to_xyxy(read_grid(output, 1).boxes[row, column, 0])


def sizes_in_cells(numbers, row, column, cells):
    x, y, root_w, root_h = numbers
    return cxcywh_to_xyxy(torch.tensor([column + x, row + y, root_w**2, root_h**2]) / cells)


def rows_as_x(numbers, row, column, cells):
    return by_hand(numbers, column, row, cells)


def roots_as_sizes(numbers, row, column, cells):
    x, y, w, h = numbers
    return by_hand([x, y, w**0.5, h**0.5], row, column, cells)


def place_in_the_image(numbers, row, column, cells):
    x, y, root_w, root_h = numbers
    return cxcywh_to_xyxy(torch.tensor([x, y, root_w**2, root_h**2]))


def centre_and_size(numbers, row, column, cells):
    x, y, root_w, root_h = numbers
    return torch.tensor([(column + x) / cells, (row + y) / cells, root_w**2, root_h**2])


ANSWERS = {
    "check_read_cell": (
        [by_hand, by_the_whole_grid],
        [
            (sizes_in_cells, "not of the cell"),
            (rows_as_x, "column with x"),
            (roots_as_sizes, "square roots"),
            (place_in_the_image, "Which cell is it"),
            (centre_and_size, "corners are wanted"),
        ],
    ),
}
