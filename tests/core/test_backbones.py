from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, vgg

from ssdlib.backbones import VGG16, L2Norm, MobileNetV3, Tiny, decimate, fc_to_conv, lite_conv


def slow_l2_norm(x: Tensor, scale: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for n in range(x.shape[0]):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                cell = x[n, :, row, column].tolist()
                length = math.sqrt(sum(value**2 for value in cell))
                for c, value in enumerate(cell):
                    out[n, c, row, column] = value / length * float(scale[c]) if length > 0 else 0.0
    return out


@given(seed=st.integers(0, 2**31), channels=st.integers(1, 6))
def test_l2_norm_equals_the_slow_loop(seed: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, 3, 4, generator=generator).relu()  # of one channel, half the cells are 0
    layer = L2Norm(channels)
    assert layer.scale.tolist() == [20.0] * channels
    nn.init.uniform_(layer.scale, 1, 30, generator=generator)
    torch.testing.assert_close(layer(x), slow_l2_norm(x, layer.scale.detach()))


def test_l2_norm_gives_every_cell_the_length_20() -> None:
    x = torch.rand(2, 512, 5, 5) * torch.tensor([1e-3, 1e3]).view(2, 1, 1, 1)
    torch.testing.assert_close(L2Norm(512)(x).norm(dim=1), torch.full((2, 5, 5), 20.0))


def test_l2_norm_of_a_cell_of_zeros_is_zero_and_so_is_its_gradient() -> None:
    x = torch.rand(1, 512, 2, 2)
    x[..., 1, 0] = 0
    x.requires_grad_()
    y = L2Norm(512)(x)
    assert y.isfinite().all()
    assert not y[..., 1, 0].any()
    y.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_l2_norm_does_not_overflow_in_half_precision(dtype: torch.dtype) -> None:
    x = 300 * torch.rand(1, 512, 2, 2)  # the sum of squares is beyond float16's 65,504
    layer = L2Norm(512)
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), layer(x.to(dtype).float()), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(y.float().norm(dim=1), torch.full((1, 2, 2), 20.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("size", "sides", "channels"),
    [
        (300, (38, 19, 10, 5, 3, 1), (512, 1024, 512, 256, 256, 256)),
        (512, (64, 32, 16, 8, 4, 2, 1), (512, 1024, 512, 256, 256, 256, 256)),
    ],
)
def test_maps_of_vgg16(batch_norm: bool, size: int, sides: tuple[int, ...], channels: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only, nothing is computed
        backbone = VGG16(size, batch_norm=batch_norm)
        maps = backbone(torch.empty(2, 3, size, size))
    assert backbone.out_channels == channels
    expected = [(2, c, side, side) for c, side in zip(channels, sides, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


def test_maps_of_tiny() -> None:
    backbone = Tiny()
    maps = backbone(torch.rand(1, 3, 256, 256))
    sides = (32, 16, 8, 4, 2)
    assert [tuple(x.shape) for x in maps] == [
        (1, c, side, side) for c, side in zip(backbone.out_channels, sides, strict=True)
    ]
    assert all(x.isfinite().all() for x in maps)


@pytest.mark.parametrize(("reduced", "last"), [(True, 480), (False, 960)])
def test_maps_of_mobilenet(reduced: bool, last: int) -> None:
    with torch.device("meta"):
        backbone = MobileNetV3(reduced_tail=reduced)
        maps = backbone(torch.empty(2, 3, 320, 320))
    assert backbone.out_channels == (672, last, 512, 256, 256, 128)
    sides = (20, 10, 5, 3, 2, 1)
    assert [tuple(x.shape) for x in maps] == [
        (2, c, side, side) for c, side in zip(backbone.out_channels, sides, strict=True)
    ]


def test_lite_convolutions_filter_each_channel_on_its_own() -> None:
    layer = lite_conv(3, 3, 3, stride=2).eval()
    x = torch.randn(1, 3, 9, 9)
    changed = x.clone()
    changed[:, 1] += 1
    same = (layer(x) == layer(changed)).flatten(2).all(dim=2)
    assert same.tolist() == [[True, False, True]]
    assert layer(x).shape == (1, 3, 5, 5)
    assert layer(1e6 * x).max() == 6
    assert sum(p.numel() for p in lite_conv(8, 4, 1)[0].parameters()) == 32  # a 1 x 1 convolution mixes all channels


def test_fully_connected_layers_as_convolutions_of_vgg16() -> None:
    with torch.device("meta"):
        layers = [layer for layer in VGG16(300).to_conv7.modules() if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]
    pool5, conv6, conv7 = layers[-3:]
    assert (pool5.kernel_size, pool5.stride, pool5.padding) == (3, 1, 1)
    assert (conv6.weight.shape, conv6.dilation, conv6.padding) == ((1024, 512, 3, 3), (6, 6), (6, 6))
    assert (conv7.weight.shape, conv7.dilation, conv7.padding) == ((1024, 1024, 1, 1), (1, 1), (0, 0))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="300 and 512 pixels, not 320"):
        VGG16(320)


@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, 3, 7])), seed=st.integers(0, 2**31))
def test_convolution_equals_the_fully_connected_layer(shape: tuple[int, int, int], seed: int) -> None:
    outputs, channels, size = shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels * size * size, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(2, channels, size, size, generator=generator)
    expected = F.linear(x.flatten(1), weight, bias)  # (2, outputs)
    found = F.conv2d(x, *fc_to_conv(weight, bias, size))  # (2, outputs, 1, 1)
    torch.testing.assert_close(found[..., 0, 0], expected, rtol=1e-4, atol=1e-4)


def test_inputs_that_are_no_map_are_refused() -> None:
    with pytest.raises(ValueError, match="50 inputs are no map of 7 x 7 cells"):
        fc_to_conv(torch.zeros(4, 50), torch.zeros(4), 7)


@given(shape=st.tuples(*[st.integers(1, 7)] * 3), steps=st.tuples(*[st.none() | st.integers(1, 4)] * 3))
def test_decimate_keeps_every_nth_entry(shape: tuple[int, ...], steps: tuple[int | None, ...]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    a, b, c = (range(0, n, step or 1) for n, step in zip(shape, steps, strict=True))
    assert decimate(tensor, steps).tolist() == [[[int(tensor[i, j, k]) for k in c] for j in b] for i in a]


def test_decimate_needs_a_step_for_each_dimension() -> None:
    with pytest.raises(ValueError, match="2 dimensions need as many steps"):
        decimate(torch.zeros(3, 3), (2,))


def test_dilation_makes_up_for_the_decimated_rows_and_columns() -> None:
    # pool5 has stride 1 instead of 2, so that the 7 x 7 kernel has to be dilated by 2. Of its rows and columns only
    # every third is left: a 3 x 3 kernel, dilated by 2 * 3 = 6.
    weight, x = torch.randn(4, 5, 7, 7), torch.randn(1, 5, 19, 19)
    thinned = torch.zeros_like(weight)
    thinned[..., ::3, ::3] = weight[..., ::3, ::3]
    expected = F.conv2d(x, thinned, dilation=2, padding=6)
    found = F.conv2d(x, decimate(weight, (None, None, 3, 3)), dilation=6, padding=6)
    assert found.shape == (1, 4, 19, 19)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def fully_connected() -> dict[str, Tensor]:
    """fc6 and fc7 of a VGG-16 classifier, with random weights."""
    generator = torch.Generator().manual_seed(1)
    return {
        "classifier.0.weight": torch.empty(4096, 512 * 7 * 7).uniform_(-0.01, 0.01, generator=generator),
        "classifier.0.bias": torch.randn(4096, generator=generator),
        "classifier.3.weight": torch.empty(4096, 4096).uniform_(-0.02, 0.02, generator=generator),
        "classifier.3.bias": torch.randn(4096, generator=generator),
    }


Classifier = Callable[[bool], tuple[nn.Sequential, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def classifier(fully_connected: dict[str, Tensor]) -> Classifier:
    """Make torchvision's VGG-16 features with random weights, and the state dict of the whole classifier."""

    def make(batch_norm: bool) -> tuple[nn.Sequential, dict[str, Tensor]]:
        torch.manual_seed(2)
        features = vgg.make_layers(vgg.cfgs["D"], batch_norm=batch_norm).eval()
        for layer in features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.normal_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.running_var):
                    nn.init.uniform_(tensor, 0.5, 2)
                for tensor in (layer.bias, layer.running_mean):
                    nn.init.normal_(tensor)
        return features, {f"features.{key}": value for key, value in features.state_dict().items()} | fully_connected

    return make


@pytest.mark.parametrize("batch_norm", [False, True], ids=["vgg16", "vgg16_bn"])
@torch.no_grad()
def test_features_equal_those_of_the_classifier(classifier: Classifier, batch_norm: bool) -> None:
    features, weights = classifier(batch_norm)
    backbone = VGG16(300, batch_norm=batch_norm).eval()
    backbone.load_classifier(dict(sorted(weights.items())))  # as a safetensors file sorts them
    pools = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    x = torch.rand(1, 3, 64, 64)
    expected = features[: pools[3]](x)
    conv4_3 = backbone.to_conv4_3(x)
    torch.testing.assert_close(conv4_3, expected, rtol=1e-4, atol=1e-3)
    conv5_3 = backbone.to_conv7[:4](conv4_3)
    torch.testing.assert_close(conv5_3, features[pools[3] : pools[4]](expected), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["vgg16", "vgg16_bn"])
@torch.no_grad()
def test_conv6_and_conv7_are_the_decimated_fully_connected_layers(classifier: Classifier, batch_norm: bool) -> None:
    _, weights = classifier(batch_norm)
    backbone = VGG16(300, batch_norm=batch_norm).eval()
    backbone.load_classifier(weights)
    conv6, conv7 = backbone.to_conv7[-2:]
    fc6, fc7 = weights["classifier.0.weight"], weights["classifier.3.weight"]
    for o, c, row, column in ((0, 0, 0, 0), (1, 0, 0, 1), (2, 3, 1, 2), (1023, 511, 2, 2)):
        assert conv6[0].weight[o, c, row, column] == fc6[4 * o, 49 * c + 7 * 3 * row + 3 * column]
        assert conv7[0].weight[o, c, 0, 0] == fc7[4 * o, 4 * c]
    # On a map of one cell only the middle of conv6's kernel sees anything.
    x = torch.rand(1, 512, 1, 1)
    expected = (fc6[::4].reshape(1024, 512, 7, 7)[:, :, 3, 3] @ x.flatten() + weights["classifier.0.bias"][::4]).relu()
    torch.testing.assert_close(conv6(x).flatten(), expected, rtol=1e-4, atol=1e-4)
    expected = (fc7[::4, ::4] @ expected + weights["classifier.3.bias"][::4]).relu()
    torch.testing.assert_close(conv7(conv6(x)).flatten(), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_fc6_of_vgg16_equals_its_convolution(fully_connected: dict[str, Tensor]) -> None:
    weight, bias = fully_connected["classifier.0.weight"], fully_connected["classifier.0.bias"]
    x = torch.rand(2, 512, 7, 7)
    found = F.conv2d(x, *fc_to_conv(weight, bias, 7))
    assert found.shape == (2, 4096, 1, 1)
    torch.testing.assert_close(found.flatten(1), F.linear(x.flatten(1), weight, bias), rtol=1e-4, atol=1e-3)


def test_loading_leaves_the_classifier_as_it_was(classifier: Classifier) -> None:
    _, weights = classifier(True)
    before = {key: value.clone() for key, value in weights.items()}
    backbone = VGG16(300, batch_norm=True)
    backbone.load_classifier(weights)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(value, before[key]) for key, value in weights.items())


def test_weights_that_do_not_fit_are_refused(classifier: Classifier) -> None:
    _, weights = classifier(False)
    backbone = VGG16(300)
    for missing in ("features.0.bias", "classifier.0.weight", "classifier.3.bias"):
        with pytest.raises(KeyError, match=missing):
            backbone.load_classifier({key: value for key, value in weights.items() if key != missing})
    with pytest.raises(ValueError, match="expected 13 convolutions and normalisations, the classifier has 12"):
        backbone.load_classifier({key: value for key, value in weights.items() if key != "features.5.weight"})
    with pytest.raises(ValueError, match=r"features\.2\.weight has shape \(64, 3, 3, 3\)"):
        backbone.load_classifier({**weights, "features.2.weight": torch.zeros(64, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"classifier\.3\.weight, decimated, has shape \(25, 25, 1, 1\)"):
        backbone.load_classifier({**weights, "classifier.3.weight": torch.zeros(100, 100)})
    with pytest.raises(ValueError, match="expected 26 convolutions and normalisations, the classifier has 13"):
        VGG16(300, batch_norm=True).load_classifier(weights)


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    torch.manual_seed(3)
    model = mobilenet_v3_large(weights=None)
    for module in model.features.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return model.eval()


@torch.no_grad()
def test_features_equal_those_of_the_mobilenet_classifier(mobilenet: nn.Module) -> None:
    backbone = MobileNetV3(reduced_tail=False).eval()
    backbone.load_classifier(dict(sorted(mobilenet.state_dict().items())))  # as a safetensors file sorts them
    x = torch.rand(1, 3, 320, 320)
    maps = backbone(x)
    expected = mobilenet.features[:13](x)
    torch.testing.assert_close(maps[0], mobilenet.features[13].block[0](expected))
    expected = mobilenet.features[13:](expected)
    assert expected.std() > 0.01
    torch.testing.assert_close(maps[1], expected)


def test_mobilenet_weights_that_do_not_fit_are_refused(mobilenet: nn.Module) -> None:
    weights = mobilenet.state_dict()
    with pytest.raises(ValueError, match="is its tail reduced"):
        MobileNetV3(reduced_tail=True).load_classifier(weights)
    del weights["features.4.block.0.0.weight"]
    with pytest.raises(ValueError, match=r"4\.block\.0\.0\.weight"):
        MobileNetV3(reduced_tail=False).load_classifier(weights)
    with pytest.raises(ValueError, match="not those of this MobileNetV3"):
        MobileNetV3(reduced_tail=False).load_classifier({})
