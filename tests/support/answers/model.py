"""Answers to the code exercise of the chapter on the network, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def by_gradient(convolution, side):
    x = torch.rand(1, convolution.in_channels, side, side) + 0.1
    convolution(x).sum().backward()
    return (convolution.weight.grad != 0).any(dim=0).any(dim=0)


def by_loop(convolution, side):
    high, wide = convolution.kernel_size
    rows = []
    for i in range(high):
        rows.append([])
        for j in range(wide):
            weight = torch.zeros(1, convolution.in_channels, high, wide)
            weight[:, :, i, j] = 1
            x = torch.ones(1, convolution.in_channels, side, side)
            options = {"stride": convolution.stride, "padding": convolution.padding, "dilation": convolution.dilation}
            rows[-1].append(bool(F.conv2d(x, weight, **options).any()))
    return rows


def by_unfolding(convolution, side):
    options = {"stride": convolution.stride, "padding": convolution.padding, "dilation": convolution.dilation}
    columns = F.unfold(torch.ones(1, 1, side, side), convolution.kernel_size, **options)  # (1, k * k, places)
    return columns[0].amax(dim=1).reshape(convolution.kernel_size).int()


def empty_map(convolution, side):
    convolution(torch.zeros(1, convolution.in_channels, side, side)).sum().backward()
    return (convolution.weight.grad != 0).any(dim=0).any(dim=0)


def whole_gradient(convolution, side):
    convolution(torch.rand(1, convolution.in_channels, side, side) + 0.1).sum().backward()
    return convolution.weight.grad != 0


def weights(convolution, side):
    return (convolution.weight.abs() > 0).any(0).any(0)


def unused(convolution, side):
    return ~by_gradient(convolution, side)


def everything(convolution, side):
    return torch.ones(*convolution.kernel_size)


def as_if_dense(convolution, side):
    columns = F.unfold(
        torch.ones(1, 1, side, side), convolution.kernel_size, 1, convolution.padding, convolution.stride
    )
    return columns[0].amax(dim=1).reshape(convolution.kernel_size)


def as_if_without_stride(convolution, side):
    columns = F.unfold(torch.ones(1, 1, side, side), convolution.kernel_size, convolution.dilation, convolution.padding)
    return columns[0].amax(dim=1).reshape(convolution.kernel_size)


def square_kernels_only(convolution, side):
    return by_gradient(convolution, side)[:, -3:][:3, :3].expand(3, 3)


def count(convolution, side):
    return by_gradient(convolution, side).sum()


ANSWERS = {
    "check_positions_in_use": (
        [by_gradient, by_loop, by_unfolding],
        [
            (empty_map, "a map of zeros"),
            (whole_gradient, "a value for each weight"),
            (weights, "weights themselves do not tell"),
            (unused, "the other way round"),
            (everything, "at some positions it never meets a cell"),
            (as_if_dense, "several cells apart"),
            (as_if_without_stride, "not put on every cell"),
            (square_kernels_only, "a kernel of one row"),
            (count, "of shape (3, 3)"),
        ],
    ),
}
