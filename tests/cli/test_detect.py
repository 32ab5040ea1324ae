"""`ssd detect`: what goes in by names, folders and patterns, what comes out, and that nothing is lost on the way."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pytest
import typer
from PIL import Image
from support.commands import call, refused

from ssdlib.data import sample_root
from ssdlib.deploy import Detector
from ssdlib.zoo.checkpoint import demo_model, save_model

PHOTOS = sorted((sample_root() / "JPEGImages").glob("*.jpg"))[:3]
CPU = ("--device", "cpu")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return save_model(demo_model(), tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in PHOTOS:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_folder_with_lines_table_and_crops(demo: Path, photos: Path, tmp_path: Path):
    lines, table, crops = tmp_path / "found.jsonl", tmp_path / "found.csv", tmp_path / "crops"
    result = call("detect", demo, photos, *CPU, "--json", lines, "--csv", table, "--crop", crops)
    assert result.exit_code == 0, result.output
    assert "3 images in" in result.output
    assert "images/s" in result.output
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    wanted = [
        {"file": str(photos / path.name), **row} for path in PHOTOS for row in Detector(demo, device="cpu")(path).rows()
    ]
    assert written == wanted
    assert wanted
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["class"], float(row["score"])) for row in rows] == [
        (line["file"], line["class"], line["score"]) for line in wanted
    ]
    assert [float(rows[0][corner]) for corner in ("x_min", "y_min", "x_max", "y_max")] == wanted[0]["box"]
    pictures = sorted(crops.iterdir())
    assert len(pictures) == len(wanted)
    first = next(path for path in pictures if path.name.startswith(f"{PHOTOS[0].stem}_000_"))
    with Image.open(first) as picture:
        width = wanted[0]["box"][2] - wanted[0]["box"][0]
        assert abs(picture.width - width) <= 2


def test_patterns_classes_and_thresholds(demo: Path, photos: Path):
    def classes(*options: object) -> list[str]:
        result = call("detect", demo, photos / "*.jpg", *CPU, *options)
        assert result.exit_code == 0, result.output
        return [json.loads(line)["class"] for line in result.stdout.splitlines()]

    everything = classes("--min-score", 0.05)
    chosen = sorted(set(everything))[:1]
    assert len(set(everything)) > 1
    assert set(classes("--min-score", 0.05, "--classes", chosen[0])) == set(chosen)
    assert set(classes("--min-score", 0.05, "--without", chosen[0])) == set(everything) - set(chosen)
    assert len(classes("--min-score", 0.05, "--top-k", 1)) == len(PHOTOS)
    assert len(classes("--min-score", 0.05, "--max-overlap", 1)) > len(everything)
    assert len(classes("--tiles", 200)) > 0


def test_a_table_of_nothing_has_its_head(demo: Path, photos: Path, tmp_path: Path):
    result = call("detect", demo, photos, *CPU, "--min-score", 1, "--csv", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.csv").read_text() == "file,class,score,x_min,y_min,x_max,y_max\n"


def test_a_bad_file_does_not_lose_the_table(demo: Path, photos: Path, tmp_path: Path):
    (photos / "bad.jpg").write_text("no image")
    result = call("detect", demo, photos, *CPU, "--csv", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert "bad.jpg: cannot be decoded" in result.output
    assert len((tmp_path / "a.csv").read_text().splitlines()) > 1


def test_what_would_be_lost_is_refused(demo: Path, photos: Path, tmp_path: Path):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    image = photos / PHOTOS[0].name
    assert "would replace" in refused("detect", demo, photos, "--json", image)
    assert "would replace" in refused("detect", demo, photos, "--csv", demo)
    assert "cannot hold both" in refused("detect", demo, photos, "--csv", tmp_path / "a", "--json", tmp_path / "a")
    assert "holds the images" in refused("detect", demo, photos, "--crop", photos)
    assert "no class 'unicorn'" in refused("detect", demo, photos, "--classes", "unicorn")
    assert "no file fits the pattern" in refused("detect", demo, tmp_path / "*.xyz")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_was_written_is_shown(demo: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", lambda path: opened.append(path) or 0)
    picture, folder = tmp_path / "a.png", tmp_path / "found"
    assert call("detect", demo, PHOTOS[0], *CPU, "--out", picture).exit_code == 0
    assert opened == []
    assert call("detect", demo, PHOTOS[0], *CPU, "--out", picture, "--show").exit_code == 0
    assert call("detect", demo, photos, *CPU, "--out", folder, "--show").exit_code == 0
    assert opened == [str(picture), str(folder)]
    assert "say with --out where" in refused("detect", demo, photos, "--show")
    monkeypatch.setattr(typer, "launch", lambda path: 3)
    result = call("detect", demo, PHOTOS[0], *CPU, "--out", picture, "--show")
    assert result.exit_code == 0
    assert "no program here to show" in result.output


def test_a_class_is_no_path(tmp_path: Path):
    model = demo_model()
    model.classes = ("../../evil", *model.classes[1:])
    save_model(model, tmp_path / "model.safetensors")
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    out = tmp_path / "deep" / "crops"
    result = call("detect", tmp_path, tmp_path / "a.png", *CPU, "--min-score", 0, "--crop", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "deep", "model.safetensors"]
    assert any("evil" in path.name for path in out.iterdir())
