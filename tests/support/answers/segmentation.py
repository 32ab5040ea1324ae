"""Answers to the code exercise on the mean IoU, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch


def by_loops(found, true, classes):
    ious = []
    for c in range(classes):
        both = either = 0
        for f, t in zip(found.flatten().tolist(), true.flatten().tolist(), strict=True):
            if t != 255:
                both += f == c and t == c
                either += f == c or t == c
        if either:
            ious.append(both / either)
    return sum(ious) / len(ious)


def by_counts(found, true, classes):
    known = true != 255
    counts = torch.bincount(true[known] * classes + found[known], minlength=classes**2).view(classes, classes)
    right = counts.diagonal()
    return (right / (counts.sum(0) + counts.sum(1) - right)).nanmean()


def absent_as_zero(found, true, classes):
    known = true != 255
    f, t = found[known], true[known]
    return sum(((f == c) & (t == c)).sum() / ((f == c) | (t == c)).sum().clamp(min=1) for c in range(classes)) / classes


def absent_as_one(found, true, classes):
    known = true != 255
    f, t = found[known], true[known]
    ious = [
        ((f == c) & (t == c)).sum() / ((f == c) | (t == c)).sum() if ((f == c) | (t == c)).any() else torch.tensor(1.0)
        for c in range(classes)
    ]
    return sum(ious) / classes


def void_counts(found, true, classes):
    unions = [((found == c) | (true == c)).sum() for c in range(classes)]
    shared = [((found == c) & (true == c)).sum() for c in range(classes)]
    ious = [s / u for s, u in zip(shared, unions, strict=True) if u]
    return sum(ious) / len(ious)


def accuracy(found, true, classes):
    known = true != 255
    return (found[known] == true[known]).float().mean()


def recall(found, true, classes):
    there = [c for c in range(classes) if (true == c).any()]
    return sum((found[true == c] == c).float().mean() for c in there) / len(there)


def only_true_classes(found, true, classes):
    known = true != 255
    f, t = found[known], true[known]
    ious = [((f == c) & (t == c)).sum() / ((f == c) | (t == c)).sum() for c in range(classes) if (t == c).any()]
    return sum(ious) / len(ious)


ANSWERS = {
    "check_mean_iou": (
        [by_loops, by_counts],
        [
            (absent_as_zero, "leave it out"),
            (absent_as_one, "not a perfect one"),
            (void_counts, "whatever was found there"),
            (accuracy, "share of right pixels"),
            (recall, "divide by the union"),
            (only_true_classes, "which counts"),
        ],
    ),
}
