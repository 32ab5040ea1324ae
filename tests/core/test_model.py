from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.strategies import recipes
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16 as torchvision_ssd300

from ssdlib.backbones import VGG16, Tiny
from ssdlib.data import load_image
from ssdlib.detection import detect
from ssdlib.loss import multibox_loss
from ssdlib.model import (
    ARCHITECTURES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SSD,
    TINY,
    LitePredictions,
    PredictionConvolutions,
    build_model,
    prepare,
    ssd300_vgg16,
    ssd512_vgg16,
    ssd_tiny,
    upright_rgb,
)
from ssdlib.priors import SSD300_CAFFE, SSD300_COCO, SSD300_VOC, SSD512_VOC, PriorRecipe, make_priors

Place = tuple[int, int, int, int]  # map, row, column, prior of the cell


class OneCell(nn.Module):
    """A backbone whose maps are 0 but for one cell, which is 1 whatever the image."""

    def __init__(self, recipe: PriorRecipe, place: Place) -> None:
        super().__init__()
        self.sides, self.place = recipe.map_sizes, place
        self.out_channels = (1,) * len(recipe.map_sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x.new_zeros(len(x), 1, side, side) for side in self.sides]
        k, row, column, _ = self.place
        maps[k][:, 0, row, column] = 1
        return maps


@torch.no_grad()
def planted(recipe: PriorRecipe, place: Place, label: int, offsets: list[float], num_classes: int = 4) -> SSD:
    """An SSD that says `label` and `offsets` at one prior of one cell, and background everywhere else."""
    model = SSD(OneCell(recipe, place), recipe, num_classes)
    for parameter in (*model.offset_head.parameters(), *model.class_head.parameters()):
        parameter.zero_()
    for convolution in model.class_head.convolutions:
        convolution.bias[::num_classes] = 20  # background, for each prior of a cell
    k, _, _, prior = place
    model.class_head.convolutions[k].weight[prior * num_classes + label, 0, 1, 1] = 40
    model.offset_head.convolutions[k].weight[4 * prior : 4 * prior + 4, 0, 1, 1] = torch.tensor(offsets)
    return model


@st.composite
def places(draw: st.DrawFn) -> tuple[PriorRecipe, int]:
    recipe = draw(recipes())
    return recipe, draw(st.integers(0, recipe.num_priors - 1))


@given(case=places(), label=st.integers(1, 3))
def test_prediction_of_a_cell_comes_out_at_its_prior(case: tuple[PriorRecipe, int], label: int) -> None:
    recipe, index = case
    model = planted(recipe, recipe.locate(index), label, [1.0, -2.0, 3.0, 0.5])
    offsets, logits = model(torch.zeros(1, 3, recipe.image_size, recipe.image_size))
    expected = torch.zeros(1, recipe.num_priors, 4)
    expected[0, index] = torch.tensor([1.0, -2.0, 3.0, 0.5])
    assert torch.equal(offsets, expected)
    expected = torch.zeros(1, recipe.num_priors, 4)
    expected[..., 0] = 20
    expected[0, index, label] = 40
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("recipe", [SSD300_VOC, SSD300_COCO, SSD512_VOC, TINY], ids=lambda recipe: recipe.name)
@torch.no_grad()
def test_planted_prediction_is_detected_in_its_cell(recipe: PriorRecipe) -> None:
    for k, side in enumerate(recipe.map_sizes):
        for prior in range(recipe.priors_per_cell[k]):
            row, column = min(1, side - 1), side // 2
            model = planted(recipe, (k, row, column, prior), 2, [1.0, 0.0, 0.0, 0.0])
            offsets, logits = model(torch.zeros(1, 3, recipe.image_size, recipe.image_size))
            (found,) = detect(offsets, logits, model.priors)
            assert found["labels"].tolist() == [2]
            step = recipe.image_size / side if recipe.steps is None else recipe.steps[k]
            w, h = recipe.shapes(k)[prior]
            cx = (column + 0.5) * step / recipe.image_size + 0.1 * w  # an offset of 1 is a tenth of the width
            cy = (row + 0.5) * step / recipe.image_size
            corners = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
            expected = [min(max(corner, 0.0), 1.0) for corner in corners]
            assert found["boxes"][0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("heads", [PredictionConvolutions, LitePredictions])
@given(recipe=recipes(), outputs=st.integers(1, 5), images=st.integers(1, 3))
def test_stacking_equals_the_slow_loop(
    heads: type[PredictionConvolutions], recipe: PriorRecipe, outputs: int, images: int
) -> None:
    channels = [2, 3, 1][: len(recipe.map_sizes)]
    head = heads(channels, recipe.priors_per_cell, outputs).eval()
    maps = [torch.randn(images, c, side, side) for c, side in zip(channels, recipe.map_sizes, strict=True)]
    with torch.no_grad():
        stacked = head(maps)
        raw = [convolution(x) for convolution, x in zip(head.convolutions, maps, strict=True)]
    assert stacked.shape == (images, recipe.num_priors, outputs)
    for i in range(recipe.num_priors):
        k, row, column, prior = recipe.locate(i)
        assert torch.equal(stacked[:, i], raw[k][:, outputs * prior : outputs * (prior + 1), row, column])


def test_heads_start_without_preference() -> None:
    model = ssd_tiny(4)
    for head in (model.offset_head, model.class_head):
        for convolution in head.convolutions:
            assert not convolution.bias.any()
            fan = 9 * (convolution.in_channels + convolution.out_channels)
            bound = math.sqrt(6 / fan)  # Xavier
            assert 0.9 * bound < convolution.weight.abs().max() <= bound


@pytest.mark.slow
@torch.no_grad()
def test_raw_predictions_equal_torchvision_with_the_same_weights() -> None:
    ours = ssd300_vgg16(5, recipe=SSD300_COCO).eval()
    nn.init.uniform_(ours.backbone.l2_norm.scale, 5, 30)
    for head in (ours.offset_head, ours.class_head):
        for convolution in head.convolutions:
            nn.init.normal_(convolution.bias)
    with torch.device("meta"):  # its own random weights would take seconds and are not wanted
        theirs = torchvision_ssd300(weights=None, weights_backbone=None, num_classes=5)
    theirs = theirs.to_empty(device="cpu").eval()
    theirs.backbone.scale_weight.copy_(ours.backbone.l2_norm.scale)
    pairs = (
        (ours.backbone, theirs.backbone),
        (ours.offset_head, theirs.head.regression_head),
        (ours.class_head, theirs.head.classification_head),
    )
    for our, their in pairs:  # both list their convolutions from the image to the last map
        for source, copy in zip(
            *([m for m in part.modules() if isinstance(m, nn.Conv2d)] for part in (our, their)), strict=True
        ):
            copy.load_state_dict(source.state_dict())

    x = torch.rand(1, 3, 300, 300)
    expected = theirs.head(list(theirs.backbone((x - ours.mean) / ours.std).values()))
    offsets, logits = ours(x)
    assert offsets.shape == (1, 8732, 4)
    assert logits.shape == (1, 8732, 5)
    scale = max(float(logits.abs().max()), 1.0)
    torch.testing.assert_close(offsets, expected["bbox_regression"], rtol=1e-4, atol=1e-4 * scale)
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("build", "num_classes", "priors"), [(ssd300_vgg16, 21, 8732), (ssd512_vgg16, 21, 24564), (ssd_tiny, 4, 5456)]
)
def test_shapes(build: Any, num_classes: int, priors: int) -> None:
    with torch.device("meta"):  # shapes only, nothing is computed
        model = build(num_classes)
        size = model.recipe.image_size
        offsets, logits = model(torch.empty(2, 3, size, size))
    assert offsets.shape == (2, priors, 4)
    assert logits.shape == (2, priors, num_classes)
    assert model.priors.shape == (priors, 4)


def test_number_of_parameters() -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    with torch.device("meta"):
        assert count(ssd300_vgg16(21)) == 26_285_486
        theirs = torchvision_ssd300(weights=None, weights_backbone=None, num_classes=91)
        assert count(ssd300_vgg16(91)) == count(theirs)
        # A normalisation has a scale and a shift for each channel, in place of the convolution's bias.
        biases = sum(m.out_channels for m in VGG16(300).modules() if isinstance(m, nn.Conv2d))
        assert count(ssd300_vgg16(21, batch_norm=True)) == 26_285_486 + biases


def test_images_are_normalised_for_each_channel() -> None:
    class Recorder(OneCell):
        def forward(self, x: Tensor) -> list[Tensor]:
            self.seen = x
            return super().forward(x)

    recipe = PriorRecipe("test", 16, (2,), (0.5, 1.0), ((1.0,),))
    images = torch.rand(2, 3, 16, 16)
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))):
        backbone = Recorder(recipe, (0, 0, 0, 0))
        SSD(backbone, recipe, 2, mean=mean, std=std)(images)
        for c in range(3):
            torch.testing.assert_close(backbone.seen[:, c], (images[:, c] - mean[c]) / std[c])


def test_every_parameter_learns() -> None:
    model = ssd_tiny(3)
    target = {"boxes": torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.7, 0.7, 0.8, 0.8]]), "labels": torch.tensor([1, 2])}
    offsets, logits = model(torch.rand(2, 3, 256, 256))
    losses = multibox_loss(offsets, logits, [target, target], model.priors)
    sum(losses.values()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unused == []
    # Heads of maps where no prior was chosen may have a gradient of 0, the backbone must not.
    assert [name for name, p in model.backbone.named_parameters() if "stages.0" in name and not p.grad.any()] == []


PIXELS = PriorRecipe("pixels", 32, (4,), (0.25, 0.5), ((1.0, "extra"),))


@pytest.mark.parametrize("training", [True, False])
def test_predict_gives_boxes_in_pixels_of_the_original_image(training: bool) -> None:
    model = planted(PIXELS, (0, 1, 2, 0), 3, [0.0] * 4).train(training)  # a square from (0.5, 0.25) to (0.75, 0.5)
    images = [
        Image.new("RGB", (400, 200)),
        torch.zeros(3, 200, 400, dtype=torch.uint8),
        Image.new("RGB", (16, 32)),
        torch.zeros(3, 32, 16, dtype=torch.uint8),
    ]
    results = model.predict(images)
    assert model.training == training
    for found, box in zip(results, [[200, 50, 300, 100]] * 2 + [[8, 8, 12, 16]] * 2, strict=True):
        assert found["labels"].tolist() == [3]
        assert found["boxes"][0].tolist() == pytest.approx(box, abs=1e-3)
        assert not found["scores"].requires_grad


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff"])
def test_predict_turns_photographs_as_their_exif_data_ask(orientation: int, kind: str, tmp_path: Path) -> None:
    photo = Image.new("RGB", (40, 20))
    photo.paste((255, 0, 0), (0, 0, 20, 10))  # so that every turn shows
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / f"photo.{kind}", exif=exif, quality=100)
    stored = load_image(tmp_path / f"photo.{kind}")
    with Image.open(tmp_path / f"photo.{kind}") as image:
        assert torch.equal(upright_rgb(image), stored)
        assert torch.equal(upright_rgb(image), stored)  # also of an image that is decoded
        assert torch.equal(prepare(image, 32), prepare(stored, 32))
        width, height = (20, 40) if orientation > 4 else (40, 20)
        found = planted(PIXELS, (0, 1, 2, 0), 3, [0.0] * 4).predict([image])[0]
    box = [0.5 * width, 0.25 * height, 0.75 * width, 0.5 * height]
    assert found["boxes"][0].tolist() == pytest.approx(box, abs=1e-3)


def test_predict_sees_the_pixels_that_the_data_set_sees(tmp_path: Path) -> None:
    deep = Image.fromarray((np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4))
    palette = Image.new("P", (4, 3))
    palette.putpalette([250, 0, 0, 0, 0, 250])
    deep.save(tmp_path / "deep.png")
    palette.save(tmp_path / "palette.png", transparency=b"\x80\xff")
    Image.new("RGBA", (4, 3), (10, 20, 30, 40)).save(tmp_path / "alpha.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert torch.equal(upright_rgb(image), load_image(path)), path.name


def test_damaged_exif_data_ask_for_nothing() -> None:
    class Damaged(Image.Image):
        def getexif(self) -> Image.Exif:
            raise struct.error("unpack requires a buffer of 4 bytes")

    image = Image.new("RGB", (4, 3), (9, 8, 7))
    image.__class__ = Damaged
    assert upright_rgb(image)[:, 0, 0].tolist() == [9, 8, 7]


def test_numbers_without_a_white_are_no_image() -> None:
    with pytest.raises(ValueError, match="its pixels are floating point numbers"):
        prepare(Image.new("F", (4, 3)), 16)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["offset_head", "class_head"])
def test_predictions_that_are_not_finite_are_refused(part: str, value: float) -> None:
    model = planted(PIXELS, (0, 1, 2, 0), 3, [0.0] * 4)
    with torch.no_grad():
        getattr(model, part).convolutions[0].bias[0] = value
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        model.predict([Image.new("RGB", (32, 32))])


def test_predict_passes_options_to_detect() -> None:
    model = planted(PIXELS, (0, 1, 2, 0), 3, [0.0] * 4)
    image = Image.new("RGB", (32, 32))
    assert len(model.predict([image], min_score=0.0)[0]["labels"]) > 1
    assert len(model.predict([image], min_score=0.0, top_k=1)[0]["labels"]) == 1


def test_predict_of_nothing() -> None:
    assert ssd_tiny(3).predict([]) == []


def test_predict_evaluates_and_goes_back_to_training() -> None:
    model = ssd_tiny(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    one, two = model.predict([image, torch.zeros_like(image)], min_score=0.2)
    (alone,) = model.predict([image], min_score=0.2)
    torch.testing.assert_close(one, alone)  # in training mode the other image would change the normalisation
    assert len(two["scores"]) > 0
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_predict_goes_back_to_training_after_an_error() -> None:
    model = ssd_tiny(3)
    for bad in (torch.zeros(1, 40, 60, dtype=torch.uint8), None):
        with pytest.raises((ValueError, AttributeError)):
            model.predict([bad])
        assert model.training


@pytest.mark.parametrize("part", ["backbone.stage", "", "head"])
def test_parts_that_are_none_cannot_be_frozen(part: str) -> None:
    with pytest.raises(ValueError, match=r"has no part .*; there are backbone, offset_head, class_head and theirs"):
        ssd_tiny(2).freeze([part])


def test_prepare() -> None:
    pixels = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    for size in (64, 20):
        tensor = prepare(image, size)
        assert tensor.shape == (3, size, size)
        assert tensor.dtype == torch.float32
        assert 0 <= tensor.min() < tensor.max() <= 1
        assert torch.equal(tensor, prepare(pixels, size))
    square = pixels[:, :, :48]
    torch.testing.assert_close(prepare(square, 48), square / 255)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_prepare_takes_images_of_every_mode(mode: str) -> None:
    assert prepare(Image.new(mode, (30, 20)), 16).shape == (3, 16, 16)


def test_state_dict_holds_only_what_was_learned() -> None:
    model, other = ssd_tiny(3), ssd_tiny(3)
    names = set(model.state_dict())
    assert not names & {"priors", "mean", "std"}
    assert {name for name, _ in model.named_parameters()} <= names
    assert torch.equal(model.priors, make_priors(TINY))
    other.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 256, 256)
    torch.testing.assert_close(model.eval()(x), other.eval()(x), rtol=0, atol=0)


def test_same_seed_same_weights() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(ssd_tiny(3).state_dict())
    torch.testing.assert_close(*models, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 300, 300), (1, 3, 256, 255), (1, 1, 256, 256), (3, 256, 256)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images \(N, 3, 256, 256\), got \("):
        ssd_tiny(3)(torch.zeros(shape))


def test_class_names() -> None:
    assert ssd_tiny(4).classes == ("1", "2", "3")
    assert ssd_tiny(3, classes=["cat", "dog"]).classes == ("cat", "dog")
    with pytest.raises(ValueError, match=r"4 classes with background need 3 names, got \('cat', 'dog'\)"):
        ssd_tiny(4, classes=["cat", "dog"])
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ssd_tiny(1)


def test_recipe_that_does_not_fit_the_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone with 5 feature maps, recipe with 6"):
        ssd_tiny(3, recipe=SSD300_VOC)
    with pytest.raises(ValueError, match="SSD300 needs a recipe for 300 pixels; 'ssd512-voc'"):
        ssd300_vgg16(3, recipe=SSD512_VOC)
    with pytest.raises(ValueError, match="SSD512 needs a recipe for 512 pixels; 'ssd300-voc'"):
        ssd512_vgg16(3, recipe=SSD300_VOC)
    other_maps = PriorRecipe("other", 256, (32, 16, 8, 4, 1), TINY.scales, TINY.ratios)
    with pytest.raises(ValueError, match=r"recipe 'other' is for maps of \(32, 16, 8, 4, 1\) cells, got .*\(2, 2\)"):
        SSD(Tiny(), other_maps, 3)(torch.zeros(2, 3, 256, 256))


def test_models_by_name() -> None:
    with torch.device("meta"):
        for name in ARCHITECTURES:
            model = build_model(name, ["cat", "dog"])
            assert model.architecture == name
            assert model.num_classes == 3
            assert model.classes == ("cat", "dog")
            assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == (
                name[-3:] == "_bn" or "tiny" in name or "lite" in name
            )
        assert build_model("ssd300_vgg16", ["cat"], recipe=SSD300_CAFFE).recipe == SSD300_CAFFE
    with pytest.raises(ValueError, match="no architecture 'ssd999'; there are ssd300_vgg16, "):
        build_model("ssd999", ["cat"])


def test_classifier_weights_reach_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    given_weights: list[tuple[Any, Any]] = []
    monkeypatch.setattr(VGG16, "load_classifier", lambda self, weights: given_weights.append((self, weights)))
    weights = {"features.0.weight": torch.zeros(1)}
    with torch.device("meta"):
        models = [ssd300_vgg16(3, classifier_weights=weights), ssd512_vgg16(3, classifier_weights=weights)]
    assert given_weights == [(model.backbone, weights) for model in models]
