""" "Your photograph": what the page computes is what ssdlib computes, and what it runs on is what was checked."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import photograph_files
import photograph_page
import pytest
import torch
from support.openimages import openimages
from support.photograph_page import detector_files
from support.photographs import PHOTOGRAPHS, photograph
from support.playground import run_node
from support.small_site import build

from ssdlib.boxes import iou
from ssdlib.detection import detect_plainly
from ssdlib.model import prepare
from ssdlib.priors import SSD300_MOBILENET, make_priors
from ssdlib.zoo.photographs import sample_photograph


@pytest.fixture(scope="module")
def detector() -> Path:
    return detector_files()


def node(script: str, folder: Path, **given: Any) -> Any:
    return run_node(script, folder, photograph_page.arithmetic(), **given)


@pytest.mark.parametrize(("height", "width"), [(300, 451), (90, 700), (300, 300), (601, 149)])
def test_a_photograph_becomes_the_input_that_ssdlib_makes(tmp_path: Path, height: int, width: int) -> None:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    image[:, : height // 2] //= 9  # dark and even parts, too
    alpha = torch.full((1, height, width), 255, dtype=torch.uint8)
    rgba = torch.cat([image, alpha]).permute(1, 2, 0).flatten().tolist()
    made = node(f"print(prepareImage(Uint8ClampedArray.from(rgba), {width}, {height}, 300))", tmp_path, rgba=rgba)
    difference = ((torch.tensor(made).view(3, 300, 300) - prepare(image, 300)) * 255).abs()
    # PyTorch resizes bytes by the same whole numbers with AVX2; elsewhere it rounds once, not twice.
    assert difference.max() < (0.01 if "AVX2" in torch.backends.cpu.get_cpu_capability() else 1.01)


def test_priors_are_those_of_the_recipe(tmp_path: Path) -> None:
    maps = photograph_files.facts(openimages())["maps"]
    made = node("print(priorsOfMaps(maps).map(({ prior }) => prior))", tmp_path, maps=maps)
    torch.testing.assert_close(torch.tensor(made), make_priors(SSD300_MOBILENET), rtol=0, atol=1e-6)
    places = node(
        "print(priorsOfMaps(maps).map(({ map, row, column, shape }) => [map, row, column, shape]))", tmp_path, maps=maps
    )
    for prior in (0, 1082, 1083, 1500, 1916):
        assert places[prior] == list(SSD300_MOBILENET.locate(prior))


SCRIPT = """
const priors = priorsOfMaps(maps);
const scores = objectScores(Float32Array.from(logits), 24);
const boxes = boxesOf(Float32Array.from(offsets), priors);
const { kept, removed } = suppress(candidatesOf(scores, boxes, minScore), maxOverlap);
print({ kept, removed, heat: maps.map(({ cells }, map) => heatOfMap(scores, priors, map, cells, label)) });
"""


@pytest.mark.parametrize(("min_score", "max_overlap", "label"), [(0.3, 0.45, 0), (0.05, 0.7, 16), (0.02, 0.2, 4)])
def test_detections_and_heat_are_those_of_ssdlib(
    tmp_path: Path, min_score: float, max_overlap: float, label: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    offsets = torch.randn(1, 1917, 4, generator=generator)
    logits = 1.5 * torch.randn(1, 1917, 24, generator=generator) - 6
    priors = make_priors(SSD300_MOBILENET)
    offsets[0, 0] = torch.tensor([0.0, 0, -99, -99])  # a box without area, and sure
    logits[0, 0] = 3
    logits[0, 1200:1220, 7] = 1.0  # equal scores
    given = {"offsets": offsets.flatten().tolist(), "logits": logits.flatten().tolist()}
    maps = photograph_files.facts(openimages())["maps"]
    made = node(SCRIPT, tmp_path, maps=maps, minScore=min_score, maxOverlap=max_overlap, label=label, **given)
    options = {"top_k": 10_000, "activation": "sigmoid"}
    (found,) = detect_plainly(offsets, logits, priors, min_score, max_overlap, **options)  # type: ignore[arg-type]
    assert len(made["kept"]) == len(found["scores"]) > 10
    assert [one["label"] for one in made["kept"]] == found["labels"].tolist()
    torch.testing.assert_close(torch.tensor([one["box"] for one in made["kept"]]), found["boxes"], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor([one["score"] for one in made["kept"]]), found["scores"], rtol=0, atol=1e-6)
    for one in made["removed"]:
        assert one["by"]["label"] == one["label"]
        assert one["by"]["score"] >= one["score"]
        overlap = iou(torch.tensor([one["by"]["box"]]), torch.tensor([one["box"]])).item()
        assert one["overlap"] == pytest.approx(overlap, abs=1e-5)
        assert overlap > max_overlap
    scores = logits[0].sigmoid()[:, 1:]
    best = scores[:, label - 1] if label else scores.amax(dim=1)
    start = 0
    for cells, count, heat in zip(
        SSD300_MOBILENET.map_sizes, SSD300_MOBILENET.priors_per_cell, made["heat"], strict=True
    ):
        wanted = best[start : start + cells * cells * count].view(-1, count).amax(dim=1)
        torch.testing.assert_close(torch.tensor(heat), wanted, rtol=0, atol=1e-6)
        start += cells * cells * count


# ---- what it runs on -------------------------------------------------------------------------------------------


def test_the_network_is_half_as_large_and_predicts_the_same(detector: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="no ONNX Runtime to compare with")
    content = gzip.decompress((detector / "model.bin").read_bytes())
    assert len(content) < 10_000_000
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = prepare(photograph("chelsea"), 300)[None]
    with torch.no_grad():
        wanted = openimages()(images)
    for ours, theirs in zip(wanted, session.run(["offsets", "logits"], {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-4)


def test_weights_that_are_no_half_precision_numbers_are_not_rounded() -> None:
    onnx = pytest.importorskip("onnx", reason="no onnx")
    values = np.linspace(0, 1, 32, dtype=np.float32)
    weight = onnx.numpy_helper.from_array(values, "weight")
    graph = onnx.helper.make_graph([], "graph", [], [], [weight])
    with pytest.raises(ValueError, match="weight does not fit into float16"):
        photograph_files.halved(onnx.helper.make_model(graph).SerializeToString())


def test_what_an_earlier_version_kept_is_removed_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photograph_files.openimages, "cached_file", lambda: tmp_path / "weights")
    for name, days in (("photograph-old", 8), ("photograph-other", 6), ("weights-old", 99)):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    kept = photograph_files.kept("photograph-new", lambda folder: (folder / "model.bin").touch())
    assert [path.name for path in kept.iterdir()] == ["model.bin"]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "photograph-new",
        "photograph-other",
        "weights-old",
    }
    os.utime(kept, (0, 0))
    photograph_files.kept("photograph-new", lambda folder: pytest.fail("it is there"))
    assert time.time() - kept.stat().st_mtime < 60  # in use again


def test_another_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(*_: Any, **__: Any) -> Path:
        path = tmp_path / "onnxruntime-web-1.30.0.tgz"
        path.write_bytes(b"something else")
        return path

    monkeypatch.setattr(photograph_files, "pack", packed)
    with pytest.raises(ValueError, match=r"onnxruntime-web-1\.30\.0\.tgz has the SHA-256 sum"):
        photograph_files.runtime_files(tmp_path)


def test_the_site_says_whose_the_files_are(detector: Path) -> None:
    said = (detector / "NOTICE.txt").read_text(encoding="utf-8")
    assert all(f"{name}.png: " in said for name in PHOTOGRAPHS)
    for part in (
        "onnxruntime-web 1.30.0",
        "Copyright (c) Microsoft Corporation",
        "Permission is hereby granted",
        "Apache",
        photograph_files.BUILT_IN,
    ):
        assert part in said
    assert "protobuf" in (detector / photograph_files.BUILT_IN).read_text(encoding="utf-8").lower()


def test_another_network_does_not_fetch_the_runtime_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def unpacked(folder: Path, **_: Any) -> dict[str, bytes]:
        fetched.append(folder)
        return {"runtime.js": b"script", "runtime.bin": b"program"}

    monkeypatch.setattr(photograph_files, "runtime_files", unpacked)
    monkeypatch.setattr(photograph_files.openimages, "cached_file", lambda: tmp_path / "cache" / "network")
    for _ in range(2):
        folder = photograph_files.runtime_folder(progress=False)
        assert (folder / "runtime.js").read_bytes() == b"script"
        assert gzip.decompress((folder / "runtime.bin").read_bytes()) == b"program"
    assert len(fetched) == 1
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]  # nothing half made is left


# ---- the build -------------------------------------------------------------------------------------------------


def site(root: Path, monkeypatch: pytest.MonkeyPatch, found: Path | str) -> tuple[str, str]:
    """Two pages, one with the place of the detector."""
    monkeypatch.setattr(photograph_page, "detector", lambda: found)
    (root / "conf.py").write_text("extensions = ['myst_parser', 'photograph_page']\n")
    (root / "index.md").write_text("# Start\n\n```{toctree}\nphotograph\n```\n")
    text = (photograph_page.FOLDER.parent / "photograph.md").read_text(encoding="utf-8")
    place = text[text.index("```{raw} html") : text.index("## What you see")]
    (root / "photograph.md").write_text(f"# Your photograph\n\n{place}")
    assert build(root) == ""
    return tuple((root / "out" / name).read_text(encoding="utf-8") for name in ("photograph.html", "index.html"))  # type: ignore[return-value]


def test_the_build_goes_on_without_the_detector_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, other = site(tmp_path, monkeypatch, "there is no npm")
    assert "Without the detector" in page
    assert photograph_page.SCRIPT not in page + other
    assert list((tmp_path / "out" / "_static" / "photograph").glob("*")) == []


def test_files_stand_beside_the_pages_and_only_one_page_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "found"
    found.mkdir()
    (found / photograph_files.ABOUT).write_text('{"classes": ["</script>"]}')
    (found / "model.bin").write_bytes(b"network")
    page, other = site(tmp_path, monkeypatch, found)
    beside = tmp_path / "out" / "_static" / "photograph"
    assert [path.name for path in beside.iterdir()] == ["model.bin"]
    assert photograph_page.SCRIPT in page
    assert '"\\u003c/script>"' in page
    assert "ssd-photo" not in other
    (found / "model.bin").unlink()
    (found / "other.bin").write_bytes(b"another")
    site(tmp_path, monkeypatch, found)
    assert [path.name for path in beside.iterdir()] == ["other.bin"]


def test_the_page_knows_what_it_shows(detector: Path) -> None:
    about = json.loads((detector / photograph_files.ABOUT).read_text())
    assert [one["file"] for one in about["samples"]] == [f"{name}.png" for name in PHOTOGRAPHS]
    assert all((detector / one["file"]).is_file() and one["credit"] for one in about["samples"])
    assert sample_photograph("portrait").credit == "{name}: {credit}".format(**about["samples"][3]).rstrip(".")
    fetched = sum((detector / name).stat().st_size for name in about["files"].values())
    assert about["sizes"]["fetched"] == fetched < 14_000_000
