from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import tensors

from ssdlib.family.pixel_metrics import IGNORE, class_ious, count_pixels, mean_iou, pixel_accuracy


def slow_ious(found: list[int], true: list[int], classes: int) -> list[float]:
    """Of each class: pixels in both sets / pixels in either set."""
    pairs = [(f, t) for f, t in zip(found, true, strict=True) if t != IGNORE]
    ious = []
    for c in range(classes):
        both = sum(f == c and t == c for f, t in pairs)
        either = sum(f == c or t == c for f, t in pairs)
        ious.append(both / either if either else math.nan)
    return ious


@given(data=st.data(), classes=st.integers(1, 4))
def test_measures_are_those_of_sets_of_pixels(data: st.DataObject, classes: int) -> None:
    images = data.draw(st.integers(1, 3))
    labels = st.integers(0, classes - 1)
    found = data.draw(tensors((images, 2, 3), labels, torch.int64))
    true = data.draw(tensors((images, 2, 3), labels | st.just(IGNORE), torch.int64))
    counts = sum((count_pixels(f, t, classes) for f, t in zip(found, true, strict=True)), torch.zeros(1).long())
    assert torch.equal(counts, count_pixels(found, true, classes))
    slow = slow_ious(found.flatten().tolist(), true.flatten().tolist(), classes)
    assert class_ious(counts).tolist() == pytest.approx(slow, nan_ok=True)
    there = [value for value in slow if not math.isnan(value)]
    assert mean_iou(counts) == pytest.approx(sum(there) / len(there) if there else math.nan, nan_ok=True)
    known = true != IGNORE
    share = (found == true)[known].double().mean().item()
    assert pixel_accuracy(counts) == pytest.approx(share, nan_ok=True)
    perfect = count_pixels(torch.where(known, true, 0), true, classes)
    assert not known.any() or mean_iou(perfect) == pixel_accuracy(perfect) == 1


def test_background_alone_is_accurate_and_finds_nothing() -> None:
    true = torch.zeros(10, 10, dtype=torch.int64)
    true[:2, :5] = 1
    counts = count_pixels(torch.zeros_like(true), true, 2)
    assert pixel_accuracy(counts) == 0.9
    assert mean_iou(counts) == pytest.approx(0.45)


def test_labels_that_cannot_be_are_refused() -> None:
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.2: 3\.\.3"):
        count_pixels(zeros + 3, zeros, 3)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.2: -1\.\.-1"):
        count_pixels(zeros, zeros - 1, 3)
    with pytest.raises(ValueError, match="differ in shape"):
        count_pixels(zeros, zeros[0], 3)
