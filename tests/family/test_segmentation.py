from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import tensors
from torch import Tensor, nn

from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.family.overfeat import multiply_adds
from ssdlib.family.pixel_metrics import IGNORE, count_pixels, mean_iou
from ssdlib.family.segmentation import (
    Segmenter,
    Up,
    decoder_bytes,
    enlarge,
    full_size,
    load_segmenter,
    pixel_loss,
    transposed_conv_plainly,
    unpool_plainly,
)
from ssdlib.family.window_classifier import without_padding
from ssdlib.model import SSD, ssd_tiny
from ssdlib.zoo import demo_model

WHOLE = st.integers(-4, 4).map(float)  # sums of these are exact in float32
UPS: list[Up] = ["unpool", "transposed", "skip"]

# ---- up again -----------------------------------------------------------------------------------------------------


@given(data=st.data(), side=st.integers(1, 3))
def test_unpooling_is_that_of_torch(data: st.DataObject, side: int) -> None:
    channels, height, width = (data.draw(st.integers(1, 3)), *(data.draw(st.integers(side, 7)) for _ in range(2)))
    maps = data.draw(tensors((channels, height, width), WHOLE))
    values, places = F.max_pool2d(maps, side, return_indices=True)
    ours = unpool_plainly(values, places, height, width)
    assert torch.equal(ours, F.max_unpool2d(values, places, [side, side], output_size=(height, width)))
    assert torch.equal(ours[ours != 0], maps[ours != 0]), "a maximum goes back to where it was"
    if (values > 0).all():
        assert torch.equal(F.max_pool2d(ours, side), values)


def test_a_place_outside_the_map_is_refused() -> None:
    with pytest.raises(ValueError, match="no place 9 in a map of 3 x 3"):
        unpool_plainly(torch.ones(1, 1, 1), torch.tensor([[[9]]]), 3, 3)
    with pytest.raises(ValueError, match="no place -1 "):
        unpool_plainly(torch.ones(1, 1, 1), torch.tensor([[[-1]]]), 3, 3)
    with pytest.raises(ValueError, match="values and places"):
        unpool_plainly(torch.ones(1, 2, 2), torch.zeros(1, 1, 1, dtype=torch.int64), 4, 4)


@given(data=st.data(), stride=st.integers(1, 3), kernel=st.integers(1, 4), padding=st.integers(0, 2))
def test_transposed_convolution_is_that_of_torch(data: st.DataObject, stride: int, kernel: int, padding: int) -> None:
    inputs, outputs, h, w = (data.draw(st.integers(1, 3)) for _ in range(4))
    maps = data.draw(tensors((inputs, h, w), WHOLE))
    weight = data.draw(tensors((inputs, outputs, kernel, kernel), WHOLE))
    if min((h - 1) * stride, (w - 1) * stride) + kernel <= 2 * padding:
        with pytest.raises(ValueError, match="leave nothing"):
            transposed_conv_plainly(maps, weight, stride, padding)
        return
    ours = transposed_conv_plainly(maps, weight, stride, padding)
    assert torch.equal(ours, F.conv_transpose2d(maps[None], weight, stride=stride, padding=padding)[0])


@given(data=st.data(), stride=st.integers(1, 3), kernel=st.integers(1, 3))
def test_it_is_the_convolution_transposed(data: st.DataObject, stride: int, kernel: int) -> None:
    """<convolution(x), y> = <x, transposed(y)> for all x and y: that is what the word means."""
    h, w = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    y = data.draw(tensors((2, h, w), WHOLE))
    weight = data.draw(tensors((2, 3, kernel, kernel), WHOLE))  # of the convolution: 3 channels to 2
    x = data.draw(tensors((3, (h - 1) * stride + kernel, (w - 1) * stride + kernel), WHOLE))
    there = F.conv2d(x[None], weight, stride=stride)[0]
    assert (there * y).sum() == (x * transposed_conv_plainly(y, weight, stride)).sum()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 3\), \(1, 4, 2, 2\)"):
        transposed_conv_plainly(torch.zeros(2, 3, 3), torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 3\)"):
        transposed_conv_plainly(torch.zeros(1, 3, 3), torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match="stride 0"):
        transposed_conv_plainly(torch.zeros(1, 3, 3), torch.zeros(1, 4, 2, 2), stride=0)


# ---- networks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> SSD:
    torch.manual_seed(0)
    return ssd_tiny(3).eval()


@settings(max_examples=15, deadline=None)
@given(
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    kernel=st.sampled_from([1, 3, 5]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_full_size_says_of_every_pixel_what_strides_say_of_some(
    strides: list[int], kernel: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential()
    for stride in strides:
        layers.extend([nn.Conv2d(2, 2, kernel, stride, kernel // 2), nn.BatchNorm2d(2), nn.ReLU()])
    layers.eval()
    image = torch.randn(1, 2, height, width)
    before = [(layer.stride, layer.dilation) for layer in layers if isinstance(layer, nn.Conv2d)]
    dense = full_size(layers)(image)
    assert dense.shape == (1, 2, height, width)
    step = math.prod(strides)
    torch.testing.assert_close(dense[:, :, ::step, ::step], layers(image), rtol=0, atol=1e-5)
    assert [(layer.stride, layer.dilation) for layer in layers if isinstance(layer, nn.Conv2d)] == before


def test_full_size_of_the_backbone_agrees_with_windows_around_single_pixels(detector: SSD) -> None:
    layers = detector.backbone.stages[0]  # type: ignore[union-attr]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        dense = full_size(layers)(image)
        alone = without_padding(layers)
        for y, x in ((27, 27), (30, 35), (36, 28)):  # 55 pixels are seen: 27 to each side
            window = image[:, :, y - 27 : y + 28, x - 27 : x + 28]
            torch.testing.assert_close(alone(window)[0, :, 0, 0], dense[0, :, y, x], rtol=0, atol=1e-4)


def test_layers_that_change_the_size_otherwise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MaxPool2d.* is no convolution"):
        full_size(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)))
    with pytest.raises(ValueError, match="change the size"):
        full_size(nn.Sequential(nn.Conv2d(3, 3, 3)))
    with pytest.raises(ValueError, match="change the size"):
        full_size(nn.Sequential(nn.Conv2d(3, 3, 2, padding=1)))
    for even in (nn.Conv2d(3, 3, 2), nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 3, 4, 2, 1), nn.Conv2d(3, 3, (3, 2))):
        with pytest.raises(ValueError, match="change the size"):
            full_size(even)
    for layer in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.Upsample(2), nn.ConvTranspose2d(3, 3, 2, 2)):
        with pytest.raises(ValueError, match="is no convolution"):
            full_size(nn.Sequential(layer))


@pytest.mark.parametrize("up", UPS)
def test_sides_that_cannot_be_doubled_back_are_refused(detector: SSD, up: Up) -> None:
    with pytest.raises(ValueError, match="multiples of 32: 100 x 96"):
        Segmenter(detector, 3, up)(torch.zeros(1, 3, 100, 96))


@given(data=st.data(), factor=st.integers(1, 4))
def test_enlarged_cells_stay_where_they_look(data: st.DataObject, factor: int) -> None:
    h, w = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    logits = data.draw(tensors((1, 2, h, w), WHOLE))
    large = enlarge(logits, factor)
    assert large.shape == (1, 2, h * factor, w * factor)
    for y in range(h * factor):
        for x in range(w * factor):
            (i, a), (j, b) = divmod(y, factor), divmod(x, factor)
            i1, j1, a, b = min(i + 1, h - 1), min(j + 1, w - 1), a / factor, b / factor
            top = (1 - b) * logits[0, :, i, j] + b * logits[0, :, i, j1]
            low = (1 - b) * logits[0, :, i1, j] + b * logits[0, :, i1, j1]
            torch.testing.assert_close(large[0, :, y, x], (1 - a) * top + a * low, rtol=0, atol=1e-5)


@pytest.mark.parametrize("up", UPS)
def test_down_and_up_gives_logits_of_every_pixel_and_trains_the_decoder_alone(detector: SSD, up: Up) -> None:
    torch.manual_seed(0)
    model = Segmenter(detector, 3, up)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    images = torch.rand(2, 3, 64, 96)
    maps = model.encode(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 2, 3), (128, 4, 6), (96, 8, 12), (32, 16, 24)]
    normalised = (images - detector.mean) / detector.std
    torch.testing.assert_close(maps[0], detector.backbone(normalised)[2])
    logits = model(images)
    assert logits.shape == (2, 3, 64, 96)
    pixel_loss(logits, torch.randint(0, 3, (2, 64, 96))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())
    after = detector.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    detector.zero_grad(set_to_none=True)


def test_unpooling_puts_values_where_the_finer_map_is_largest(detector: SSD) -> None:
    """With kernels that pass a cell on, what comes out is seen to stand at the places of the maxima."""
    torch.manual_seed(0)
    model = Segmenter(detector, 3, "unpool").eval()
    seen: list[Tensor] = []
    model.decoder.mix[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = model.encode(torch.rand(1, 3, 64, 64))
    model.decoder(maps)
    coarse = model.decoder.first(maps[0])[0]
    _, places = F.max_pool2d(maps[1], 2, return_indices=True)
    assert torch.equal(seen[0][0], unpool_plainly(coarse, places[0], 4, 4))


def test_operations_are_those_that_a_hand_counts(detector: SSD) -> None:
    n = 64 * 64  # pixels; a level has n / 4^k cells
    encoder = n // 4 * 27 * 16 + n // 16 * 9 * (16 * 32 + 32 * 32) + n // 64 * 9 * (32 * 64 + 64 * 96 + 96 * 96)
    encoder += n // 256 * (9 * (96 * 128 + 128 * 128) + 128 * 64) + n // 1024 * 9 * 64 * 96
    mix = n // 256 * 9 * 128 * 96 + n // 64 * 9 * 96 * 32 + n // 16 * (9 * 32 * 32 + 32 * 3)
    plain = encoder + n // 1024 * 96 * 128 + mix
    assert multiply_adds(Segmenter(detector, 3, "unpool"), 64, 64) == plain
    # a transposed convolution of 2 x 2 with stride 2 multiplies each cell of the smaller map by 4 stamps
    grow = 4 * (n // 1024 * 128**2 + n // 256 * 96**2 + n // 64 * 32**2)
    assert multiply_adds(Segmenter(detector, 3, "transposed"), 64, 64) == plain + grow
    stage = detector.backbone.stages[0]  # type: ignore[union-attr]
    dense = n * 9 * (3 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 96 + 96 * 96)
    assert multiply_adds(full_size(stage), 64, 64) == dense


def test_pixels_without_a_label_teach_nothing() -> None:
    logits = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[[0, 1, 2, IGNORE], [IGNORE, 2, 1, 0]]])
    known = labels != IGNORE
    expected = F.cross_entropy(logits.permute(0, 2, 3, 1)[known], labels[known])
    loss = pixel_loss(logits, labels)
    torch.testing.assert_close(loss, expected)
    (slope,) = torch.autograd.grad(loss, logits)
    assert (slope.permute(0, 2, 3, 1)[~known] == 0).all()
    nothing = pixel_loss(logits, torch.full((1, 2, 4), IGNORE))
    assert nothing == 0
    (slope,) = torch.autograd.grad(nothing, logits)
    assert (slope == 0).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert pixel_loss(logits.bfloat16() * 1e4, labels).dtype == torch.float32


def test_a_decoder_learns_a_rule_of_pixels(detector: SSD) -> None:
    """Red is 1 and blue is 0; what is not labelled, the rightmost quarter, does not matter."""
    torch.manual_seed(0)
    model = Segmenter(detector, 2)
    true = torch.randint(0, 2, (4, 2, 2)).repeat_interleave(32, 1).repeat_interleave(32, 2)
    images = torch.stack((true, torch.zeros_like(true), 1 - true), dim=1).float()
    labels = true.clone()
    labels[:, :, 48:] = IGNORE
    with torch.no_grad():
        maps = model.encode(images)
    optimizer = torch.optim.Adam(model.decoder.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        pixel_loss(model.decoder(maps), labels[:, ::4, ::4]).backward()
        optimizer.step()
    model.decoder.eval()
    with torch.no_grad():
        found = model(images).argmax(dim=1)
    assert mean_iou(count_pixels(found, labels, 2)) > 0.9


# ---- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", UPS)
def test_weights_come_back_in_half_precision(tmp_path: Path, detector: SSD, up: Up) -> None:
    torch.manual_seed(1)
    model = Segmenter(detector, 3, up).eval()
    (tmp_path / f"segmentation_{up}.safetensors").write_bytes(decoder_bytes(model))
    back = load_segmenter(detector, 3, up, tmp_path)
    assert not back.training
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(back(image), model(image), rtol=0, atol=0.02)
    other: Up = "skip" if up != "skip" else "unpool"
    with pytest.raises(FileNotFoundError, match=f"segmentation_{other}"):
        load_segmenter(detector, 3, other, tmp_path)


def test_a_file_that_does_not_fit_is_named(tmp_path: Path, detector: SSD) -> None:
    path = tmp_path / "segmentation_skip.safetensors"
    path.write_bytes(decoder_bytes(Segmenter(detector, 3, "skip")))
    with pytest.raises(
        ValueError, match=r"segmentation_skip\.safetensors does not hold a decoder of 4 classes .*'skip'"
    ):
        load_segmenter(detector, 4, "skip", tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"segmentation_skip\.safetensors does not hold a decoder of 3 classes"):
        load_segmenter(detector, 3, "skip", tmp_path)


def test_the_weights_of_the_chapter_find_most_of_what_is_there() -> None:
    """On test scenes; the record says 0.68 for a hundred of them."""
    images, labels = (part[8:] for part in segmented_scenes(16, 256, seed=1))
    model = load_segmenter(demo_model(), 7)
    with torch.no_grad():
        found = model(images.float() / 255).argmax(dim=1)
    assert mean_iou(count_pixels(found, labels, 7)) > 0.6
