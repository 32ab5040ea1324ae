"""Answers to the code exercise of the chapter on detections, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch
import torchvision

from ssdlib.boxes import iou


def by_round(boxes, scores, max_overlap):
    scores, rest, taken = scores.clone(), list(range(len(boxes))), []
    while rest:
        best = max(rest, key=lambda k: float(scores[k]))
        rest.remove(best)
        taken.append((best, float(scores[best])))
        for k in rest:
            overlap = iou(boxes[best][None], boxes[k][None])[0, 0]
            if overlap > max_overlap:
                scores[k] *= 1 - overlap
    return taken


def with_tensors(boxes, scores, max_overlap):
    scores, rows = scores.clone(), []
    waiting = torch.ones(len(scores), dtype=torch.bool)
    for _ in range(len(scores)):
        best = scores.masked_fill(~waiting, -1).argmax()
        rows.append(torch.stack((best.float(), scores[best])))
        waiting[best] = False
        overlap = iou(boxes[best][None], boxes)[0]
        scores = torch.where(waiting & (overlap > max_overlap), scores * (1 - overlap), scores)
    return torch.stack(rows) if rows else torch.zeros(0, 2)


def variant(factor=lambda o: 1 - o, passes=lambda o, limit: o > limit, resort=True, shown="lowered", rounds=99):
    def soft_nms(boxes, scores, max_overlap):
        now, left, taken = scores.clone(), scores.argsort(descending=True).tolist(), []
        while left:
            if resort:
                left.sort(key=lambda k: -float(now[k]))
            best = left.pop(0)
            taken.append((best, float((now if shown == "lowered" else scores)[best])))
            for k in left if len(taken) <= rounds else []:
                overlap = float(iou(boxes[[best]], boxes[[k]]))
                if passes(overlap, max_overlap):
                    now[k] = now[k] * factor(overlap)
        return taken

    return soft_nms


def hard(boxes, scores, max_overlap):
    kept = torchvision.ops.nms(boxes, scores, max_overlap)
    return [[int(k), float(scores[k])] for k in kept]


def places(boxes, scores, max_overlap):
    order = scores.argsort(descending=True)
    return by_round(boxes[order], scores[order], max_overlap)


def two_lists(boxes, scores, max_overlap):
    return list(zip(*by_round(boxes, scores, max_overlap), strict=True))


def changes_what_it_is_given(boxes, scores, max_overlap):
    result = by_round(boxes, scores, max_overlap)
    scores.zero_()
    return result


ANSWERS = {
    "check_soft_nms": (
        [by_round, with_tensors, variant()],
        [
            (changes_what_it_is_given, "the right result, but scores is"),
            (variant(factor=lambda o: o), "Multiply by 1 - IoU"),
            (variant(resort=False), "anew in each round"),
            (variant(passes=lambda o, limit: True), "keep their scores"),
            (variant(passes=lambda o, limit: o >= limit), "Equal is not more"),
            (variant(rounds=1), "not only the first"),
            (variant(shown="first"), "with its lowered score"),
            (hard, "nobody is dropped"),
            (places, "places in a sorted list"),
            (two_lists, "came back: [[0, 1], [0.75, 0.5]]"),
            (variant(factor=lambda o: 0.5), "a duplicate"),
        ],
    ),
}
