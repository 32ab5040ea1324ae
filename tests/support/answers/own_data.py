"""Answers to the code exercise of the chapter on your own data, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch

from ssdlib.boxes import cxcywh_to_xyxy


def by_columns(rows, width, height):
    _, cx, cy, w, h = rows.unbind(dim=1)
    left, top = (cx - w / 2) * width, (cy - h / 2) * height
    return torch.stack((left, top, left + w * width, top + h * height), dim=1)


def by_the_library(rows, width, height):
    return cxcywh_to_xyxy(rows[:, 1:] * torch.tensor([width, height, width, height]))


def in_a_list(rows, width, height):
    return [
        [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        for _, cx, cy, w, h in rows.tolist()
    ]


def class_as_x(rows, width, height):
    return cxcywh_to_xyxy(rows[:, :4] * torch.tensor([width, height, width, height]))


def corner_and_size(rows, width, height):
    _, x, y, w, h = rows.unbind(dim=1)
    return torch.stack((x * width, y * height, (x + w) * width, (y + h) * height), dim=1)


def no_half(rows, width, height):
    _, cx, cy, w, h = rows.unbind(dim=1)
    return torch.stack(((cx - w) * width, (cy - h) * height, (cx + w) * width, (cy + h) * height), dim=1)


def exchanged(rows, width, height):
    return by_columns(rows, height, width)


def rounded(rows, width, height):
    return by_columns(rows, width, height).round()


def fractions(rows, width, height):
    return cxcywh_to_xyxy(rows[:, 1:])


def not_converted(rows, width, height):
    return rows[:, 1:] * torch.tensor([width, height, width, height])


ANSWERS = {
    "check_yolo_to_pixels": (
        [by_columns, by_the_library, in_a_list],
        [
            (class_as_x, "is the class"),
            (corner_and_size, "centre of the box"),
            (no_half, "twice as large"),
            (exchanged, "fraction of the width"),
            (rounded, "do not round"),
            (fractions, "still fractions"),
            (not_converted, "corners were asked for"),
        ],
    ),
}
