"""Transfer learning: which weights a detector takes over from another one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssdlib.model import ARCHITECTURES, SSD, TINY, build_model
from ssdlib.zoo.transfer import early_parts, take_over


def detector(architecture: str, classes: list[str]) -> SSD:
    """A detector whose random scores are not all near 0."""
    model = build_model(architecture, classes)
    for tensor in model.class_head.parameters():
        torch.nn.init.normal_(tensor)
    return model


def scores_of(model: SSD, images: Tensor) -> Tensor:
    """(N, P, C) logits."""
    with torch.no_grad():
        logits: Tensor = model.eval()(images)[1]
    return logits


@pytest.mark.parametrize("architecture", ["ssd_tiny", "ssdlite320_mobilenet_v3"])
def test_shared_classes_keep_their_scores(architecture: str):
    source, model = detector(architecture, ["cat", "dog", "cow"]), detector(architecture, ["owl", "cow", "cat"])
    images = torch.rand(1, 3, source.recipe.image_size, source.recipe.image_size)
    before = scores_of(model, images)
    done = take_over(model, source)
    assert done.classes == ("cow", "cat")
    assert all(name.startswith("class_head.convolutions.") for name in done.new)
    assert "classes kept: cow, cat; new: class_head.convolutions.0" in str(done)
    theirs, ours = scores_of(source, images), scores_of(model, images)
    torch.testing.assert_close(ours[..., [0, 2, 3]], theirs[..., [0, 3, 1]], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours[..., 1], theirs[..., 1])  # the owl is new
    assert not torch.allclose(ours, before)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[0], source(images)[0])  # the offsets are theirs


def test_the_same_classes_take_everything():
    source, model = (build_model("ssd_tiny", ["cat", "dog"]) for _ in range(2))
    done = take_over(model, source)
    assert (done.new, done.taken) == ((), len(model.state_dict()))
    assert str(done).endswith("new: nothing")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_no_class_in_common_keeps_background_alone():
    source, model = build_model("ssd_tiny", ["cat"]), build_model("ssd_tiny", ["owl", "elk"])
    fresh = model.state_dict()["class_head.convolutions.0.weight"].clone()
    assert "no class kept" in str(take_over(model, source))
    ours = model.state_dict()["class_head.convolutions.0.weight"].unflatten(0, (-1, 3))
    theirs = source.state_dict()["class_head.convolutions.0.weight"].unflatten(0, (-1, 2))
    assert torch.equal(ours[:, 0], theirs[:, 0])
    assert torch.equal(ours[:, 1:], fresh.unflatten(0, (-1, 3))[:, 1:])


def test_another_network_or_other_priors_are_refused():
    tiny = build_model("ssd_tiny", ["cat"])
    with pytest.raises(
        ValueError, match=r"ssd_tiny cannot start from ssdlite320.*: backbone\..* does not fit, and \d+ more"
    ):
        take_over(tiny, build_model("ssdlite320_mobilenet_v3", ["cat"]))
    other = build_model("ssd_tiny", ["cat"])
    other.priors = tiny.priors * 0.9
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    with pytest.raises(ValueError, match="has other priors than"):
        take_over(tiny, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.state_dict().items())


def test_with_other_priors_the_features_can_be_taken_over_alone():
    source = build_model("ssd_tiny", ["cat"])
    model = build_model("ssd_tiny", ["cat"], recipe=replace(TINY, name="more", ratios=((1.0, 2.0),) * 5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = take_over(model, source, heads=False)
    assert done.classes == ()
    assert {name.split(".")[0] for name in done.new} == {"offset_head", "class_head"}
    for name, tensor in model.state_dict().items():
        of = before if name in done.new else source.state_dict()
        assert torch.equal(tensor, of[name]), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_early_parts_are_the_first_layers_before_a_cell_stands_for_16_pixels(architecture: str):
    with torch.device("meta"):
        model = build_model(architecture, ["owl"]).eval()
    parts = early_parts(model)
    model.freeze(parts)
    learns = [parameter.requires_grad for parameter in model.parameters()]
    assert learns == sorted(learns), "a layer that learns stands before one that does not"
    assert 0 < learns.count(False) < len(learns)

    sides = []
    size = model.recipe.image_size
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            frozen = name.startswith(tuple(f"{part}." for part in parts))
            module.register_forward_hook(lambda _m, _i, y, frozen=frozen: sides.append((frozen, y.shape[-1])))
    with torch.device("meta"):
        model(torch.zeros(1, 3, size, size))
    assert min(side for frozen, side in sides if frozen and side > 1) * 8 >= size * 0.98  # 1: squeeze and excite
    assert max(side for frozen, side in sides if not frozen) * 4 <= size * 1.02


def test_what_is_early_in_a_backbone_of_others_is_not_guessed():
    model = build_model("ssd_tiny", ["owl"])
    model.backbone = torch.nn.Sequential()
    with pytest.raises(ValueError, match="which parts of Sequential are early is not known"):
        early_parts(model)
