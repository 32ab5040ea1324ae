"""Shards: the same data set as the files that they were made of, and nothing in a tar file that is believed unseen."""

from __future__ import annotations

import gc
import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.coco_folder import annotation, image, write_coco
from support.commands import call, refused
from support.small_run import log_of, quick, same_weights
from support.voc_folder import object_xml, write_annotation, write_image, write_voc
from torch.utils.data import DataLoader

from ssdlib.data import (
    AnnotatedDataset,
    DataWarning,
    ShardDataset,
    VOCDataset,
    index,
    load_image,
    open_dataset,
    sample_root,
    write_shards,
)
from ssdlib.data.images import file_length, read_file, read_header
from ssdlib.data.opening import choose_set
from ssdlib.data.shards import DESCRIPTION, samples
from ssdlib.engine import train
from ssdlib.engine.validation import require_apart


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A VOC folder: no object, difficult ones, ids with dots, an image that is turned and one that is not to be."""
    objects = {"a.b": [object_xml("dog", 3, 4, 30, 12, difficult=1), object_xml("cat", 1, 1, 20, 25)]}
    root = write_voc(tmp_path / "voc", {"train": ["a.b", "a.c", "d", "e", "f"], "test": ["d"]}, objects)
    write_image(root, "a.c.jpg", (64, 48))
    (root / "JPEGImages" / "a.c.png").unlink()
    write_annotation(root, "a.c", [object_xml("cat", 10.5, 2, 20, 25)], size=(64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size in (("d", (30, 40)), ("e", (40, 30))):
        (root / "JPEGImages" / f"{name}.png").unlink()
        Image.effect_noise((40, 30), 90).convert("RGB").save(root / "JPEGImages" / f"{name}.jpg", exif=exif)
        write_annotation(root, name, [object_xml("cat", 1, 1, 28, 25)], size=size)
    return root


@pytest.fixture
def shards(source: Path, tmp_path: Path) -> Path:
    write_shards(VOCDataset(source, "train"), tmp_path / "shards", "train", 2, progress=False)
    return tmp_path / "shards"


def same(ours: Any, theirs: Any) -> bool:
    (pixels, target), (other, expected) = ours, theirs
    assert target.keys() == expected.keys()
    equal = all(torch.equal(value, expected[key]) for key, value in target.items())
    return torch.equal(pixels, other) and equal


def test_the_same_data_set(source: Path, shards: Path):
    files, dataset = VOCDataset(source, "train"), open_dataset(shards, "train")
    assert isinstance(dataset, ShardDataset)
    assert dataset.ids == files.ids
    assert dataset.classes == files.classes
    assert dataset.findings == ()
    for number in range(len(files)):
        assert dataset.size(number) == files.size(number)
        assert same(dataset[number], files[number])
        path = dataset.image_path(number)
        assert read_file(path) == files.image_path(number).read_bytes()
        assert file_length(path) == files.image_path(number).stat().st_size
        assert read_header(path) == read_header(files.image_path(number))
    assert [path.name for path in sorted(shards.iterdir())] == [
        *(f"train-00000{k}.tar" for k in range(3)),
        "train.shards.json",
    ]
    assert choose_set(shards) == "train"


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_order_is_that_of_the_files_for_any_number_of_workers(source: Path, shards: Path, workers: int):
    order = [3, 0, 4, 1, 2]
    loaded = list(DataLoader(open_dataset(shards, "train"), None, sampler=order, num_workers=workers))
    assert all(same(ours, VOCDataset(source, "train")[k]) for ours, k in zip(loaded, order, strict=True))


def test_kept_in_memory(source: Path, shards: Path):
    dataset = open_dataset(shards, "train", cache=True, progress=False)
    shutil.rmtree(shards)
    assert all(same(ours, theirs) for ours, theirs in zip(dataset, VOCDataset(source, "train"), strict=True))


def test_the_same_data_make_the_same_bytes(source: Path, shards: Path, tmp_path: Path):
    write_shards(VOCDataset(source, "train"), tmp_path / "again", "train", 2, progress=False)
    assert [path.read_bytes() for path in sorted((tmp_path / "again").iterdir())] == [
        path.read_bytes() for path in sorted(shards.iterdir())
    ]


def test_given_classes_and_difficult_objects(shards: Path):
    assert ShardDataset(shards, "train", ["cat", "emu", "dog"]).target(0)["labels"].tolist() == [3, 1]
    easy = ShardDataset(shards, "train", keep_difficult=False)
    assert easy.target(0)["labels"].tolist() == [1]
    with pytest.raises(ValueError, match=r"train-000000\.tar: 000000000\.json, object 0: class 'dog' is not among"):
        ShardDataset(shards, "train", ["cat"])
    with pytest.warns(DataWarning, match="unknown class 1"):
        assert len(ShardDataset(shards, "train", ["cat"], unknown="ignore").target(0)["labels"]) == 1


def test_crowds_are_left_out_where_they_were(tmp_path: Path):
    objects = [annotation(1, 9, 3, [1 / 3, 3.5, 10, 20]), annotation(2, 9, 7, [5, 5, 30, 20], crowd=1)]
    write_coco(tmp_path / "coco", "val", [image(9)], objects)
    for name, folder in (("coco", tmp_path / "coco"), ("shards", tmp_path / "made"), ("again", tmp_path / "again")):
        dataset, without = open_dataset(folder, "val"), open_dataset(folder, "val", keep_crowds=False)
        assert dataset.target(0)["difficult"].tolist() == [False, True], name
        assert without.target(0)["labels"].tolist() == [1], name
        assert torch.equal(dataset.target(0)["boxes"], open_dataset(tmp_path / "coco", "val").target(0)["boxes"])
        if name != "again":
            write_shards(dataset, tmp_path / ("made" if name == "coco" else "again"), "val", progress=False)


def test_a_run_on_files_goes_on_with_shards(tmp_path: Path):
    config = quick(iterations=3)
    sample = VOCDataset(sample_root(), "val")
    files = AnnotatedDataset(sample._images[:4], sample.classes)  # two steps an epoch
    write_shards(files, tmp_path / "shards", "val", 3, progress=False)
    shards = open_dataset(tmp_path / "shards", "val")

    def stop(_model: Any, line: dict[str, float]) -> dict[str, float]:
        raise InterruptedError

    whole = train(config, files, tmp_path / "whole", progress=False)
    with pytest.raises(InterruptedError):
        train(config, files, tmp_path / "run", progress=False, save_every=1, after_epoch=stop)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["images"] == 4
    resumed = train(config, shards, tmp_path / "run", progress=False, resume=True)
    assert same_weights(resumed, whole)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_validation_on_training_images_is_seen(source: Path, shards: Path):
    with pytest.raises(ValueError, match="1 of the 1 validation images are training images, too"):
        require_apart(open_dataset(shards, "train"), VOCDataset(source, "test"))


def test_an_index_knows_the_shards(shards: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "LEAST", 1)
    past = time.time() - 60
    for path in shards.iterdir():
        index.os.utime(path, (past, past))
    first = open_dataset(shards, "train")
    with monkeypatch.context() as patched:
        patched.setattr("ssdlib.data.shards.samples", lambda _: pytest.fail("read again"))
        second = open_dataset(shards, "train")
    assert second.ids == first.ids
    assert all(same(ours, theirs) for ours, theirs in zip(second, first, strict=True))
    (shards / "train-000001.tar").touch()
    read: list[Path] = []
    monkeypatch.setattr("ssdlib.data.shards.samples", lambda shard: read.append(shard) or samples(shard))
    open_dataset(shards, "train")
    assert len(read) == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_library_of_the_layout_reads_them(source: Path, shards: Path):
    """It leaves files open, which the filters are for."""
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    files = VOCDataset(source, "train")
    assert [sample["__key__"] for sample in found] == [f"{k:09}" for k in range(len(files))]
    for number, sample in enumerate(found):
        path = files.image_path(number)
        assert sample[path.suffix[1:]] == path.read_bytes()
        known = json.loads(sample["json"])
        assert (known["id"], known["file"]) == (files.ids[number], path.name)
        assert known["boxes"] == files.target(number)["boxes"].tolist()
    gc.collect()  # closes them here, and not in another test


def test_what_the_library_writes_is_read(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG")
    known = {"id": "x", "width": 40, "height": 30, "boxes": [[1, 2, 3.5, 4]], "labels": ["cat"], "difficult": [False]}
    with webdataset.TarWriter(str(tmp_path / "val-000000.tar")) as writer:
        writer.write({"__key__": "some/x", "jpg": buffer.getvalue(), "json": known, "cls": 3})
    describe(tmp_path, "val", ["val-000000.tar"], ["cat"])
    dataset = open_dataset(tmp_path, "val")
    assert dataset.target(0)["boxes"].tolist() == [[1, 2, 3.5, 4]]
    assert dataset[0][0].shape == (3, 30, 40)


# ---- tar files that are not what they should be ----------------------------------------------------------------

KNOWN = {"id": "x", "width": 40, "height": 30, "boxes": [], "labels": [], "difficult": []}


def describe(root: Path, name: str, tars: list[str], classes: list[str]) -> None:
    listed = [{"name": tar, "bytes": (root / tar).stat().st_size} for tar in tars]
    text = json.dumps({"classes": classes, "crowds": False, "shards": listed})
    (root / f"{name}{DESCRIPTION}").write_text(text)


def tar_of(path: Path, members: list[tuple[str, bytes | dict[str, Any]]], mode: str = "w") -> Path:
    """A tar file; in place of the content, fields of the member's header."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for field, value in content.items():
                    setattr(member, field, value)
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def known(**changes: Any) -> bytes:
    return json.dumps({**KNOWN, **changes}).encode()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


GOOD = ("1.jpg", jpeg()), ("1.json", known())
BAD: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "a member outside": ([("../1.jpg", jpeg())], r"the member '\.\./1\.jpg' leads out"),
    "an absolute member": ([("/1.jpg", jpeg())], r"the member '/1\.jpg' leads out"),
    "a name that steers": ([("1\x1b[0m.jpg", jpeg())], "control character"),
    "a symbolic link": ([("1.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "'1.jpg' is no plain file"),
    "a hard link": ([*GOOD, ("2.jpg", {"type": tarfile.LNKTYPE, "linkname": "1.jpg"})], "'2.jpg' is no plain file"),
    "a device": ([("1.jpg", {"type": tarfile.CHRTYPE})], "'1.jpg' is no plain file"),
    "a sparse file": ([("1.jpg", {"type": tarfile.GNUTYPE_SPARSE})], "'1.jpg' is no plain file"),
    "no image": ([GOOD[1]], "'1' has no image beside it"),
    "no text": ([GOOD[0]], r"'1' has no \.json beside it"),
    "no text in the middle": ([GOOD[0], ("2.json", known())], r"'1' has no \.json beside it"),
    "the same key": ([*GOOD, ("2.jpg", jpeg()), ("2.json", known()), *GOOD], "the key 1 stands twice"),
    "no JSON": ([GOOD[0], ("1.json", b"{")], r"1\.json does not say what it should"),
    "no object": ([GOOD[0], ("1.json", b"[1]")], r"1\.json does not say what it should"),
    "no id": ([GOOD[0], ("1.json", known(id=3))], "the id must be a text, got 3"),
    "lists of two lengths": ([GOOD[0], ("1.json", known(boxes=[[1, 2, 3, 4]]))], "does not say what it should"),
    "no size": ([GOOD[0], ("1.json", known(width="40"))], r"the size must be whole numbers, got \('40', 30\)"),
    "a class": (
        [GOOD[0], ("1.json", known(boxes=[[1, 2, 3, 4]], labels=[3], difficult=[False]))],
        "the class must be a text, got 3",
    ),
    "difficult": (
        [GOOD[0], ("1.json", known(boxes=[[1, 2, 3, 4]], labels=["cat"], difficult=[1]))],
        "difficult must be true or false, got 1",
    ),
    "rubbish": ([("1.jpg", b"rubbish"), GOOD[1]], r"1\.jpg: cannot be read as an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_shards_are_named(tmp_path: Path, name: str):
    members, message = BAD[name]
    tar_of(tmp_path / "val-000000.tar", members)
    describe(tmp_path, "val", ["val-000000.tar"], ["cat"])
    with pytest.raises(ValueError, match=message) as caught:
        ShardDataset(tmp_path, "val")
    assert str(tmp_path / "val-000000.tar") in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tar_of(tmp_path / "a.tar", [GOOD[0], ("1.json", known(id="x" * 2000))])
    assert len(list(samples(path))) == 1
    whole = path.read_bytes()
    for length in (1, 511, 700, whole.index(b"1.json") + 600):  # of a download that was cut off
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tar is no shard that can be read"):
            list(samples(path))
    path.write_bytes(whole)
    monkeypatch.setattr("ssdlib.data.shards._MOST_JSON", 1000)
    with pytest.raises(ValueError, match=r"'1\.json' has 2\d\d\d bytes, more than 1000"):
        list(samples(path))
    tar_of(path, list(GOOD), "w:gz")
    with pytest.raises(ValueError, match=r"a\.tar is no shard that can be read"):
        list(samples(path))


def test_boxes_go_by_the_rules(tmp_path: Path):
    boxes = [
        [1, 2, 30.5, 20],
        [30, 2, 1, 20],
        [-5, 0, 50, 30],
        [1, 2, 1, 20],
        [50, 1, 60, 2],
        [1, 2, 3],
        ["1", 2, 3, 4],
    ]
    boxes += [[1, 2, 10**400, 4], [1, 2, float("nan"), 3], None, [True, 2, 3, 4]]
    text = known(boxes=boxes, labels=["cat"] * len(boxes), difficult=[False] * len(boxes))
    tar_of(tmp_path / "val-000000.tar", [GOOD[0], ("1.json", text)])
    describe(tmp_path, "val", ["val-000000.tar"], ["cat"])
    with pytest.warns(DataWarning, match=r"refused 8 \(not a number 6, outside the image 1, zero area 1\); repaired 2"):
        dataset = ShardDataset(tmp_path, "val")
    assert dataset.target(0)["boxes"].tolist() == [[1, 2, 30.5, 20], [1, 2, 30, 20], [0, 0, 40, 30]]
    assert str(dataset.findings[0]).startswith("val-000000.tar/1.json, object 1: swapped corners, repaired")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("classes"), "no description of shards: KeyError: 'classes'"),
        (lambda d: d.update(classes=["a", "a"]), "duplicates: a"),
        (lambda d: d.update(crowds="no"), "crowds must be true or false, got 'no'"),
        (lambda d: d["shards"][0].update(name="../x.tar"), "the shard '../x.tar' leads out"),
        (lambda d: d["shards"][0].update(name="none.tar"), "the shard none.tar is missing"),
        (lambda d: d["shards"][1].update(bytes=5), r"train-000001\.tar has \d+ bytes, not 5 as train.shards.json says"),
        (lambda d: d.update(shards=3), "no description of shards: TypeError"),
    ],
)
def test_descriptions_are_checked(shards: Path, change: Callable[[dict[str, Any]], object], message: str):
    path = shards / f"train{DESCRIPTION}"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ShardDataset(shards, "train")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"train\.shards\.json is no description of shards"):
        ShardDataset(shards, "train")
    with pytest.raises(FileNotFoundError, match="has no image set 'val'; it has train"):
        ShardDataset(shards, "val")


def test_a_shard_that_was_cut_or_is_gone_later_names_the_image(shards: Path):
    dataset = ShardDataset(shards, "train")
    path = shards / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"train-000002\.tar/512\+\d+/000000004\.png: .*the shard ends before it"):
        dataset[4]
    path.unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"000000004\.png"):
        load_image(dataset.image_path(4))


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command(source: Path, tmp_path: Path):
    result = call("data", "shard", source, "--image-set", "train", "--to", tmp_path / "out", "--images", 2)
    assert result.exit_code == 0, result.output
    assert "3 tar files of 'train', 0.0 MB" in result.output
    assert open_dataset(tmp_path / "out", "train").ids == VOCDataset(source, "train").ids
    assert "has shards of 'train' already" in refused(
        "data", "shard", source, "--image-set", "train", "--to", tmp_path / "out"
    )
    assert call("data", "shard", source, "--image-set", "test", "--to", tmp_path / "out").exit_code == 0
    assert "say with --image-set which set" in refused("data", "shard", tmp_path / "out", "--to", tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_what_cannot_be_written(source: Path, tmp_path: Path):
    dataset = VOCDataset(source, "train")
    with pytest.raises(ValueError, match="0 in a shard: there is nothing to write"):
        write_shards(dataset, tmp_path / "out", "train", 0)
    with pytest.raises(ValueError, match="leads out"):
        write_shards(dataset, tmp_path / "out", "../train")
    dataset.image_path(4).unlink()
    with pytest.raises(FileNotFoundError):
        write_shards(dataset, tmp_path / "out", "train", 2, progress=False)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["train-000000.tar", "train-000001.tar"]
    with pytest.raises(FileNotFoundError, match=r"VOC layout|no image set"):
        open_dataset(tmp_path / "out", "train")
