"""MobileNetV2 for SSD: TensorFlow's padding, 1 x 1 heads, and torchvision's classifier in it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import mobilenet_v2

from ssdlib.backbones import ChannelBias, MobileNetV2, SameConv2d, same_padding
from ssdlib.model import IMAGENET_MEAN, PointPredictions, build_model
from ssdlib.priors import SSD300_MOBILENET
from ssdlib.zoo.checkpoint import load_model, save_model


@given(side=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_padding_gives_every_step_a_window_in_the_middle(side: int, kernel: int, stride: int) -> None:
    before, after = same_padding(side, kernel, stride)
    outputs = (side + before + after - kernel) // stride + 1
    assert outputs == -(-side // stride)
    assert 0 <= after - before <= 1
    if before + after:  # no cell too much: the last window ends where the padding does
        assert (outputs - 1) * stride + kernel == side + before + after


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "expected"),
    [
        (300, 3, 2, (0, 1)),
        (75, 3, 2, (1, 1)),
        (10, 3, 2, (0, 1)),
        (19, 3, 1, (1, 1)),
        (5, 1, 2, (0, 0)),
        (1, 3, 2, (1, 1)),
    ],
)
def test_same_padding_by_hand(side: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(side, kernel, stride) == expected


@given(height=st.integers(3, 9), width=st.integers(3, 9), stride=st.sampled_from([1, 2, 3]), seed=st.integers(0, 2**31))
def test_same_convolution_equals_the_slow_loop(height: int, width: int, stride: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = SameConv2d(2, 3, 3, stride=stride)
    x = torch.randn(1, 2, height, width)
    top, left = same_padding(height, 3, stride)[0], same_padding(width, 3, stride)[0]
    expected = torch.zeros(3, -(-height // stride), -(-width // stride))
    for row in range(expected.shape[1]):
        for column in range(expected.shape[2]):
            total = layer.bias.detach().clone()
            for i in range(3):
                for j in range(3):
                    y, z = row * stride + i - top, column * stride + j - left
                    if 0 <= y < height and 0 <= z < width:
                        total += layer.weight[:, :, i, j].detach() @ x[0, :, y, z]
            expected[:, row, column] = total
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_on_odd_sides_it_is_the_padding_of_pytorch_and_on_even_ones_not() -> None:
    layer = SameConv2d(4, 4, 3, stride=2, groups=4)
    for side, same in ((9, True), (10, False)):
        x = torch.randn(2, 4, side, side)
        usual = F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1, groups=4)
        assert usual.shape == layer(x).shape
        assert torch.allclose(usual, layer(x), atol=1e-5) is same


@pytest.mark.parametrize("batch_norm", [False, True])
def test_maps(batch_norm: bool) -> None:
    backbone = MobileNetV2(batch_norm=batch_norm).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 300, 300))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (576, 19, 19),
        (1280, 10, 10),
        (512, 5, 5),
        (256, 3, 3),
        (256, 2, 2),
        (128, 1, 1),
    ]
    assert all(x.min() >= 0 and x.max() <= 6 for x in maps)  # ReLU6
    strided = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == 9
    assert all(isinstance(m, SameConv2d) is not batch_norm for m in strided)
    assert any(isinstance(m, ChannelBias) for m in backbone.modules()) is not batch_norm


def test_heads_look_at_a_single_cell() -> None:
    head = PointPredictions([2], [3], 4)
    assert [tuple(layer.weight.shape) for layer in head.convolutions] == [(12, 2, 1, 1)]
    x = torch.randn(1, 2, 4, 4)
    changed = x.clone()
    changed[..., 1, 2] += 1
    moved = (head([x]) != head([changed])).any(dim=-1)[0]  # (48,)
    assert moved.nonzero().flatten().tolist() == [18, 19, 20]  # three priors of the seventh cell


def test_torchvisions_classifier_gives_the_same_features() -> None:
    classifier = mobilenet_v2(weights=None).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    model = build_model("ssd300_mobilenet_v2_bn", ["cat"], classifier_weights=classifier.state_dict()).eval()
    assert model.mean.flatten().tolist() == pytest.approx(list(IMAGENET_MEAN))
    x = torch.randn(1, 3, 300, 300)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x)[1], classifier.features(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"not those of this MobileNetV2 \(has it batch normalisation"):
        build_model("ssd300_mobilenet_v2", ["cat"], classifier_weights=classifier.state_dict())


@pytest.mark.parametrize("architecture", ["ssd300_mobilenet_v2", "ssd300_mobilenet_v2_bn"])
def test_a_checkpoint_keeps_activation_and_recipe(architecture: str, tmp_path) -> None:
    model = build_model(architecture, ["cat", "dog"], activation="sigmoid").eval()
    again = load_model(save_model(model, tmp_path / "m.safetensors"), recipe=SSD300_MOBILENET)
    assert (again.architecture, again.activation) == (architecture, "sigmoid")
    images = torch.rand(1, 3, 300, 300)
    with torch.no_grad():
        for ours, theirs in zip(again(images), model(images), strict=True):
            assert torch.equal(ours, theirs)
