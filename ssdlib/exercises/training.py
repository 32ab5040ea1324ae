"""Checkers for the chapter on training."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_batch_norm(answer: Answer) -> None:
    """Check `batch_norm(x, mean, variance, training)`: (N, C, H, W), batch normalisation without scale and shift."""
    # PyTorch's own moves the collected averages in training, where they are.
    check(answer, _norm_cases(), _NORM_MISTAKES, may_change=(1, 2))


def _norm_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)

    def batch(*shape: int) -> Tensor:
        return (8 * torch.rand(shape, generator=generator)).round() / 4

    one = torch.tensor([[[[1.0, 3.0]]]])
    two = torch.tensor([[[[1.0, 3.0]], [[10.0, 30.0]]]])  # 1 image, 2 channels, 1 x 2 cells
    even = torch.full((1, 1, 1, 2), 2.0)
    nearly = torch.tensor([[[[2.0, 2.0 + 2**-7]]]])  # the variance 1.5e-5
    mean, variance = torch.tensor([1.0, 12.0]), torch.tensor([4.0, 25.0])
    calls = [
        ("one channel in training", (one, mean[:1], variance[:1], True)),
        ("the same channel in evaluation", (one, mean[:1], variance[:1], False)),
        ("two channels in training", (two, mean, variance, True)),
        ("two channels in evaluation", (two, mean, variance, False)),
        ("two images in training", (batch(2, 2, 1, 3), mean, variance, True)),
        ("two images in evaluation", (batch(2, 2, 1, 3), mean, variance, False)),
        ("a batch of four images with maps of 5 x 5 cells in training", (batch(4, 3, 5, 5), *torch.ones(2, 3), True)),
        ("a channel that is the same everywhere, in training", (even, mean[:1], variance[:1], True)),
        ("a channel that is nearly the same everywhere, in training", (nearly, mean[:1], variance[:1], True)),
    ]
    return [Case(what, arguments, _normalised(*arguments)) for what, arguments in calls]


def _normalised(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    *,
    over: tuple[int, ...] = (0, 2, 3),
    unbiased: bool = False,
    root: float = 0.5,
    epsilon: float = 1e-5,
    below: bool = True,
) -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    if training:
        mean, variance = x.mean(dim=over, keepdim=True), x.var(dim=over, keepdim=True, unbiased=unbiased)
    else:
        mean, variance = mean[:, None, None], variance[:, None, None]
    return (x - mean) / ((variance + epsilon) ** root if below else variance**root + epsilon)


_NORM_MISTAKES = [
    Mistake(
        "this uses the batch in evaluation, too: there the collected averages are wanted.",
        lambda x, m, v, training: _normalised(x, m, v, True),
    ),
    Mistake(
        "this uses the collected averages in training, too: there those of the batch are wanted.",
        lambda x, m, v, training: _normalised(x, m, v, False),
    ),
    Mistake(
        "the two modes are the wrong way round.",
        lambda x, m, v, training: _normalised(x, m, v, not training),
    ),
    Mistake(
        "each channel has a mean and a variance of its own. Do not average over the channels.",
        lambda *a: _normalised(*a, over=(0, 1, 2, 3)),
    ),
    Mistake(
        "the cells of a channel share one mean and one variance. Average over the cells as well as over the images.",
        lambda *a: _normalised(*a, over=(0,)),
    ),
    Mistake(
        "the images of a batch share one mean and one variance. Average over them as well as over the cells.",
        lambda *a: _normalised(*a, over=(2, 3)),
    ),
    Mistake(
        "the sum of squares is divided by the number of values, not by one less (torch: `unbiased=False`).",
        lambda *a: _normalised(*a, unbiased=True),
    ),
    Mistake(
        "you divide by the variance. Its square root, the standard deviation, is wanted.",
        lambda *a: _normalised(*a, root=1.0),
    ),
    Mistake(
        "a channel that is the same everywhere has the variance 0. The small number below the root is for this case.",
        lambda *a: _normalised(*a, epsilon=0.0),
    ),
    Mistake(
        "the small number belongs below the root: it is added to the variance.",
        lambda *a: _normalised(*a, below=False),
    ),
]
