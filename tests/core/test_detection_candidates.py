"""Candidates that are found without the scores of all priors: the same, to the last digit, as with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssdlib import detection
from ssdlib.coding import Activation
from ssdlib.detection import class_scores, detect, detect_plainly, may_pass

PRIORS = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.05


def sure_of_background(seed: int, classes: int, activation: Activation, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Predictions as a trained network's: 12 of 300 priors see an object, of which some see the same."""
    generator = torch.Generator().manual_seed(seed)
    offsets = 0.3 * torch.randn(3, 300, 4, generator=generator)
    logits = torch.randn(3, 300, classes, generator=generator)
    logits[..., 0] += 9
    if activation == "sigmoid":
        logits[..., 1:] -= 9
    seen = torch.randint(300, (3, 12), generator=generator)
    for image, priors in enumerate(seen):
        logits[image, priors, 1:] += 8 * torch.rand(12, classes - 1, generator=generator)
        offsets[image, priors[6:]] = offsets[image, priors[:1]]
    return offsets, scale * logits


@given(
    seed=st.integers(0, 2**31),
    classes=st.sampled_from([2, 3, 21, 90]),
    activation=st.sampled_from(["softmax", "sigmoid"]),
    min_score=st.sampled_from([0.001, 0.01, 0.3, 0.99, 1.0]),
    cap=st.sampled_from([0, 1, 3, 400]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    rounded=st.booleans(),
)
def test_as_with_all_scores_to_the_last_digit(
    seed: int, classes: int, activation: Activation, min_score: float, cap: int, dtype: torch.dtype, rounded: bool
) -> None:
    offsets, logits = (each.to(dtype) for each in sure_of_background(seed, classes, activation))
    if rounded:  # equal scores, which the order of labels and priors decides
        logits = logits.round()
    if seed % 3 == 0:
        logits[0, 5], logits[1, 7, 0], logits[2, 9, -1] = torch.nan, -torch.inf, torch.inf
    options: dict[str, Any] = {"min_score": min_score, "max_candidates": cap, "activation": activation, "top_k": 20}
    found = detect(offsets, logits, PRIORS, **options)
    expected = detect_plainly(offsets, logits, PRIORS, **options)
    for ours, plain in zip(found, expected, strict=True):
        assert all(torch.equal(ours[name], plain[name]) for name in ("boxes", "labels", "scores"))


def test_scores_of_hopeless_priors_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets, logits = sure_of_background(1, 21, "softmax")
    rows: list[int] = []

    def counted(few: Tensor, activation: Activation) -> Tensor:
        rows.append(few.numel() // 21)
        return class_scores(few, activation)

    monkeypatch.setattr(detection, "class_scores", counted)
    found = detect(offsets, logits, PRIORS)
    assert sum(len(each["labels"]) for each in found) > 10
    assert 12 < sum(rows) < 3 * 300 / 8


@given(
    st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=6),
    st.floats(0, 1),
    st.sampled_from(["softmax", "sigmoid"]),
)
def test_what_passes_may_pass(row: list[float], min_score: float, activation: Activation) -> None:
    logits = torch.tensor([[row]])
    best = class_scores(logits, activation)[..., 1:].amax()
    for least in (min_score, float(best)):  # just reached, too
        if best >= least:
            assert may_pass(logits, least, activation).all()


@pytest.mark.parametrize(("activation", "cliff"), [("softmax", 1.0), ("sigmoid", 2.0)])
def test_only_little_below_the_threshold_may_pass(activation: Activation, cliff: float) -> None:
    above, below = ([1.0, cliff + each] for each in (1e-3, -1e-3))  # of two classes, sigmoid(l_1 - l_0)
    threshold = float(torch.tensor(cliff - (activation == "softmax")).sigmoid())
    assert may_pass(torch.tensor([[above, below]]), threshold, activation).tolist() == [[True, False]]


def test_no_class_but_background_may_pass() -> None:
    assert not may_pass(torch.zeros(2, 5, 1), 0.0).any()
    assert may_pass(torch.zeros(2, 5, 2), 0.0).all()
    assert not may_pass(torch.full((2, 5, 2), torch.nan), 0.0).any()
