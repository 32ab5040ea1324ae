"""How good a class for every pixel is: counts of pixels, and the measures that are made of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

IGNORE = 255
"""The label of pixels that nobody could name: they teach nothing and are not counted. VOC calls them "void"."""


def count_pixels(found: Tensor, true: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64: at row t and column f, the pixels of class t that were found to be f.

    Args:
        found, true: labels of the same shape, below num_classes; pixels that are `IGNORE` in `true` are left out.
        num_classes: C, background counted.

    Raises:
        ValueError: if the shapes differ or a label is out of range.
    """
    if found.shape != true.shape:
        raise ValueError(f"found and true labels differ in shape: {tuple(found.shape)}, {tuple(true.shape)}")
    known = true != IGNORE
    found, true = found[known].long(), true[known].long()
    for labels in (found, true):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(f"labels must be in 0..{num_classes - 1}: {int(labels.min())}..{int(labels.max())}")
    return torch.bincount(true * num_classes + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def pixel_accuracy(counts: Tensor) -> float:
    """The share of pixels whose class is right, of the counts (C, C) of all images; nan if there is no pixel."""
    return int(counts.trace()) / int(counts.sum()) if counts.sum() else math.nan


def class_ious(counts: Tensor) -> Tensor:
    """(C,) float64, of each class: right pixels / (right + missed + wrongly claimed); nan where there is none of it."""
    right = counts.diagonal().double()
    return right / (counts.sum(dim=0) + counts.sum(dim=1) - right)


def mean_iou(counts: Tensor) -> float:
    """The mean IoU of the classes that occur, background among them: the measure of VOC's segmentation task.

    Source: Everingham et al., The Pascal Visual Object Classes Challenge: A Retrospective (2015).
    """
    return float(class_ious(counts).nanmean())
