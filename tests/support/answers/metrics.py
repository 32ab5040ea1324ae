"""Answers to the code exercise of the chapter on evaluation, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import numpy as np
import torch

from ssdlib.metrics import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE


def loop(overlaps, difficult, threshold):
    taken, results = set(), []
    for row in overlaps:
        if len(row) == 0 or row.max() < threshold:
            results.append(FALSE_POSITIVE)
            continue
        best = int(row.argmax())
        if difficult[best]:
            results.append(IGNORED)
        elif best in taken:
            results.append(FALSE_POSITIVE)
        else:
            taken.add(best)
            results.append(TRUE_POSITIVE)
    return results


def in_numpy(overlaps, difficult, threshold):
    overlaps, difficult = overlaps.numpy(), difficult.numpy()
    if overlaps.size == 0:
        return np.full(len(overlaps), FALSE_POSITIVE)
    best = overlaps.argmax(axis=1)
    hit = overlaps.max(axis=1) >= threshold
    before = np.array([np.any(hit[:i] & (best[:i] == best[i])) for i in range(len(best))])
    result = np.where(hit & ~before, TRUE_POSITIVE, FALSE_POSITIVE)
    result[hit & difficult[best]] = IGNORED
    return result


def in_tensors(overlaps, difficult, threshold):
    padded = torch.cat((overlaps, torch.full((len(overlaps), 1), -1.0)), dim=1)
    best = padded.argmax(dim=1)
    hit = padded.amax(dim=1) >= threshold
    results = torch.zeros(len(overlaps), dtype=torch.int8)
    for j in range(overlaps.shape[1]):
        mine = (hit & (best == j)).nonzero().flatten()
        results[mine if difficult[j] else mine[:1]] = IGNORED if difficult[j] else TRUE_POSITIVE
    return results


def strict(overlaps, difficult, threshold):
    return loop(overlaps, difficult, threshold + 1e-6)


def duplicates_are_right(overlaps, difficult, threshold):
    return [r for row in overlaps for r in loop(row[None], difficult, threshold)]


def no_difficult(overlaps, difficult, threshold):
    return loop(overlaps, torch.zeros_like(difficult), threshold)


def difficult_is_wrong(overlaps, difficult, threshold):
    return [max(r, FALSE_POSITIVE) for r in loop(overlaps, difficult, threshold)]


def difficult_once(overlaps, difficult, threshold):
    once = loop(overlaps, torch.zeros_like(difficult), threshold)
    where = [int(row.argmax()) if len(row) else 0 for row in overlaps]
    return [IGNORED if r == TRUE_POSITIVE and difficult[j] else r for r, j in zip(once, where, strict=True)]


def difficult_removed(overlaps, difficult, threshold):
    return loop(overlaps[:, ~difficult], difficult[~difficult], threshold)


def next_free(overlaps, difficult, threshold):
    overlaps, results = overlaps.clone(), []
    for i in range(len(overlaps)):
        results += loop(overlaps[i : i + 1], difficult, threshold)
        if results[-1] == TRUE_POSITIVE:
            overlaps[:, overlaps[i].argmax()] = -1
    return results


def needs_objects(overlaps, difficult, threshold):
    return (
        [r for row in overlaps if row.argmax() >= 0 for r in [0]]
        if overlaps.shape[1] == 0
        else loop(overlaps, difficult, threshold)
    )


def true_and_false(overlaps, difficult, threshold):
    return [r == TRUE_POSITIVE for r in loop(overlaps, difficult, threshold)]


def only_the_matches(overlaps, difficult, threshold):
    return [r for r in loop(overlaps, difficult, threshold) if r != FALSE_POSITIVE]


ANSWERS = {
    "check_outcomes": (
        [loop, in_numpy, in_tensors],
        [
            (strict, "exactly the threshold is enough"),
            (duplicates_are_right, "counts once"),
            (no_difficult, "neither true nor false"),
            (difficult_is_wrong, "is no false positive"),
            (true_and_false, "is no false positive"),
            (difficult_once, "not only the first"),
            (difficult_removed, "take them out"),
            (next_free, "even if that one is taken"),
            (needs_objects, "no largest overlap"),
            (only_the_matches, "an overlap below the threshold"),
        ],
    ),
}
