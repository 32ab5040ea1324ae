"""Answers to the code exercise of the chapter on training, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def by_torch(x, mean, variance, training):
    return F.batch_norm(x, mean, variance, training=training)


def by_layer(x, mean, variance, training):
    layer = nn.BatchNorm2d(x.shape[1], affine=False).train(training)
    layer.running_mean, layer.running_var = mean, variance
    return layer(x)


def in_numpy(x, mean, variance, training):
    x = x.numpy()
    if training:
        mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    else:
        mean, variance = mean.numpy(), variance.numpy()
    return (x - mean.reshape(1, -1, 1, 1)) / np.sqrt(variance.reshape(1, -1, 1, 1) + 1e-5)


def by_channel(x, mean, variance, training):
    result = torch.empty_like(x)
    for c in range(x.shape[1]):
        m, v = (x[:, c].mean(), x[:, c].var(correction=0)) if training else (mean[c], variance[c])
        result[:, c] = (x[:, c] - m) / (v + 1e-5).sqrt()
    return result


def variant(dim=(0, 2, 3), correction=0, root=torch.sqrt, epsilon=1e-5, mode=lambda training: training):
    def batch_norm(x, mean, variance, training):
        mean, variance = mean.view(1, -1, 1, 1), variance.view(1, -1, 1, 1)
        if mode(training):
            mean, variance = x.mean(dim, keepdim=True), x.var(dim, correction=correction, keepdim=True)
        return (x - mean) / root(variance + epsilon)

    return batch_norm


def beside_the_root(x, mean, variance, training):
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    return (x - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1).sqrt() + 1e-5)


def wrong_axis(x, mean, variance, training):
    return by_torch(x, mean, variance, True) if training else (x - mean) / (variance + 1e-5).sqrt()


def never_centred(x, mean, variance, training):
    return x / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


ANSWERS = {
    "check_batch_norm": (
        [by_torch, by_layer, in_numpy, by_channel, variant()],
        [
            (variant(mode=lambda training: True), "in evaluation, too"),
            (variant(mode=lambda training: False), "in training, too"),
            (variant(mode=lambda training: not training), "wrong way round"),
            (variant(dim=(0, 1, 2, 3)), "Do not average over the channels"),
            (variant(dim=0), "Average over the cells"),
            (variant(dim=(2, 3)), "Average over them as well"),
            (variant(correction=1), "not by one less"),
            (variant(root=lambda v: v), "square root"),
            (variant(epsilon=0.0), "has the variance 0"),
            (beside_the_root, "below the root: it is added"),
            (wrong_axis, "two channels in evaluation"),
            (never_centred, "one channel in training"),
        ],
    ),
}
