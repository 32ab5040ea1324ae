"""The loss without questions to the device: as `ssdlib.loss`, in one graph, and with what the host has to do before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import targets as target_strategy
from torch import Tensor, nn

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.engine.device_loss import PaddedTargets, device_sums, match_padded, matched_sums, pad_targets
from ssdlib.engine.processes import shared_losses
from ssdlib.loss import multibox_sums
from ssdlib.matching import UNMATCHED, match
from ssdlib.model import TINY, ssd_tiny
from ssdlib.priors import SSD300_VOC, PriorRecipe, make_priors
from ssdlib.training import ssd_losses

CLASSES = 4
CPU = torch.device("cpu")
FEW = make_priors(PriorRecipe("test", 64, (4, 2, 1), (0.25, 0.45, 0.7, 0.9), ((1.0, "extra", 2.0, 0.5),) * 3))
EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def predictions(seed: int, images: int, priors: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = 3 * torch.randn(images, priors, 4, generator=generator)
    return offsets.requires_grad_(), (2 * torch.randn(images, priors, CLASSES, generator=generator)).requires_grad_()


def scene(seed: int, objects: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, objects, 2, generator=generator).unbind()
    boxes = torch.cat((0.7 * corner, 0.7 * corner + 0.02 + 0.28 * size), dim=1)
    return {"boxes": boxes, "labels": torch.randint(1, CLASSES, (objects,), generator=generator)}


def compare(seed: int, targets: list[dict[str, Any]], priors: Tensor, **options: Any) -> None:
    """Values and gradients of both losses."""
    found = []
    for padded in (False, True):
        offsets, logits = predictions(seed, len(targets), len(priors))
        given_targets: Any = pad_targets(targets, CLASSES, CPU) if padded else targets
        sums = (device_sums if padded else multibox_sums)(offsets, logits, given_targets, priors, **options)
        (sums.localization + 2 * sums.confidence).backward()
        found.append([*sums, offsets.grad, logits.grad])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**31), st.lists(target_strategy(CLASSES), min_size=1, max_size=3), st.sampled_from((0, 1, 3)))
def test_the_same_loss_and_gradients(seed: int, targets: list[dict[str, Any]], negatives: int):
    compare(seed, targets, FEW, negatives_per_positive=negatives)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("recipe", [TINY, SSD300_VOC], ids=lambda recipe: recipe.name)
def test_the_same_on_all_priors(recipe: PriorRecipe, activation: str):
    targets = [scene(1, 3), EMPTY, scene(2, 30), scene(3, 1)]
    compare(5, targets, make_priors(recipe), activation=activation, threshold=0.4, variances=(0.2, 0.3))


@given(st.lists(target_strategy(CLASSES), min_size=1, max_size=3), st.floats(0.1, 0.9))
def test_the_same_match(targets: list[dict[str, Any]], threshold: float):
    ours = match_padded(pad_targets(targets, CLASSES, CPU), FEW, threshold)
    wanted = [match(target["boxes"].reshape(-1, 4), FEW, threshold) for target in targets]
    assert ours.tolist() == torch.stack(wanted).tolist()


def test_ties_and_objects_that_share_their_best_prior():
    """Equal objects take the equal priors in order; the third that wants a prior gets its next one; none is lost."""
    corners = cxcywh_to_xyxy(FEW)
    for boxes in (corners[[7] * 5], corners[[0, 0, 1, 1, 2]], torch.tensor([[0.5, 0.5, 0.500001, 0.500001]] * 3)):
        targets = [{"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}]
        ours = match_padded(pad_targets(targets, CLASSES, CPU), FEW)[0]
        assert ours.tolist() == match(boxes, FEW).tolist()
        assert set(ours.tolist()) - {UNMATCHED} == set(range(len(boxes)))


def test_more_objects_than_priors():
    boxes = scene(4, 20)
    few = FEW[:6]
    ours = match_padded(pad_targets([boxes], CLASSES, CPU), few)[0]
    assert ours.tolist() == match(boxes["boxes"], few).tolist()


def test_room_and_what_the_host_refuses():
    padded = pad_targets([scene(1, 9), EMPTY], CLASSES, CPU)
    assert padded.boxes.shape == (2, 16, 4)
    assert (padded.labels > 0).sum(dim=1).tolist() == [9, 0]
    assert pad_targets([EMPTY], CLASSES, CPU).labels.shape == (1, 8)
    bad = {"boxes": torch.tensor([[0.5, 0.5, 0.4, 0.6]]), "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match="image 1 of the batch: empty, swapped or not finite box"):
        pad_targets([EMPTY, bad], CLASSES, CPU)
    with pytest.raises(ValueError, match=r"label 4 is not one of 1\.\.3"):
        pad_targets([{**scene(1, 1), "labels": torch.tensor([4])}], CLASSES, CPU)


def test_thousands_of_objects():
    """The key of a pair has room for the last object's number beside an overlap of exactly 1."""
    corners = cxcywh_to_xyxy(FEW[:1]).expand(3000, 4)
    crowd = {"boxes": corners, "labels": torch.ones(3000, dtype=torch.int64)}
    ours = match_padded(pad_targets([crowd], CLASSES, CPU), FEW)[0]
    assert ours.tolist() == match(corners, FEW).tolist()
    more = {"boxes": corners[:1].expand(8193, 4), "labels": torch.ones(8193, dtype=torch.int64)}
    with pytest.raises(ValueError, match="image 1 of the batch has 8193 objects; there is room for 8192"):
        pad_targets([EMPTY, more], CLASSES, CPU)


class _Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("priors", FEW)  # PyTorch 2.6 exports no network that reads a global

    def forward(self, offsets: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(device_sums(offsets, logits, PaddedTargets(boxes, labels), self.priors))


def test_one_graph_without_a_question():
    """Whatever asks the device for a number would break the graph, and be refused."""
    arguments = (*predictions(3, 2, len(FEW)), *pad_targets([scene(1, 5), EMPTY], CLASSES, CPU))
    wanted = _Loss()(*arguments)
    whole = torch.compile(_Loss(), fullgraph=True, backend="eager")(*arguments)
    exported = torch.export.export(_Loss(), arguments).module()(*arguments)
    for ours in (whole, exported):
        for a, b in zip(ours, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_the_part_of_fixed_shapes_is_one_graph_for_any_number_of_objects():
    """Compiled once: not anew for another room."""
    compilations = 0

    def counted(graph: Any, _inputs: Any) -> Any:
        nonlocal compilations
        compilations += 1
        return graph.forward

    compiled = torch.compile(matched_sums, fullgraph=True, backend=counted)
    for objects in (1, 9, 30):
        padded = pad_targets([scene(objects, objects), EMPTY], CLASSES, CPU)
        arguments = (*predictions(3, 2, len(FEW)), padded, FEW)
        ours, wanted = device_sums(*arguments, of_matched=compiled), device_sums(*arguments)
        for a, b in zip(ours, wanted, strict=True):
            torch.testing.assert_close(a, b)
    assert compilations == 1


def test_the_step_of_a_run_asks_nothing():
    """On a device without numbers every question for one is an error: the loss of `ssdlib.loss` cannot be had there."""
    images, targets = torch.zeros(2, 3, 256, 256, device="meta"), [scene(1, 5), EMPTY]
    model = ssd_tiny(CLASSES).to("meta")
    parts = shared_losses(model, images, targets)
    assert {name: (part.device.type, part.shape) for name, part in parts.items()} == {
        name: ("meta", torch.Size([])) for name in ("localization", "confidence")
    }
    sum(parts.values(), torch.zeros((), device="meta")).backward()
    with pytest.raises(RuntimeError):  # of which the error of an operation that the device lacks is one
        ssd_losses(model, images, targets)
