"""Answers to the code exercises of the chapter on boxes, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.ops

from ssdlib.boxes import area, iou, xyxy_to_cxcywh


def loop(a, b):
    values = []
    for (x0, y0, x1, y1), (u0, v0, u1, v1) in zip(a.tolist(), b.tolist(), strict=True):
        shared = max(min(x1, u1) - max(x0, u0), 0) * max(min(y1, v1) - max(y0, v0), 0)
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
        values.append(shared / union if union else 0)
    return values


def in_numpy(a, b):
    a, b = a.numpy(), b.numpy()
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides[:, 0] * sides[:, 1]
    union = area(torch.from_numpy(a)).numpy() + area(torch.from_numpy(b)).numpy() - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def diagonal_of_table(a, b):
    return iou(a, b).diag()


def one_by_one(a, b):
    return [float(iou(a[i : i + 1], b[i : i + 1])) for i in range(len(a))]


def squeezed_in_place(a, b):
    result = torch.tensor(loop(a, b))
    a.clamp_(0, 1)
    return result


def lengths(a, b):
    return torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])


def not_limited(a, b):
    shared = lengths(a, b)[:, 0] * lengths(a, b)[:, 1]
    return torch.nan_to_num(shared / (area(a) + area(b) - shared))


def product_limited(a, b):
    shared = (lengths(a, b)[:, 0] * lengths(a, b)[:, 1]).clamp(min=0)
    return torch.nan_to_num(shared / (area(a) + area(b) - shared))


def union_too_large(a, b):
    shared = lengths(a, b).clamp(min=0).prod(1)
    return torch.nan_to_num(shared / (area(a) + area(b)))


def with_epsilon(a, b):
    shared = lengths(a, b).clamp(min=0).prod(1)
    return shared / (area(a) + area(b) - shared + 1e-5)


def not_a_number(a, b):
    return torchvision.ops.box_iou(a, b).diagonal()


def whole_table(a, b):
    return iou(a, b)


def other_format(a, b):
    return iou(xyxy_to_cxcywh(a), xyxy_to_cxcywh(b)).diagonal()


def misread(a, b):
    return torchvision.ops.box_iou(*(torchvision.ops.box_convert(x, "cxcywh", "xyxy") for x in (a, b))).diag()


ANSWERS = {
    "check_iou_of_partners": (
        [loop, in_numpy, one_by_one],
        [
            (diagonal_of_table, "made a tensor of shape (500, 500"),
            (diagonal_of_table, "the diagonal of a table"),
            (squeezed_in_place, "the right result, but a is"),
            (not_limited, "before you multiply"),
            (product_limited, "minus times minus"),
            (union_too_large, "subtract it once"),
            (with_epsilon, "a case of its own"),
            (not_a_number, "torch.where"),
            (whole_table, "whole table"),
            (other_format, "Do not convert them"),
            (misread, "centre and size"),
        ],
    ),
}
