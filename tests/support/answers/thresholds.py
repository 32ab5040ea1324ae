"""Answers to the code exercise of the chapter on thresholds, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import math

import numpy as np
import torch


def loop(scores, right, objects, miss, false):
    best, least = math.inf, miss * objects
    for threshold in sorted(set(scores.tolist()), reverse=True):
        reported = scores >= threshold
        hits = int((reported & right).sum())
        cost = miss * (objects - hits) + false * (int(reported.sum()) - hits)
        if cost < least:
            best, least = threshold, cost
    return best


def in_numpy(scores, right, objects, miss, false):
    thresholds = np.concatenate(([np.inf], np.unique(scores.numpy())[::-1]))
    above = scores.numpy()[None] >= thresholds[:, None]
    hits = (above & right.numpy()).sum(1)
    cost = miss * (objects - hits) + false * (above & ~right.numpy()).sum(1)
    return thresholds[cost.argmin()]


def running_sums(scores, right, objects, miss, false):
    order = scores.argsort(descending=True)
    scores, right = scores[order], right[order].int()
    cost = miss * (objects - right.cumsum(0)) + false * (1 - right).cumsum(0)
    ends = torch.ones(len(scores), dtype=torch.bool)
    ends[:-1] = scores[:-1] != scores[1:]
    best, least = math.inf, miss * objects
    for threshold, price in zip(scores[ends].tolist(), cost[ends].tolist(), strict=True):
        if price < least:
            best, least = threshold, price
    return best


def swapped(scores, right, objects, miss, false):
    return loop(scores, right, objects, false, miss)


def always_something(scores, right, objects, miss, false):
    thresholds = sorted(set(scores.tolist()), reverse=True)

    def cost(threshold):
        hits = int(((scores >= threshold) & right).sum())
        return miss * (objects - hits) + false * (int((scores >= threshold).sum()) - hits)

    return min(thresholds, key=cost) if thresholds else math.inf


def lowest_of_equals(scores, right, objects, miss, false):
    best, least = math.inf, miss * objects
    for threshold in sorted(set(scores.tolist()), reverse=True):
        reported = scores >= threshold
        hits = int((reported & right).sum())
        cost = miss * (objects - hits) + false * (int(reported.sum()) - hits)
        if cost <= least:
            best, least = threshold, cost
    return best


def stops_at_the_first_rise(scores, right, objects, miss, false):
    best, least = math.inf, miss * objects
    for threshold in sorted(set(scores.tolist()), reverse=True):
        reported = scores >= threshold
        hits = int((reported & right).sum())
        cost = miss * (objects - hits) + false * (int(reported.sum()) - hits)
        if cost > least:
            break
        if cost < least:
            best, least = threshold, cost
    return best


def cuts_between_equals(scores, right, objects, miss, false):
    best, least, hits = math.inf, miss * objects, 0
    order = scores.argsort(descending=True, stable=True).tolist()
    for count, row in enumerate(order, start=1):
        hits += bool(right[row])
        cost = miss * (objects - hits) + false * (count - hits)
        if cost < least:
            best, least = float(scores[row]), cost
    return best


def misses_are_free(scores, right, objects, miss, false):
    return loop(scores, right, objects, 0, false)


def strictly_above(scores, right, objects, miss, false):
    best, least = math.inf, miss * objects
    for threshold in sorted(set(scores.tolist()), reverse=True):
        hits, reported = int((right & (scores > threshold)).sum()), int((scores > threshold).sum())
        cost = miss * (objects - hits) + false * (reported - hits)
        if cost < least:
            best, least = threshold, cost
    return best


def in_the_order_given(scores, right, objects, miss, false):
    best, least, hits = math.inf, miss * objects, 0
    for count, (score, correct) in enumerate(zip(scores.tolist(), right.tolist(), strict=True), start=1):
        hits += correct
        cost = miss * (objects - hits) + false * (count - hits)
        if cost < least:
            best, least = score, cost
    return best


def as_if_chances(scores, right, objects, miss, false):
    return false / (false + miss)


def one_half(scores, right, objects, miss, false):
    return 0.5


ANSWERS = {
    "check_best_threshold": (
        [loop, in_numpy, running_sums],
        [
            (swapped, "which price belongs to what is missed"),
            (always_something, "to report nothing is a choice"),
            (lowest_of_equals, "the highest counts"),
            (stops_at_the_first_rise, "Look at all thresholds"),
            (cuts_between_equals, "reported together"),
            (misses_are_free, "the objects that are missed cost something"),
            (strictly_above, ">=, not >"),
            (in_the_order_given, "Sort them first"),
            (as_if_chances, "scores that are chances"),
            (one_half, "two right boxes, and then a wrong one"),
        ],
    )
}
