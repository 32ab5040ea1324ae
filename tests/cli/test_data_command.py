"""`ssd data` as a user meets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.coco_folder import annotation, image, write_coco
from support.file_server import FileServer, serving
from support.label_sets import picture, text
from support.voc_archives import md5, packed, write_part
from support.voc_folder import object_xml, write_voc
from typer.testing import CliRunner, Result

from ssdlib.cli import app
from ssdlib.data import VOCDataset, download
from ssdlib.data.download import VOC_ARCHIVES, Archive


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with small archives of the published names."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    files = {}
    for name, archive in list(VOC_ARCHIVES.items()):
        folder = tmp_path / "made" / name
        write_part(folder / archive.folder, archive.image_set, [f"{archive.image_set}_{archive.folder}"])
        content = files[archive.filename] = packed(folder)
        small = Archive(archive.url, md5(content), archive.folder, archive.image_set, 1)
        monkeypatch.setitem(VOC_ARCHIVES, name, small)
    with serving(FileServer(files)) as server:
        yield server


def test_voc(mirror: FileServer, tmp_path: Path):
    root = tmp_path / "data"
    command = ("data", "voc", "--root", root, "--url", mirror.url)
    mirror.plan = [("cut", 5000)]
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert f"complete: {root / 'VOC2007'}\ncomplete: {root / 'VOC2012'}\n" in result.output
    assert VOCDataset(root / "VOC2007", "test").ids == ["test_VOC2007"]
    assert len(mirror.requests) == 4
    assert call(*command).exit_code == 0
    assert len(mirror.requests) == 4


def test_voc_in_part(mirror: FileServer, tmp_path: Path):
    parts = ("--part", "2012-trainval", "--part", "2007-test", "--keep")
    result = call("data", "voc", "--root", tmp_path, "--url", mirror.url, *parts)
    assert result.exit_code == 0, result.output
    names = [VOC_ARCHIVES[name].filename for name in ("2012-trainval", "2007-test")]
    assert [name for name, _ in mirror.requests] == names
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == sorted(names)
    assert call("data", "voc", "--root", tmp_path, "--part", "2020").exit_code == 2


def test_voc_says_plainly_what_went_wrong(mirror: FileServer, tmp_path: Path):
    mirror.files["VOCtest_06-Nov-2007.tar"] = b"something else"
    result = call("data", "voc", "--root", tmp_path, "--url", mirror.url)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    last = result.output.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"VOCtest_06-Nov-2007.tar from {mirror.url}" in last
    assert md5(b"something else") in last
    assert VOCDataset(tmp_path / "VOC2007", "trainval").ids == ["trainval_VOC2007"]  # what came before stays


def test_check_knows_both_layouts(tmp_path: Path):
    write_coco(tmp_path, "val2017", [image(1)], [annotation(1, 1, 3, [0, 0, 20, 15])])
    result = call("data", "check", tmp_path)
    assert result.exit_code == 0, result.output
    assert "1 object of 2 classes" in result.output
    assert result.output.rstrip().endswith("ok")
    write_coco(tmp_path, "val2017", [image(1)], [annotation(1, 1, 3, [0, 0, 0, 15])])
    result = call("data", "check", tmp_path)
    assert result.exit_code == 1
    assert "annotations/instances_val2017.json, object 0: zero area, refused" in result.output


def test_convert_says_what_came_over(tmp_path: Path):
    picture(tmp_path / "labelled" / "a.jpg")
    text(tmp_path / "labelled" / "a.txt", "0 .5 .5 .5 .5\n7 .5 .5 .5 .5\n")
    text(tmp_path / "labelled" / "classes.txt", "cat\n")
    result = call("data", "convert", tmp_path / "labelled", "--out", tmp_path / "set")
    assert result.exit_code == 1, result.output  # an object was left out
    assert "objects: 2 in the labels, 1 came over; left out: unknown class 1" in result.output
    assert "a.txt, object 1: unknown class, refused: '7' is none of 0 to 0" in result.output
    assert call("data", "check", tmp_path / "set").exit_code == 0
    text(tmp_path / "labelled" / "a.txt", "0 .5 .5 .5 .5\n")
    result = call("data", "convert", tmp_path / "labelled", "--out", tmp_path / "voc", "--to", "voc", "--from", "yolo")
    assert result.exit_code == 0, result.output
    assert VOCDataset(tmp_path / "voc", "all").ids == ["a"]
    result = call("data", "convert", tmp_path / "labelled", "--out", tmp_path / "voc")
    assert result.exit_code == 2
    assert "choose another folder" in result.output


def test_split_prints_a_table(tmp_path: Path):
    objects = {str(i): [object_xml("cat", 1, 1, 30, 20)] for i in range(10)}
    root = write_voc(tmp_path / "set", {"all": list(objects)}, objects)
    result = call("data", "split", root, "--val", 0.2, "--test", 0.3, "--threshold", -1)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["cat", "10", "in", "10", "5", "in", "5", "2", "in", "2", "3", "in", "3"] in rows
    assert [len(VOCDataset(root, name)) for name in ("train", "val", "test", "trainval")] == [5, 2, 3, 7]
    again = call("data", "split", root)
    assert again.exit_code == 2
    assert "--force replaces them" in again.output
    assert call("data", "split", root, "--force", "--seed", 2).exit_code == 0


def test_show_writes_a_page(tmp_path: Path):
    root = write_voc(tmp_path / "set", {"train": ["a", "b"]}, {"a": [object_xml("cat", 1, 1, 10, 10)]})
    out = tmp_path / "new" / "sheet.html"
    result = call("data", "show", root, "--out", out, "--class", "cat", "--order", "smallest", "--smaller", 0.5)
    assert result.exit_code == 0, result.output
    assert f"1 of 1 image with 1 object, of 2 images in the set: {out}" in result.output
    page = out.read_text(encoding="utf-8")
    assert "<h1>set, set train</h1>" in page
    assert page.count("<figure>") == 1
    for args, message in (
        (("--class", "cow"), "no class 'cow'; there are cat"),
        (("--image-set", "val"), "no image set 'val'"),
    ):
        result = call("data", "show", root, "--out", tmp_path / "other.html", *args)
        assert result.exit_code == 2
        assert message in result.output
    assert not (tmp_path / "other.html").exists()
    assert "choose another folder" in call("data", "show", root, "--out", root / "Annotations" / "x.html").output
    photograph = root / "JPEGImages" / "a.png"
    before = photograph.read_bytes()
    result = call("data", "show", root, "--out", photograph)  # a slip of the hand must not cost a photograph
    assert result.exit_code == 2
    assert "the ending .png is not supported; take one such as" in result.output
    assert "a.html" in result.output
    for place in ("JPEGImages", "images"):  # of a photograph that is in another set than the one that is shown
        result = call("data", "show", root, "--out", root / place / "a.html")
        assert result.exit_code == 2
        assert "which is read: choose another folder" in result.output
    assert photograph.read_bytes() == before
