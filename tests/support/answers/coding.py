"""Answers to the code exercises of the chapter on encoding, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import math

import torch

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
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


def encode_row_by_row(boxes, priors):
    rows = []
    for (left, top, right, bottom), (x, y, w, h) in zip(boxes.tolist(), priors.tolist(), strict=True):
        moves = [((left + right) / 2 - x) / w / 0.1, ((top + bottom) / 2 - y) / h / 0.1]
        rows.append([*moves, math.log((right - left) / w) / 0.2, math.log((bottom - top) / h) / 0.2])
    return rows


def encode_with_library(boxes, priors):
    return encode(xyxy_to_cxcywh(boxes), priors)


def encode_corners_as_they_are(boxes, priors):
    return encode(boxes, priors)


def encode_without_variances(boxes, priors):
    return encode(xyxy_to_cxcywh(boxes), priors, (1, 1))


def encode_backwards(boxes, priors):
    return encode(priors, xyxy_to_cxcywh(boxes))


def encode_exchanged(boxes, priors):
    return encode(xyxy_to_cxcywh(boxes), priors, (0.2, 0.1))


def encode_in_own_widths(boxes, priors):
    box = xyxy_to_cxcywh(boxes)
    return torch.cat(((box - priors)[:, :2] / box[:, 2:] / 0.1, encode(box, priors)[:, 2:]), dim=1)


def encode_plain_ratio(boxes, priors):
    box = xyxy_to_cxcywh(boxes)
    return torch.cat((encode(box, priors)[:, :2], box[:, 2:] / priors[:, 2:] / 0.2), dim=1)


def decode_row_by_row(offsets, priors):
    rows = []
    for (a, b, c, d), (x, y, w, h) in zip(offsets.tolist(), priors.tolist(), strict=True):
        cx, cy, half_w, half_h = x + a * w / 10, y + b * h / 10, w * math.exp(c / 5) / 2, h * math.exp(d / 5) / 2
        rows.append([cx - half_w, cy - half_h, cx + half_w, cy + half_h])
    return rows


def decode_with_library(offsets, priors):
    return cxcywh_to_xyxy(decode(offsets, priors))


def decode_to_centres(offsets, priors):
    return decode(offsets, priors)


def decode_without_variances(offsets, priors):
    return cxcywh_to_xyxy(decode(offsets, priors, (1, 1)))


def decode_exchanged(offsets, priors):
    return cxcywh_to_xyxy(decode(offsets, priors, (0.2, 0.1)))


def decode_moves_of_the_image(offsets, priors):
    box = decode(offsets, priors)
    return cxcywh_to_xyxy(torch.cat((priors[:, :2] + offsets[:, :2] / 10, box[:, 2:]), dim=1))


def decode_without_exp(offsets, priors):
    box = decode(offsets, priors)
    return cxcywh_to_xyxy(torch.cat((box[:, :2], offsets[:, 2:] / 5 * priors[:, 2:]), dim=1))


def decode_whole_size(offsets, priors):
    cx, cy, w, h = decode(offsets, priors).unbind(-1)
    return torch.stack((cx - w, cy - h, cx + w, cy + h), dim=-1)


def decode_clamped(offsets, priors):
    return cxcywh_to_xyxy(decode(offsets, priors)).clamp(0, 1)


ANSWERS = {
    "check_encode_corners": (
        [encode_row_by_row, encode_with_library],
        [
            (encode_corners_as_they_are, "make centres and sizes"),
            (encode_without_variances, "variances are missing"),
            (encode_exchanged, "variances are exchanged"),
            (encode_backwards, "box and prior are exchanged"),
            (encode_in_own_widths, "not of the box"),
            (encode_plain_ratio, "logarithm is missing"),
        ],
    ),
    "check_decode_corners": (
        [decode_row_by_row, decode_with_library],
        [
            (decode_to_centres, "corners are wanted"),
            (decode_without_variances, "variances are missing"),
            (decode_exchanged, "variances are exchanged"),
            (decode_moves_of_the_image, "in prior sides"),
            (decode_without_exp, "take exp"),
            (decode_whole_size, "half of the size"),
            (decode_clamped, "over the border of the image"),
        ],
    ),
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
