"""Detection without questions to the device: as `ssdlib.detection.detect`, to the last digit, and in one graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_run import sample_images
from torch import Tensor, nn

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.detection import Detection, detect
from ssdlib.engine import inference, processes
from ssdlib.engine.device_detection import PaddedDetections, detect_later, detect_padded
from ssdlib.engine.inference import detect_dataset
from ssdlib.priors import PriorRecipe, make_priors
from ssdlib.zoo.checkpoint import demo_model

RECIPE = PriorRecipe("test", 64, (4, 2, 1), (0.25, 0.45, 0.7, 0.9), ((1.0, 2.0, 0.5), (1.0, "extra"), (1.0,)))
PRIORS = make_priors(RECIPE)  # (57, 4)


def same(ours: list[Detection], theirs: list[Detection]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) and a[name].dtype is b[name].dtype for name in b)


def unpadded(found: PaddedDetections) -> list[Detection]:
    columns = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores}
    for i, count in enumerate(found.counts.tolist()):
        assert not any(column[i, count:].any() for column in columns.values())  # nothing stands in the rest
    return [{name: column[i, :count] for name, column in columns.items()} for i, count in enumerate(found.counts)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Predictions with ties, crowds, nothing at all, NaN and infinite numbers; and options of all sizes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    images, priors = draw(st.sampled_from([0, 1, 2, 3])), draw(st.sampled_from([0, 1, 57, 57, 57]))
    offsets = torch.randn(images, priors, 4, generator=generator) * draw(st.sampled_from([0, 0.01, 1, 10]))
    logits = torch.randn(images, priors, draw(st.sampled_from([1, 2, 3, 6])), generator=generator)
    logits = logits * draw(st.sampled_from([0, 1, 4]))
    if draw(st.booleans()):  # many equal scores and equal boxes
        offsets, logits = offsets.round(), logits.round()
    if draw(st.booleans()) and images and priors == 57:
        logits[0, 3:5], offsets[0, 5], offsets[0, 6:9] = torch.nan, torch.nan, torch.inf
        offsets[0, 7:9, 2:] = torch.tensor([1e38, -torch.inf])
    options = {
        "min_score": draw(st.sampled_from([0.0, 0.01, 0.25, 0.5, 1.0])),
        "max_overlap": draw(st.sampled_from([0.0, 0.3, 0.45, 0.5, 1.0])),
        "top_k": draw(st.sampled_from([0, 1, 5, 20, 200])),
        "max_candidates": draw(st.sampled_from([0, 1, 5, 7, 30, 56, 400])),
        "activation": draw(st.sampled_from(["softmax", "sigmoid"])),
    }
    return offsets, logits, options


@given(cases(), st.sampled_from([0, 1, 10, 56, 100, 1024]), st.sampled_from([1, 2, 4, 16]))
def test_the_same_to_the_last_digit(case: tuple[Tensor, Tensor, dict[str, Any]], shortlist: int, rounds: int):
    offsets, logits, options = case
    priors = PRIORS[: offsets.shape[1]]
    expected = detect(offsets, logits, priors, **options)
    whole = detect_padded(offsets, logits, priors, **options, shortlist=None)
    assert whole.certain.all()
    same(unpadded(whole), expected)
    short = detect_padded(offsets, logits, priors, **options, shortlist=shortlist, rounds=rounds)
    for certain, ours, theirs in zip(short.certain.tolist(), unpadded(short), expected, strict=True):
        if certain:
            same([ours], [theirs])
    same(detect_later(offsets, logits, priors, **options, shortlist=shortlist, rounds=rounds)(), expected)


def chain(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in a row, each of which overlaps its neighbours too much, and falls or stays as its better one does not."""
    left = torch.arange(count) * 0.3 / count
    corners = torch.stack((left, torch.zeros(count), left + 0.9 / count, torch.ones(count)), dim=1)
    centres = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1)
    logits = torch.stack((torch.zeros(count), torch.linspace(4, 1, count)), dim=1)
    return torch.zeros(1, count, 4), logits[None], centres


def test_what_a_few_rounds_do_not_decide_is_not_certain():
    """Every other box of the chain stays, and to know that of the last one takes as many rounds as there are boxes."""
    offsets, logits, priors = chain(30)
    (expected,) = detect(offsets, logits, priors)
    assert len(expected["labels"]) == 15
    few, many = (detect_padded(offsets, logits, priors, rounds=rounds) for rounds in (16, 31))
    assert (few.certain.tolist(), many.certain.tolist()) == ([False], [True])
    same(unpadded(many), [expected])
    same(detect_later(offsets, logits, priors, rounds=16)(), [expected])


def test_a_shortlist_is_enough_where_it_gives_all_that_are_wanted_or_there_are_no_more():
    generator = torch.Generator().manual_seed(1)
    offsets, logits = torch.randn(1, 57, 4, generator=generator), torch.randn(1, 57, 3, generator=generator)
    for top_k, length, certain in ((5, 30, True), (100, 30, False), (200, 114, True), (200, 113, False)):
        assert detect_padded(offsets, logits, PRIORS, 0.0, 1.0, top_k, shortlist=length).certain.tolist() == [certain]
    logits[..., 0] += 20
    logits[0, 7, 2] += 40
    assert detect_padded(offsets, logits, PRIORS, shortlist=2).certain.tolist() == [True]


class _Detect(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, offsets: Tensor, logits: Tensor, priors: Tensor) -> tuple[Tensor, ...]:
        return tuple(detect_padded(offsets, logits, priors, **self.options))


@pytest.mark.parametrize(
    "options", [{}, {"shortlist": 40, "top_k": 9}, {"shortlist": None, "max_candidates": 20}], ids=str
)
def test_one_graph_without_a_question(options: dict[str, Any]):
    generator = torch.Generator().manual_seed(2)
    arguments = torch.randn(2, 57, 4, generator=generator), torch.randn(2, 57, 4, generator=generator), PRIORS
    wanted = _Detect(**options)(*arguments)
    assert wanted[-1].all()
    usual = {name: value for name, value in options.items() if name != "shortlist"}
    same(unpadded(PaddedDetections(*wanted)), detect(*arguments, **usual))
    whole = torch.compile(_Detect(**options), fullgraph=True, backend="eager")(*arguments)
    exported = torch.export.export(_Detect(**options), arguments).module()(*arguments)
    for ours in (whole, exported):
        assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))
    shapes = _Detect(**options)(*(each.to("meta") for each in arguments))
    assert [each.shape for each in shapes] == [each.shape for each in wanted]


def test_ssd300_untrained_and_crowded():
    """Nearly every score passes; and a crowd on one spot, of which few boxes stay."""
    priors = make_priors(PriorRecipe("grid", 128, (16, 8), (0.2, 0.4, 0.6), ((1.0, 2.0, 0.5),) * 2))
    generator = torch.Generator().manual_seed(3)
    offsets = 0.1 * torch.randn(2, len(priors), 4, generator=generator)
    logits = 0.1 * torch.randn(2, len(priors), 5, generator=generator)
    corners = cxcywh_to_xyxy(priors)
    offsets[1] = torch.cat(((0.5 - priors[:, :2]) / priors[:, 2:] / 0.1, torch.log(0.4 / priors[:, 2:]) / 0.2), dim=1)
    assert len(corners) > 900
    found = detect_padded(offsets, logits, priors)
    assert found.certain.tolist() == [True, False]
    same(detect_later(offsets, logits, priors)(), detect(offsets, logits, priors))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="detect needs offsets"):
        detect_later(torch.zeros(1, 57, 4), torch.zeros(1, 56, 3), PRIORS)


# ---- detection on a data set -----------------------------------------------------------------------------------


def test_a_data_set_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """The same detections; the next batch is begun before those of the last are looked at."""
    sample = sample_images()
    options: dict[str, Any] = {"batch_size": 3, "progress": False, "min_score": 0.3}
    expected = detect_dataset(demo_model(), sample, **options)
    order: list[str] = []
    real = inference.detect_later

    def noted(*args: Any, **kwargs: Any) -> Any:
        order.append("begun")
        result = real(*args, **kwargs)
        return lambda: (order.append("read"), result())[1]

    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))
    monkeypatch.setattr(inference, "detect_later", noted)
    monkeypatch.setattr(inference, "detect", None)
    found = detect_dataset(demo_model(), sample, **options)
    assert order == ["begun", "begun", "read", "begun", "read", "read"]
    same(found.detections, expected.detections)
    assert sum(len(each["labels"]) for each in found.detections) >= 10


@pytest.mark.parametrize("part", ["class_head", "offset_head"])
def test_damaged_weights_are_not_evaluated(part: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))
    model = demo_model()
    with torch.no_grad():
        getattr(model, part).convolutions[2].bias[1] = torch.inf
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        detect_dataset(model, sample_images(2), progress=False)


def test_a_least_score_that_nothing_can_have_is_refused():
    with pytest.raises(ValueError, match="min_score is a score, at most 1, got 2"):
        detect_padded(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), torch.rand(3, 4), min_score=2)
