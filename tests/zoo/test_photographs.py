"""The sample photographs, and that the recorded outputs are those of the network."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.openimages import openimages
from support.photographs import photograph

from ssdlib.model import prepare
from ssdlib.zoo.openimages import CLASSES, MODEL_SHA256, PACKAGE, VERSION
from ssdlib.zoo.photographs import OUTPUTS, PHOTOGRAPHS, photograph_pixels, sample_photograph

NAMES = [*PHOTOGRAPHS]


@pytest.mark.parametrize("name", NAMES)
def test_recorded_outputs_are_those_of_the_network(name: str) -> None:
    """Half precision rounds logits near 19 to 0.008, and processors resize with other roundings."""
    model = openimages()
    with torch.no_grad():
        offsets, logits = model(prepare(photograph(name), 300)[None])
    found = sample_photograph(name)
    assert found.offsets.shape == offsets.shape == (1, 1917, 4)
    assert found.logits.shape == logits.shape == (1, 1917, 24)
    a_jpeg = name == "portrait"  # which another version of Pillow decodes to other pixels, by a level or two
    torch.testing.assert_close(found.logits.sigmoid(), logits.sigmoid(), rtol=0, atol=2e-2 if a_jpeg else 2e-3)
    if not a_jpeg:
        torch.testing.assert_close(found.offsets, offsets, rtol=1e-3, atol=0.03)
        torch.testing.assert_close(found.logits, logits, rtol=1e-3, atol=0.03)
    assert torch.equal(found.priors, model.priors)
    assert (found.recipe, found.activation) == (model.recipe, model.activation)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chelsea", [("Cat", 0.85)]),
        ("coffee", [("Coffee cup", 0.56)]),
        ("astronaut", [("Person", 0.59), ("Bottle", 0.30)]),
        ("portrait", [("Person", 0.48)]),
    ],
)
def test_what_is_found(name: str, expected: list[tuple[str, float]]) -> None:
    photograph(name)  # or skip
    photo = sample_photograph(name)
    found = photo.predict(min_score=0.3)
    scores = [round(score, 2) for score in found["scores"].tolist()]
    assert [*zip((photo.classes[label - 1] for label in found["labels"].tolist()), scores, strict=True)] == expected
    height, width = photo.image.shape[1:]
    assert ((found["boxes"] >= 0) & (found["boxes"] <= torch.tensor([width, height, width, height]))).all()
    assert (found["boxes"][:, 2:] - found["boxes"][:, :2] > 40).all()  # pixels, not fractions
    assert (photo.image.dtype, photo.image.shape[0]) == (torch.uint8, 3)


def test_the_box_of_the_cat_lies_on_the_cat() -> None:
    photograph("chelsea")
    (box,) = sample_photograph("chelsea").predict(min_score=0.3)["boxes"]
    x_min, y_min, x_max, y_max = box.tolist()
    assert x_min < 175 < x_max  # an eye of hers, at (175, 107)
    assert y_min < 107 < y_max


def test_origin_and_terms_are_said() -> None:
    with safe_open(OUTPUTS, "pt") as outputs:
        origin: dict[str, str] = outputs.metadata()
        assert {*outputs.keys()} == {f"{name}.{what}" for name in PHOTOGRAPHS for what in ("offsets", "logits")}
    assert (origin["package"], origin["model_sha256"]) == (f"npm {PACKAGE} {VERSION}", MODEL_SHA256)
    assert tuple(json.loads(origin["classes"])) == CLASSES
    assert (sample_photograph("portrait").credit, sample_photograph("portrait").classes) == (
        "Grace Hopper: US Navy, public domain; from matplotlib",
        CLASSES,
    )


def test_other_names_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no sample photograph 'dog'; there are chelsea, coffee"):
        sample_photograph("dog")

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "skimage":
            raise ModuleNotFoundError("No module named 'skimage'")
        return real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError, match=r"'coffee' comes with scikit-image.*: pip install scikit-image"):
        photograph_pixels("coffee")
    assert photograph_pixels("portrait").shape == (3, 600, 512)


def test_photographs_can_be_compared() -> None:
    one, other = sample_photograph("portrait"), sample_photograph("portrait")
    assert one == one != other  # by identity: tensors have no single truth
    assert len({one, other}) == 2
    one.image.zero_()
    assert sample_photograph("portrait").image.any()
