"""Answers to the code exercises of the chapter on matching, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch

from ssdlib.matching import best_priors


def by_loops(table, threshold):
    matched = [-1] * table.shape[1]
    table = table.tolist()
    for k in range(len(matched) if table else 0):
        best = max(range(len(table)), key=lambda m, k=k: table[m][k])
        if table[best][k] >= threshold:
            matched[k] = best
    pairs = sorted(((row[k], m, k) for m, row in enumerate(table) for k in range(len(row))), reverse=True)
    objects, priors = set(), set()
    for _, m, k in pairs:
        if m not in objects and k not in priors:
            matched[k] = m
            objects.add(m)
            priors.add(k)
    return matched


def with_library(table, threshold, steps=(2, 1)):
    matched = torch.full((table.shape[1],), -1)
    if len(table) == 0:
        return matched
    value, index = table.max(0)
    for step in steps:
        if step == 2:
            matched[value >= threshold] = index[value >= threshold]
        else:
            for m, k in enumerate(best_priors(table).tolist()):
                if k >= 0:
                    matched[k] = m
    return matched


def crosses_out_in_place(table, threshold):
    matched = with_library(table, threshold, steps=[2])
    for _ in range(min(table.shape)):
        j, i = divmod(int(table.argmax()), table.shape[1])
        matched[i] = j
        table[j, :] = table[:, i] = -1
    return matched


def last_one_stays(table, threshold):
    matched = with_library(table, threshold, steps=[2])
    for m in range(len(table)):
        matched[table[m].argmax()] = m
    return matched


def in_turn(table, threshold):
    matched = with_library(table, threshold, steps=[2])
    free = table.clone()
    for m in range(len(table)):
        k = free[m].argmax()
        if free[m, k] >= 0:
            matched[k] = m
            free[:, k] = -1
    return matched


def more_than_the_threshold(table, threshold):
    return with_library(table, threshold + 1e-6)


def second_step_only(table, threshold):
    return with_library(table, threshold, steps=[2])


def first_step_only(table, threshold):
    return with_library(table, threshold, steps=[1])


def second_step_last(table, threshold):
    return with_library(table, threshold, steps=[1, 2])


def for_each_object(table, threshold):
    return best_priors(table)


def forgot_the_empty_image(table, threshold):
    table.argmax(dim=0)
    return with_library(table, threshold)


def fixed_threshold(table, threshold):
    return with_library(table, 0.5)


ANSWERS = {
    "check_match_table": (
        [by_loops, with_library],
        [
            (last_one_stays, "the last one stayed"),
            (in_turn, "largest overlap of the whole table"),
            (more_than_the_threshold, ">=, not >"),
            (second_step_only, "step one is missing"),
            (first_step_only, "step two is missing"),
            (second_step_last, "Step one has the last word"),
            (for_each_object, "a prior for each object"),
            (forgot_the_empty_image, "no largest of nothing"),
            (fixed_threshold, "another threshold"),
            (crosses_out_in_place, "the right result, but table is"),
        ],
    ),
}
