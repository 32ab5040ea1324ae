"""Answers to the code exercise of the chapter on OverFeat, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def interleaved(network, image):
    parts = [[network(image[None, :, down:, right:])[0] for right in (0, 4)] for down in (0, 4)]
    dense = torch.zeros(
        parts[0][0].shape[0],
        parts[0][0].shape[1] + parts[1][0].shape[1],
        parts[0][0].shape[2] + parts[0][1].shape[2],
    )
    for i in (0, 1):
        for j in (0, 1):
            dense[:, i::2, j::2] = parts[i][j]
    return dense


def place_by_place(network, image):
    rows, columns = (image.shape[1] - 16) // 4 + 1, (image.shape[2] - 16) // 4 + 1
    windows = [
        [network(image[None, :, 4 * y : 4 * y + 16, 4 * x : 4 * x + 16])[0, :, 0, 0] for x in range(columns)]
        for y in range(rows)
    ]
    return np.stack([np.stack(row, axis=-1) for row in windows], axis=1)


def in_blocks(network, image):
    rows = [torch.cat([network(image[None, :, d:, r:])[0] for r in (0, 4)], dim=2) for d in (0, 4)]
    return torch.cat(rows, dim=1)


def exchanged(network, image):
    a, b, c, d = (network(image[None, :, y:, x:])[0] for y in (0, 4) for x in (0, 4))
    dense = torch.zeros(len(a), a.shape[1] + d.shape[1], a.shape[2] + d.shape[2])
    dense[:, 0::2, 0::2] = a
    dense[:, 1::2, 0::2] = b
    dense[:, 0::2, 1::2] = c
    dense[:, 1::2, 1::2] = d
    return dense


def diagonal(network, image):
    a, d = network(image[None])[0], network(image[None, :, 4:, 4:])[0]
    dense = torch.zeros(len(a), a.shape[1] + d.shape[1], a.shape[2] + d.shape[2])
    dense[:, ::2, ::2] = a
    dense[:, 1::2, 1::2] = d
    return dense


def one_pass(network, image):
    return network(image[None])[0]


def repeated(network, image):
    rows, columns = (image.shape[1] - 16) // 4 + 1, (image.shape[2] - 16) // 4 + 1
    return F.interpolate(network(image[None]), scale_factor=2)[0, :, :rows, :columns]


ANSWERS = {
    "check_half_the_stride": (
        [interleaved, place_by_place],
        [
            (in_blocks, "side by side"),
            (exchanged, "rows and columns are exchanged"),
            (diagonal, "in one direction only"),
            (one_pass, "of one pass"),
            (repeated, "repeated, not computed"),
        ],
    ),
}
