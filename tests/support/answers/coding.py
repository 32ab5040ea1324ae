"""Answers to the code exercises of the chapter on encoding, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch

from ssdlib.coding import decode, encode


def by_hand(offsets, old, new):
    old, new = (torch.tensor([v[0], v[0], v[1], v[1]]) for v in (old, new))
    return offsets * old / new


def through_boxes(offsets, old, new):
    prior = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    return encode(decode(offsets.double(), prior, old), prior, new)


def row_by_row(offsets, old, new):
    c, s = old[0] / new[0], old[1] / new[1]
    return [[x * c, y * c, w * s, h * s] for x, y, w, h in offsets.tolist()]


def inverse(offsets, old, new):
    return by_hand(offsets, new, old)


def one_factor(offsets, old, new):
    return offsets * old[0] / new[0]


def factor_of_size(offsets, old, new):
    return offsets / new[1] * old[1]


def swapped(offsets, old, new):
    return by_hand(offsets, old[::-1], new[::-1])


def old_only(offsets, old, new):
    return by_hand(offsets, old, (1, 1))


def new_only(offsets, old, new):
    return by_hand(offsets, (1, 1), new)


def in_place_of_four(offsets, old, new):
    return by_hand(offsets, old, new)[:, :2]


ANSWERS = {
    "check_change_variances": (
        [by_hand, through_boxes, row_by_row],
        [
            (inverse, "the other way round"),
            (one_factor, "the last two offsets"),
            (factor_of_size, "the first two offsets"),
            (swapped, "first variance is for the centre"),
            (old_only, "new ones are still missing"),
            (new_only, "old ones are still there"),
            (in_place_of_four, "of shape (1, 2)"),
        ],
    ),
}
