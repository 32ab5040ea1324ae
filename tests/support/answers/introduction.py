"""Answers to the code exercise of the first chapter, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch


def by_mask(found, min_score):
    sure = found["scores"] >= min_score
    return {key: value[sure] for key, value in found.items()}


def by_loop(found, min_score):
    kept = {"boxes": [], "labels": [], "scores": []}
    for i, score in enumerate(found["scores"]):
        if score >= min_score:
            for key, rows in kept.items():
                rows.append(found[key][i].tolist())
    return kept


def into_the_same(found, min_score):
    sure = found["scores"] >= min_score
    for key in found:
        found[key] = found[key][sure]
    return found


def strictly(found, min_score):
    sure = found["scores"] > min_score
    return {key: value[sure] for key, value in found.items()}


def opposite(found, min_score):
    return {key: value[~(found["scores"] >= min_score)] for key, value in found.items()}


def scores_only(found, min_score):
    found["scores"] = found["scores"][found["scores"] >= min_score]
    return found


def without_labels(found, min_score):
    sure = found["scores"] >= min_score
    return {"boxes": found["boxes"][sure], "scores": found["scores"][sure]}


def first_ones(found, min_score):
    count = sum(found["scores"] >= min_score)
    return {key: value[:count] for key, value in found.items()}


def unchanged(found, min_score):
    return found


def a_number(found, min_score):
    return (found["scores"] >= min_score).sum()


def as_float_indices(found, min_score):
    sure = torch.nonzero(found["scores"] >= min_score).float()
    return {key: value[sure] for key, value in found.items()}


ANSWERS = {
    "check_keep_surest": (
        [by_mask, by_loop],
        [
            (strictly, ">=, not >"),
            (opposite, "these are the others"),
            (scores_only, "3 boxes, 3 labels and 2 scores"),
            (without_labels, "without 'labels'"),
            (first_ones, "not those of the high scores"),
            (unchanged, "nothing has been taken away"),
            (a_number, "no dictionary"),
            (as_float_indices, "raised IndexError"),
            (into_the_same, "the right result, but found is"),
        ],
    ),
}
