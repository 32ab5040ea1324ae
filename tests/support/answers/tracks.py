"""Answers to the exercise of the chapter on tracks."""

from dataclasses import replace

import torch


def sides(tracked, x):
    side, right, left = {}, 0, 0
    for found, numbers in tracked:
        middles = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
        for number, where in zip(numbers.tolist(), (middles >= x).tolist(), strict=True):
            before = side.get(number, where)
            right += where and not before
            left += before and not where
            side[number] = where
    return right, left


def by_ways(tracked, x):
    numbers = torch.cat([n for _, n in tracked]) if tracked else torch.zeros(0)
    middles = torch.cat([f.boxes[:, ::2].mean(1) for f, _ in tracked]) if tracked else torch.zeros(0)
    steps = [(middles[numbers == n] > x).int().diff() for n in numbers.unique()]
    return torch.tensor([sum(int((s == way).sum()) for s in steps) for way in (1, -1)])


def swapped(tracked, x):
    return sides(tracked, x)[::-1]


def every_frame(tracked, x):
    right = left = 0
    for found, _ in tracked:
        for box in found.boxes:
            if (box[0] + box[2]) / 2 >= x:
                right += 1
            else:
                left += 1
    return right, left


def left_edges(tracked, x):
    return by_ways(_moved(tracked, -10), x)


def right_edges(tracked, x):
    return by_ways(_moved(tracked, 10), x)


def _moved(tracked, step):
    return [(replace(found, boxes=found.boxes + step), numbers) for found, numbers in tracked]


def by_place(tracked, x):
    return sides([(found, torch.arange(len(numbers))) for found, numbers in tracked], x)


def only_the_last_frame(tracked, x):
    right = left = 0
    before = {}
    for found, numbers in tracked:
        now = dict(zip(numbers.tolist(), (found.boxes[:, ::2].mean(1) >= x).tolist(), strict=True))
        right += sum(now[n] and not before[n] for n in now.keys() & before.keys())
        left += sum(before[n] and not now[n] for n in now.keys() & before.keys())
        before = now
    return right, left


def first_and_last(tracked, x):
    ways = {}
    for found, numbers in tracked:
        for number, where in zip(numbers.tolist(), (found.boxes[:, ::2].mean(1) >= x).tolist(), strict=True):
            ways.setdefault(number, []).append(where)
    return sum(w[-1] > w[0] for w in ways.values()), sum(w[-1] < w[0] for w in ways.values())


ANSWERS = {
    "check_crossings": (
        [sides, by_ways],
        [
            (swapped, "first those to the right"),
            (every_frame, "changes its side"),
            (left_edges, "not its left edge"),
            (right_edges, "not its right edge"),
            (by_place, "told by the numbers"),
            (only_the_last_frame, "Remember its side"),
            (first_and_last, "there and back"),
            (lambda tracked, x: 1, "one that goes to the right"),
        ],
    )
}
