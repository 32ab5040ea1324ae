from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssdlib.data.sample
from ssdlib.data import TOY_CLASSES, VOCDataset, check_voc, sample_root
from ssdlib.data.sample import make_sample

COMMITTED = Path(__file__).parents[2] / "data" / "sample"


def texts(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob("*") if p.suffix in {".xml", ".txt", ".json"})
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in files}


def test_the_sample_of_the_clone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert sample_root() == COMMITTED.resolve()


def test_sample_is_small_and_sound():
    files = [p for p in COMMITTED.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 1_500_000
    report = check_voc(COMMITTED, progress=False)
    assert report.ok
    assert report.findings == report.warnings == ()
    assert report.sets == {"test": 32, "train": 48, "trainval": 64, "val": 16}
    assert tuple(c.name for c in report.classes) == TOY_CLASSES
    assert all(c.objects >= 20 for c in report.classes)
    assert sum(c.difficult for c in report.classes) > 0
    assert report.empty
    assert VOCDataset(COMMITTED, "train").classes == TOY_CLASSES


@pytest.mark.slow
def test_sample_can_be_made_again(tmp_path: Path):
    again = make_sample(tmp_path / "sample")
    assert texts(again) == texts(COMMITTED)
    images = sorted((COMMITTED / "JPEGImages").iterdir())
    assert [p.name for p in images] == [p.name for p in sorted((again / "JPEGImages").iterdir())]
    for path in images:
        with Image.open(path) as first, Image.open(again / "JPEGImages" / path.name) as second:
            difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
        # Another build of the JPEG library may round otherwise; a changed drawing differs by far more.
        assert np.abs(difference).mean() < 1, path.name


@pytest.mark.slow
def test_without_a_clone_the_sample_is_drawn_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = tmp_path / "lib" / "ssdlib" / "data" / "sample.py"
    monkeypatch.setattr(ssdlib.data.sample, "__file__", str(installed))
    monkeypatch.setenv("SSDLIB_CACHE", str(tmp_path / "cache"))
    root = sample_root()
    assert root == tmp_path / "cache" / "sample"
    assert texts(root) == texts(COMMITTED)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert sample_root() == root
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert [p.name for p in root.parent.iterdir()] == ["sample"]


@pytest.mark.slow
def test_the_cache_follows_a_new_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ssdlib.data.sample, "__file__", str(tmp_path / "lib" / "ssdlib" / "data" / "sample.py"))
    monkeypatch.setenv("SSDLIB_CACHE", str(tmp_path / "cache"))
    old = make_sample(tmp_path / "cache" / "sample")
    text = (old / "toy.json").read_text()
    (old / "toy.json").write_text(text.replace('"version": 1', '"version": 0'))
    assert (sample_root() / "toy.json").read_text() == text


def test_the_cache_is_in_the_home_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ssdlib.data.sample, "__file__", str(tmp_path / "lib" / "ssdlib" / "data" / "sample.py"))
    monkeypatch.delenv("SSDLIB_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    made = []
    monkeypatch.setattr(ssdlib.data.sample, "make_sample", lambda root, overwrite: made.append(root) or root)
    assert sample_root() == tmp_path / "home" / ".cache" / "ssdlib" / "sample"
    assert len(made) == 1
