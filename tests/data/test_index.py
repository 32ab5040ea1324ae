"""The index of a data set: the same answer as the files give, and no way to make it another one."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.coco_folder import annotation, image, write_coco
from support.voc_folder import object_xml, write_annotation, write_image, write_voc

from ssdlib.data import AnnotatedDataset, CocoDataset, DataWarning, VOCDataset, coco, index, voc

CAT, DOG = object_xml("cat", 1, 1, 20, 25), object_xml("dog", 3, 4, 300, 12, difficult=1)  # partly outside


def settle(root: Path) -> None:
    """Let all files be a minute old."""
    past = time.time() - 60
    for path in [*root.rglob("*"), root]:
        if index.FOLDER not in path.parts:
            os.utime(path, (past, past))


@pytest.fixture(autouse=True)
def every_set_has_one(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    monkeypatch.setattr(index, "LEAST", 1)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSDLIB_CACHE", str(cache))
    return cache


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    objects = {"a": [CAT, object_xml("cat", 5, 5, 5, 9)], "c": [DOG], "d": [object_xml("emu", 1, 1, 9, 9)]}
    root = write_voc(tmp_path / "voc", {"train": ["a", "b", "c"], "test": ["d"]}, objects)
    write_image(root, "sub dir.jpg")
    settle(root)
    return root


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    images = [image(9), image("two", "sub/b.png"), image(5, size=(64, 20))]
    objects = [annotation(1, "two", 3, [2, 3.5, 10, 20]), annotation(2, 9, 7, [0, 0, 50, 30])]
    write_coco(root, "train", images, [*objects, annotation(3, 5, 7, [1 / 3, 1, 7.1, 5], crowd=1)])
    settle(root)
    return root


def quietly(open_set: Callable[[], AnnotatedDataset]) -> AnnotatedDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_set()


def known(dataset: AnnotatedDataset) -> list[Any]:
    rows = []
    for row in dataset._images:
        arrays = [(array.dtype, array.shape, array.tolist()) for array in (row.boxes, row.labels, row.difficult)]
        assert isinstance(row.size, tuple)
        rows.append((row.image_id, row.image_path, row.size, row.upright, arrays, row.findings))
    return [dataset.classes, dataset.findings, *rows]


def indices(root: Path) -> list[Path]:
    return sorted((root / index.FOLDER).glob("*"))


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(coco, "read_instances", refuse)
    monkeypatch.setattr(voc, "read_annotation", refuse)


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_the_second_time_is_the_first(
    layout: str, voc_root: Path, coco_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    kind, root = (VOCDataset, voc_root) if layout == "voc" else (CocoDataset, coco_root)
    with pytest.warns(DataWarning) as before:
        first = kind(root, "train")
    assert len(indices(root)) == 1
    all_difficult = any(row.difficult.any() for row in first._images)
    shutil.copytree(root, tmp_path / "moved")  # with its times
    no_reading(monkeypatch)
    with pytest.warns(DataWarning) as after:
        second = kind(root, "train")
    assert known(second) == known(first)
    assert first.findings
    assert [str(w.message) for w in after] == [str(w.message) for w in before]
    assert all((a[0] == b[0]).all() and a[1].keys() == b[1].keys() for a, b in zip(first, second, strict=True))
    easy = quietly(lambda: kind(root, "train", keep_difficult=False))
    assert all_difficult
    assert not any(row.difficult.any() for row in easy._images)
    moved = quietly(lambda: kind(tmp_path / "moved", "train"))
    assert moved.image_path(0) == tmp_path / "moved" / first.image_path(0).relative_to(root)
    monkeypatch.chdir(root)
    assert quietly(lambda: kind(".", "train")).ids == first.ids


def test_each_question_has_its_own(voc_root: Path):
    asked: list[dict[str, Any]] = [
        {},
        {"classes": ["dog", "cat", "emu"]},
        {"classes": ["cat"], "unknown": "ignore"},
        {"one_based": False},
    ]
    first = [known(quietly(lambda more=more: VOCDataset(voc_root, "train", **more))) for more in asked]
    assert len(indices(voc_root)) == len(asked)
    assert [known(quietly(lambda more=more: VOCDataset(voc_root, "train", **more))) for more in asked] == first
    assert len({repr(rows) for rows in first}) == len(asked)
    before = indices(voc_root)
    quietly(lambda: VOCDataset(voc_root, "test"))
    (other,) = {*indices(voc_root)} - {*before}
    for path in before:
        shutil.copy(other, path)  # as a sum that two questions share would do
    assert [known(quietly(lambda more=more: VOCDataset(voc_root, "train", **more))) for more in asked] == first
    with pytest.raises(ValueError, match="class 'dog' is not among"):
        quietly(lambda: VOCDataset(voc_root, "train", ["cat"]))


# ---- files that changed ----------------------------------------------------------------------------------------


def rename_class(root: Path) -> None:
    path = root / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"dog"', '"cow"'))


VOC_CHANGES: dict[str, Callable[[Path], object]] = {
    "an annotation": lambda root: write_annotation(root, "b", [CAT]),
    "an annotation of another set": lambda root: write_annotation(root, "d", [object_xml("gnu", 1, 1, 9, 9)]),
    "a list": lambda root: (root / "ImageSets" / "Main" / "train.txt").write_text("c\na\n"),
    "another list": lambda root: (root / "ImageSets" / "Main" / "val.txt").write_text("d\n"),
    "a size": lambda root: write_image(root, "b.png", (64, 20)),
    "another file for an image": lambda root: write_image(root, "c.jpg", (64, 20)),
}
COCO_CHANGES: dict[str, Callable[[Path], object]] = {
    "the annotations": rename_class,
    "a size": lambda root: shutil.copy(root / "train" / "5.png", root / "train" / "9.png"),
}


@pytest.mark.parametrize("change", [*VOC_CHANGES, *(f"coco {name}" for name in COCO_CHANGES)])
def test_what_changed_is_read_anew(change: str, voc_root: Path, coco_root: Path):
    in_coco = change.startswith("coco ")
    kind, root = (CocoDataset, coco_root) if in_coco else (VOCDataset, voc_root)
    quietly(lambda: kind(root, "train"))
    edit = COCO_CHANGES[change.removeprefix("coco ")] if in_coco else VOC_CHANGES[change]
    edit(root)
    found = known(quietly(lambda: kind(root, "train")))
    shutil.rmtree(root / index.FOLDER)  # safe at any time
    assert found == known(quietly(lambda: kind(root, "train")))


def test_an_image_that_is_gone_is_named(coco_root: Path, voc_root: Path):
    for kind, root in ((CocoDataset, coco_root), (VOCDataset, voc_root)):
        path = quietly(lambda kind=kind, root=root: kind(root, "train")).image_path(1)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.stem):
            kind(root, "train")


def test_images_in_a_folder_that_comes_first(coco_root: Path):
    (coco_root / "train").rename(coco_root / "images")
    quietly(lambda: CocoDataset(coco_root, "train"))
    shutil.copytree(coco_root / "images", coco_root / "train")
    assert quietly(lambda: CocoDataset(coco_root, "train")).image_path(0).parent.name == "train"


# ---- an index that is damaged, or not what it says -------------------------------------------------------------


def test_a_damaged_index_is_made_anew(coco_root: Path):
    expected = known(quietly(lambda: CocoDataset(coco_root, "train")))
    (path,) = indices(coco_root)
    whole = path.read_bytes()
    places = range(0, len(whole), len(whole) // 60)
    for damaged in [b"", *(whole[:place] for place in places), *(flipped(whole, place) for place in places)]:
        path.write_bytes(damaged)
        assert known(quietly(lambda: CocoDataset(coco_root, "train"))) == expected
        assert indices(coco_root) == [path]
    path.write_bytes(b"rubbish")
    quietly(lambda: CocoDataset(coco_root, "train"))
    assert columns_of(path).keys() == index._COLUMNS.keys()


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]


def columns_of(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def replaced_text(columns: dict[str, Any], name: str, old: str, new: str) -> None:
    text = columns[name].tobytes().decode()
    assert old in text
    columns[name] = np.frombuffer(text.replace(old, new).encode(), dtype=np.uint8)


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a path that leads out": lambda c: replaced_text(c, "files", "train/9.png", "../secret.png"),
    "an id that steers": lambda c: replaced_text(c, "ids", "two", "t\x1b[0m"),
    "a label": lambda c: c.update(labels=c["labels"] + 2),
    "no label": lambda c: c.update(labels=c["labels"] - 1),
    "a box outside": lambda c: c.update(boxes=c["boxes"] + 30),
    "no number": lambda c: c.update(boxes=c["boxes"] * np.float32("nan")),
    "a size": lambda c: c.update(sizes=c["sizes"] * 0),
    "the starts": lambda c: c.update(starts=c["starts"] * 2),
    "starts that go back": lambda c: c.update(starts=np.array([0, 3, 2, 3])),
    "too few starts": lambda c: c.update(starts=c["starts"][[0, 1, 3]]),
    "a type": lambda c: c.update(labels=c["labels"].astype(np.int32)),
    "a class": lambda c: replaced_text(c, "classes", "dog", "cat"),
    "a finding": lambda c: replaced_text(c, "findings", "repaired", "admired"),
    "a column more": lambda c: c.update(more=c["starts"]),
    "a pickle": lambda c: c.update(starts=np.array([Bomb()], dtype=object)),
}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_index_is_not_believed(forged: str, coco_root: Path):
    shutil.copy2(coco_root / "train" / "9.png", coco_root.parent / "secret.png")  # of the same size and time
    expected = known(quietly(lambda: CocoDataset(coco_root, "train")))
    (path,) = indices(coco_root)
    columns = columns_of(path)
    FORGED[forged](columns)
    np.savez(path, **columns)
    assert known(quietly(lambda: CocoDataset(coco_root, "train"))) == expected


def test_what_could_become_any_size_is_not_unpacked(coco_root: Path, monkeypatch: pytest.MonkeyPatch):
    expected = known(quietly(lambda: CocoDataset(coco_root, "train")))
    (path,) = indices(coco_root)
    np.savez_compressed(path, **columns_of(path))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    assert known(quietly(lambda: CocoDataset(coco_root, "train"))) == expected


# ---- whether there is one --------------------------------------------------------------------------------------


def test_a_small_set_has_none(coco_root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "LEAST", 4)
    quietly(lambda: CocoDataset(coco_root, "train"))
    assert not (coco_root / index.FOLDER).exists()


def test_what_was_just_written_may_change_unseen(coco_root: Path):
    (coco_root / "train" / "9.png").touch()
    quietly(lambda: CocoDataset(coco_root, "train"))
    assert not (coco_root / index.FOLDER).exists()


def test_beside_data_that_cannot_be_written(coco_root: Path, every_set_has_one: Path, monkeypatch: pytest.MonkeyPatch):
    (coco_root / index.FOLDER).write_text("in the way, as a folder for reading only would be")
    expected = known(quietly(lambda: CocoDataset(coco_root, "train")))
    assert len(list((every_set_has_one / "index").iterdir())) == 1
    with monkeypatch.context() as patched:
        no_reading(patched)
        assert known(quietly(lambda: CocoDataset(coco_root, "train"))) == expected
    shutil.rmtree(every_set_has_one)
    every_set_has_one.write_text("in the way, too")
    assert known(quietly(lambda: CocoDataset(coco_root, "train"))) == expected


def test_several_at_the_same_time(coco_root: Path):
    expected = known(quietly(lambda: CocoDataset(coco_root, "train")))
    for _ in range(5):
        shutil.rmtree(coco_root / index.FOLDER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(lambda _: known(CocoDataset(coco_root, "train")), range(16)))
        assert all(rows == expected for rows in found)
        assert len(indices(coco_root)) == 1  # nothing is left of those that came second


def test_the_text_of_a_key_is_json(coco_root: Path):
    quietly(lambda: CocoDataset(coco_root, "train"))
    (path,) = indices(coco_root)
    said = json.loads(columns_of(path)["key"].tobytes())
    assert (said["layout"], said["image_set"], said["classes"]) == ("coco", "train", None)
