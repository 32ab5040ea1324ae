"""Coding: offsets by hand, a plain loop, torchvision's box coder, and that decoding undoes encoding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.strategies import boxes_cxcywh, offsets, tensors
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import MAX_LOG_SIZE, VARIANCES, decode, encode
from ssdlib.priors import SSD300_VOC, make_priors

ROW = boxes_cxcywh(1, 1, grid=None)
# The weights are the reciprocals of the variances.
CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))


def slow_encode(box: list[float], prior: list[float], variances: tuple[float, float]) -> list[float]:
    centre, size = variances
    return [
        (box[0] - prior[0]) / prior[2] / centre,
        (box[1] - prior[1]) / prior[3] / centre,
        math.log(box[2] / prior[2]) / size,
        math.log(box[3] / prior[3]) / size,
    ]


def slow_decode(offset: list[float], prior: list[float], variances: tuple[float, float]) -> list[float]:
    centre, size = variances
    return [
        offset[0] * centre * prior[2] + prior[0],
        offset[1] * centre * prior[3] + prior[1],
        math.exp(offset[2] * size) * prior[2],
        math.exp(offset[3] * size) * prior[3],
    ]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """As many boxes as priors, N >= 0."""
    priors = draw(boxes_cxcywh(grid=None))
    count = len(priors)
    return draw(boxes_cxcywh(count, count, grid=None)), priors


variance_pairs = st.sampled_from([VARIANCES, (1.0, 1.0), (0.2, 0.1)])

# --- values --------------------------------------------------------------------------------------------------------


def test_offsets_by_hand() -> None:
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.6, 0.4, 0.4, 0.2]])
    # Half a prior to the right, a quarter up; twice as wide, half as high.
    expected = torch.tensor([[0.5 / 0.1, -0.25 / 0.1, math.log(2) / 0.2, -math.log(2) / 0.2]])
    torch.testing.assert_close(encode(box, prior), expected)
    torch.testing.assert_close(decode(expected, prior), box)


def test_a_prior_is_its_own_zero() -> None:
    priors = make_priors(SSD300_VOC)
    assert torch.equal(encode(priors, priors), torch.zeros_like(priors))
    assert torch.equal(decode(torch.zeros_like(priors), priors), priors)


def test_variances_of_the_original_code() -> None:
    assert VARIANCES == (0.1, 0.2)
    prior, box = torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.tensor([[0.6, 0.4, 0.4, 0.2]])
    plain = encode(box, prior, variances=(1.0, 1.0))
    torch.testing.assert_close(encode(box, prior), plain * torch.tensor([10.0, 10.0, 5.0, 5.0]))
    # The first belongs to both centre offsets, the second to both size offsets.
    torch.testing.assert_close(encode(box, prior, (0.5, 4.0)), plain * torch.tensor([2.0, 2.0, 0.25, 0.25]))
    torch.testing.assert_close(decode(plain, prior, (1.0, 1.0)), box)


@given(pairs(), variance_pairs)
def test_encode_equals_a_loop(boxes_and_priors: tuple[Tensor, Tensor], variances: tuple[float, float]) -> None:
    boxes, priors = (x.double() for x in boxes_and_priors)
    rows = [slow_encode(box, prior, variances) for box, prior in zip(boxes.tolist(), priors.tolist(), strict=True)]
    expected = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    torch.testing.assert_close(encode(boxes, priors, variances), expected, rtol=1e-12, atol=1e-12)


@given(boxes_cxcywh(1, 1, grid=None), offsets(5), variance_pairs)
def test_decode_equals_a_loop(priors: Tensor, given_offsets: Tensor, variances: tuple[float, float]) -> None:
    prior = priors.double()
    rows = [slow_decode(offset, prior[0].tolist(), variances) for offset in given_offsets.tolist()]
    decoded = decode(given_offsets.double(), prior, variances)  # one prior for all five
    torch.testing.assert_close(decoded, torch.tensor(rows, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(pairs())
def test_encode_equals_torchvision(boxes_and_priors: tuple[Tensor, Tensor]) -> None:
    boxes, priors = (x.double() for x in boxes_and_priors)
    theirs = CODER.encode_single(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(priors))
    torch.testing.assert_close(encode(boxes, priors), theirs, rtol=1e-9, atol=1e-9)


@given(pairs())
def test_decode_equals_torchvision(boxes_and_priors: tuple[Tensor, Tensor]) -> None:
    given_offsets, priors = boxes_and_priors[0] * 4 - 2, boxes_and_priors[1]
    theirs = CODER.decode_single(given_offsets, cxcywh_to_xyxy(priors))
    torch.testing.assert_close(cxcywh_to_xyxy(decode(given_offsets, priors)), theirs, rtol=1e-5, atol=1e-5)


# --- inverse -------------------------------------------------------------------------------------------------------


@given(pairs(), variance_pairs)
def test_decode_undoes_encode(boxes_and_priors: tuple[Tensor, Tensor], variances: tuple[float, float]) -> None:
    boxes, priors = boxes_and_priors
    assume((boxes[:, 2:] / priors[:, 2:] <= 62.5).all())  # beyond, decode limits the size
    back = decode(encode(boxes, priors, variances), priors, variances)
    torch.testing.assert_close(back, boxes, rtol=1e-5, atol=1e-5)


@given(boxes_cxcywh(1, 1, grid=None), offsets(4), variance_pairs)
def test_encode_undoes_decode(prior: Tensor, given_offsets: Tensor, variances: tuple[float, float]) -> None:
    prior, given_offsets = prior.double(), given_offsets.double()
    back = encode(decode(given_offsets, prior, variances), prior, variances)
    # A centre offset is what is left of a difference: near 0 it has only the digits of the centre itself.
    torch.testing.assert_close(back, given_offsets, rtol=1e-9, atol=1e-9)


@given(pairs(), st.sampled_from([0.25, 2.0, 512.0]), tensors((2,), st.sampled_from([-1.0, 0.0, 0.5])))
def test_offsets_have_no_unit_and_no_place(
    boxes_and_priors: tuple[Tensor, Tensor], factor: float, shift: Tensor
) -> None:
    boxes, priors = (x.double() for x in boxes_and_priors)
    move = torch.cat((shift.double(), torch.zeros(2, dtype=torch.float64)))
    moved = encode(boxes * factor + move, priors * factor + move)
    torch.testing.assert_close(moved, encode(boxes, priors), rtol=1e-8, atol=1e-8)


@given(offsets(6, limit=1e4), boxes_cxcywh(6, 6))
def test_decoded_boxes_never_have_a_negative_size(given_offsets: Tensor, priors: Tensor) -> None:
    # Whatever an untrained network predicts: exp makes the sizes, so corners are never swapped, and nothing is NaN.
    decoded = decode(given_offsets, priors)
    assert not decoded.isnan().any()
    assert (decoded[:, 2:] >= 0).all()


def test_a_decoded_box_is_at_most_62_5_times_as_large_as_its_prior() -> None:
    prior = torch.tensor([0.5, 0.5, 0.5, 0.25], dtype=torch.float64)
    most = MAX_LOG_SIZE / VARIANCES[1]
    code = torch.tensor([[0.0, 0.0, most, most - 1e-9], [0.0, 0.0, 1e30, math.inf], [0.0, 0.0, -1e30, -math.inf]])
    sizes = decode(code.double(), prior)[:, 2:]
    torch.testing.assert_close(sizes[:2], (62.5 * prior[2:]).expand(2, 2))
    assert sizes[2].tolist() == [0.0, 0.0]
    theirs = CODER.decode_single(code[:2], cxcywh_to_xyxy(prior).expand(2, 4))  # the same limit
    torch.testing.assert_close(cxcywh_to_xyxy(decode(code[:2].double(), prior)), theirs.double(), rtol=1e-5, atol=1e-5)


# --- shapes and types ----------------------------------------------------------------------------------------------


def test_no_boxes() -> None:
    empty = torch.empty(0, 4)
    assert encode(empty, empty).shape == decode(empty, empty).shape == (0, 4)


def test_leading_dimensions_broadcast() -> None:
    priors = make_priors(SSD300_VOC)[8696:]  # (36, 4)
    batch = torch.randn(3, 36, 4)
    decoded = decode(batch, priors)
    assert decoded.shape == (3, 36, 4)
    for one, row in zip(batch, decoded, strict=True):
        assert torch.equal(decode(one, priors), row)
    torch.testing.assert_close(encode(decoded, priors), batch, rtol=1e-4, atol=1e-4)
    # One box against every prior, as the chapter shows it.
    assert encode(decoded[0, 0], priors).shape == (36, 4)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 2e-2), (torch.bfloat16, 2e-1), (torch.float64, 1e-12)])
def test_float_type_is_kept(dtype: torch.dtype, digits: float) -> None:
    prior = torch.tensor([[0.5, 0.5, 0.25, 0.5]], dtype=dtype)
    box = torch.tensor([[0.625, 0.25, 0.5, 0.25]], dtype=dtype)
    code = encode(box, prior)
    assert code.dtype == decode(code, prior).dtype == dtype
    expected = torch.tensor([slow_encode(box[0].tolist(), prior[0].tolist(), VARIANCES)], dtype=torch.float64)
    torch.testing.assert_close(code.double(), expected, rtol=digits, atol=digits)
    torch.testing.assert_close(decode(code, prior), box, rtol=digits, atol=digits)


def test_gradient_flows_through_decode() -> None:
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    code = torch.zeros(1, 4, requires_grad=True)
    decode(code, prior).sum().backward()
    torch.testing.assert_close(code.grad, torch.tensor([[0.02, 0.04, 0.04, 0.08]]))


@given(pairs())
def test_inputs_are_not_changed(boxes_and_priors: tuple[Tensor, Tensor]) -> None:
    before = [x.clone() for x in boxes_and_priors]
    boxes, priors = boxes_and_priors
    encode(boxes, priors)
    decode(boxes, priors)
    assert all(torch.equal(x, y) for x, y in zip(boxes_and_priors, before, strict=True))


# --- bad input -----------------------------------------------------------------------------------------------------

BAD_SIZES = [[0.3, 0.3, 0.0, 0.1], [0.3, 0.3, 0.1, 0.0], [0.3, 0.3, -0.1, 0.1], [0.3, 0.3, 0.1, -0.1]]
NOT_FINITE = [
    [math.nan, 0.3, 0.1, 0.1],
    [0.3, math.inf, 0.1, 0.1],
    [0.3, 0.3, math.nan, 0.1],
    [0.3, 0.3, 0.1, math.inf],
]


@pytest.mark.parametrize("bad", [*BAD_SIZES, *NOT_FINITE])
def test_encode_refuses_boxes_and_priors_that_would_give_infinite_offsets(bad: list[float]) -> None:
    good = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2)
    broken = good.clone()
    broken[1] = torch.tensor(bad)
    quoted = r"has an empty or not finite box: \[(nan|0\.3)"
    with pytest.raises(ValueError, match=f"boxes_cxcywh {quoted}"):
        encode(broken, good)
    with pytest.raises(ValueError, match=f"priors_cxcywh {quoted}"):
        encode(good, broken)


@given(boxes_cxcywh(3, 3), tensors((3, 4), st.integers(-1, 4).map(lambda i: i / 4)))
def test_encode_gives_finite_offsets_or_an_error(priors: Tensor, boxes: Tensor) -> None:
    if (boxes[:, 2:] > 0).all():
        assert torch.isfinite(encode(boxes, priors)).all()
    else:
        with pytest.raises(ValueError, match="empty or not finite"):
            encode(boxes, priors)


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (2, 3)])
def test_boxes_and_offsets_have_four_numbers(shape: tuple[int, ...]) -> None:
    # Three numbers a box would broadcast silently: the height would be taken for the width as well.
    wrong, right = torch.ones(shape), torch.ones(2, 4)
    for function, first in ((encode, "boxes_cxcywh"), (decode, "offsets")):
        with pytest.raises(ValueError, match=f"{first} must have shape"):
            function(wrong, right)
        with pytest.raises(ValueError, match="priors_cxcywh must have shape"):
            function(right, wrong)
