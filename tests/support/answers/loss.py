"""Answers to the code exercises of the chapter on the loss, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ssdlib.loss import mine_hard_negatives


def pieces(predicted, true):
    total = 0.0
    for x in (predicted - true).flatten().tolist():
        total += 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5
    return total / max(len(true), 1)


def by_torch(predicted, true):
    return nn.SmoothL1Loss(reduction="sum")(predicted, true) / max(1, true.shape[0])


def averaged(predicted, true):
    return F.smooth_l1_loss(predicted, true) if len(true) else torch.tensor(0.0)


def averaged_without_care(predicted, true):
    return (F.smooth_l1_loss(predicted, true, reduction="none")).mean()


def no_positive_forgotten(predicted, true):
    return F.smooth_l1_loss(predicted, true, reduction="sum") / len(true)


def only_summed(predicted, true):
    return F.smooth_l1_loss(predicted, true, reduction="sum")


def absolute(predicted, true):
    return F.l1_loss(predicted, true, reduction="sum") / max(len(true), 1)


def squared(predicted, true):
    return F.mse_loss(predicted, true, reduction="sum") / 2 / max(len(true), 1)


def whole_square(predicted, true):
    x = (predicted - true).abs()
    return torch.where(x < 1, x * x, x - 0.5).sum() / max(len(true), 1)


def with_a_jump(predicted, true):
    x = (predicted - true).abs()
    return torch.where(x < 1, x * x / 2, x).sum() / max(len(true), 1)


def for_each(predicted, true):
    return F.smooth_l1_loss(predicted, true, reduction="none").sum(1)


def two_sorts(hardness, positive, ratio):
    hardness = hardness.masked_fill(positive, -1)
    rank = hardness.sort(dim=1, descending=True).indices.sort(dim=1).indices
    return (rank < ratio * positive.sum(1)[:, None]) & ~positive


def in_place(hardness, positive, ratio):
    mask = two_sorts(hardness, positive, ratio)
    hardness[positive] = -1
    return mask


def top_k(hardness, positive, ratio):
    mask = []
    for row, is_positive in zip(hardness.tolist(), positive.tolist(), strict=True):
        negatives = [k for k in range(len(row)) if not is_positive[k]]
        negatives.sort(key=lambda k, row=row: -row[k])
        mined = negatives[: ratio * sum(is_positive)]
        mask.append([int(k in mined) for k in range(len(row))])
    return mask


def one_sort(hardness, positive, ratio):
    hardness[positive] = -1
    return hardness.argsort(dim=1, descending=True) < ratio * positive.sum(1)[:, None]


def positives_enter(hardness, positive, ratio):
    rank = (-hardness).argsort(dim=1).argsort(dim=1)
    return rank < ratio * positive.sum(1)[:, None]


def positives_leave_late(hardness, positive, ratio):
    return positives_enter(hardness, positive, ratio) & ~positive


def positives_at_the_end(hardness, positive, ratio):
    hardness[positive] = -1
    return positives_enter(hardness, positive, ratio)


def always_the_same_number(hardness, positive, ratio):
    hardness[positive] = -1
    return ((-hardness).argsort(dim=1).argsort(dim=1) < ratio) & ~positive


def easiest(hardness, positive, ratio):
    hardness[positive] = 1000
    return (hardness.argsort(dim=1).argsort(dim=1) < ratio * positive.sum(1)[:, None]) & ~positive


def one_too_many(hardness, positive, ratio):
    hardness[positive] = -1
    rank = (-hardness).argsort(dim=1).argsort(dim=1)
    return (rank <= ratio * positive.sum(1)[:, None]) & ~positive


def whole_batch(hardness, positive, ratio):
    flat = hardness.masked_fill(positive, -1).flatten()
    rank = (-flat).argsort().argsort().reshape(hardness.shape)
    return (rank < ratio * positive.sum()) & ~positive


def chosen(hardness, positive, ratio):
    return positive | mine_hard_negatives(hardness, positive, ratio)


def minus_a_mask(hardness, positive, ratio):
    return mine_hard_negatives(hardness * (1 - positive), positive, ratio)


ANSWERS = {
    "check_localization_loss": (
        [pieces, by_torch],
        [
            (averaged, "4 times too small"),
            (averaged_without_care, "and by at least 1"),
            (no_positive_forgotten, "0 / 0"),
            (only_summed, "this is the sum"),
            (absolute, "this is L1"),
            (squared, "this is L2"),
            (whole_square, "without the half"),
            (with_a_jump, "do not meet"),
            (for_each, "came back"),
        ],
    ),
    "check_mine_by_rank": (
        [two_sorts, top_k, mine_hard_negatives],
        [
            (one_sort, "once more"),
            (in_place, "the right result, but hardness is"),
            (positives_enter, "lowest hardness before you sort"),
            (positives_leave_late, "too few"),
            (positives_at_the_end, "They must not be mined"),
            (always_the_same_number, "for each positive"),
            (easiest, "Sort downwards"),
            (one_too_many, "count from 0"),
            (whole_batch, "along the priors of one image"),
            (chosen, "Only the negatives"),
            (minus_a_mask, "with a bool tensor"),
        ],
    ),
}
