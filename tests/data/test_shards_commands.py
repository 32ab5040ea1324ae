"""Commands on a folder of shards: they check and show it, make files of it, and say why it cannot be divided."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.commands import call, refused
from support.voc_folder import object_xml, write_voc

from ssdlib.data import AnnotatedDataset, ShardDataset, check_dataset, convert_dataset, open_dataset, write_shards
from ssdlib.data.formats.detecting import read_source
from ssdlib.data.shards import DESCRIPTION

OBJECTS = {
    "a.b": [object_xml("dog", 3, 4, 30, 12, difficult=1), object_xml("cat", 1, 1, 20, 25)],
    "c": [object_xml("cat", 2, 2, 22, 26)],
    "d": [object_xml("dog", 7, 7, 22, 26)],
    "f": [object_xml("cat", 7, 7, 22, 26)],
}
SETS = {"train": ["a.b", "c"], "val": ["d"], "trainval": ["a.b", "c", "d"], "test": ["e", "f"]}  # e has no object


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", SETS, OBJECTS)


@pytest.fixture
def shards(source: Path, tmp_path: Path) -> Path:
    for name in SETS:
        write_shards(open_dataset(source, name, ["cat", "dog"]), tmp_path / "shards", name, 1, progress=False)
    return tmp_path / "shards"


def known(dataset: AnnotatedDataset) -> dict[str, Any]:
    """What is known of each image, by the stem of its file."""
    found = {}
    for index in range(len(dataset)):
        image = dataset._images[index]
        columns = (image.boxes.round(2).tolist(), image.labels.tolist(), image.difficult.tolist())
        found[image.image_path.stem] = (image.size, *columns, dataset[index][0].sum().item())
    return found


def change_text(tar: Path, **changes: Any) -> None:
    """Write a tar file of one image anew, with another text."""
    with tarfile.open(tar) as file:
        members = [(member, file.extractfile(member).read()) for member in file]  # type: ignore[union-attr]
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        for member, content in members:
            if member.name.endswith(".json"):
                content = json.dumps({**json.loads(content), **changes}).encode()
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    described = next(tar.parent.glob(f"{tar.name.partition('-')[0]}{DESCRIPTION}"))
    content = json.loads(described.read_text())
    for shard in content["shards"]:
        shard["bytes"] = (tar.parent / shard["name"]).stat().st_size
    described.write_text(json.dumps(content))


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_says_what_it_says_of_the_files(source: Path, shards: Path):
    files, ours = check_dataset(source, progress=False), check_dataset(shards, progress=False)
    assert ours.ok
    assert ours.classes == files.classes  # what is in two sets is counted once
    assert (ours.sets, ours.images, sorted(ours.empty)) == (files.sets, files.images, sorted(files.empty))
    assert ours.warnings == files.warnings == ()
    result = call("data", "check", shards)
    assert result.exit_code == 0, result.output
    assert "5 images" in result.output


def test_check_tells_all_that_is_wrong_in_one_run(shards: Path):
    change_text(shards / "train-000000.tar", boxes=[[3, 3, 3, 9], [1, 1, 20, 25]])
    change_text(shards / "test-000000.tar", width="40")
    change_text(shards / "val-000000.tar", id="a.b")
    cut = shards / "trainval-000001.tar"
    cut.write_bytes(cut.read_bytes().replace(b"PNG", b"GNP"))
    half = shards / "trainval-000002.tar"
    half.write_bytes(half.read_bytes()[:700].ljust(half.stat().st_size, b"x"))
    (shards / "more.shards.json").write_text("{")
    report = check_dataset(shards, progress=False)
    assert not report.ok
    assert [(f.file, f.kind) for f in report.findings] == [("train-000000.tar/000000000.json", "zero area")]
    parts = ("more.shards.json is no description", "the size must be whole numbers", "000000001.png: cannot be read")
    for part in (*parts, "trainval-000002.tar is no shard that can be read"):
        assert sum(part in error for error in report.errors) == 1, report.errors
    assert len(report.errors) == 4
    assert any("train and val share 1 id: a.b" in warning for warning in report.warnings)
    result = call("data", "check", shards)
    assert result.exit_code == 1
    assert "not ok" in result.output


def test_check_sees_a_scene_on_two_sides_and_other_classes(source: Path, tmp_path: Path):
    first = open_dataset(source, "train", ["cat", "dog"])
    write_shards(first, tmp_path / "shards", "train", progress=False)
    renamed = AnnotatedDataset([image._replace(image_id=f"x{image.image_id}") for image in first._images], ("b", "a"))
    write_shards(renamed, tmp_path / "shards", "test", progress=False)
    report = check_dataset(tmp_path / "shards", progress=False)
    assert "test and train have different classes: ['b', 'a'] and ['cat', 'dog']" in report.warnings
    assert sum("the same image under 2 ids" in warning for warning in report.warnings) == 2
    with pytest.raises(ValueError, match="duplicates"):
        check_dataset(tmp_path / "shards", ["cat", "cat"])


# ---- convert, split, show ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_files_again(source: Path, shards: Path, tmp_path: Path, layout: Any):
    done = convert_dataset(shards, tmp_path / "files", layout=layout, progress=False)
    assert done.format == "shards"
    assert done.ok, done.text()
    assert done.images == 5  # and not eight
    assert done.sets == {"all": 5, **{name: len(members) for name, members in sorted(SETS.items())}}
    for name in SETS:
        ours, theirs = (open_dataset(root, name, ["cat", "dog"]) for root in (tmp_path / "files", source))
        found = known(ours)
        assert {stem.replace("a_b", "a.b"): value for stem, value in found.items()} == known(theirs)
    assert any("1 difficult object marked" in note for note in done.notes) == (layout == "coco")
    assert check_dataset(tmp_path / "files", progress=False).ok
    split = call("data", "split", tmp_path / "files", "--force", "--threshold", -1, "--val", 0.4, "--test", 0)
    assert split.exit_code == 0, split.output


def test_one_set_and_what_does_not_come_over(shards: Path, tmp_path: Path):
    change_text(shards / "train-000000.tar", file="../../x.png")
    tar = shards / "train-000001.tar"
    tar.write_bytes(b"x" * tar.stat().st_size)
    source = read_source(shards / f"trainval{DESCRIPTION}")
    assert (len(source.images), source.left_out, source.findings) == (3, {}, [])
    result = call("data", "convert", shards / f"train{DESCRIPTION}", "--out", tmp_path / "files")
    assert result.exit_code == 2
    assert "no labelled image was found as shards: train-000000.tar: entry, refused: " in result.output
    change_text(shards / "train-000000.tar", file="other.JPG")
    result = call("data", "convert", shards / f"train{DESCRIPTION}", "--out", tmp_path / "files")
    assert result.exit_code == 1
    assert "train-000001.tar: unreadable labels, refused: " in result.output
    assert [path.name for path in (tmp_path / "files" / "images").iterdir()] == ["000000000.png"]  # it is no JPEG


def test_crowds_stay_crowds(source: Path, tmp_path: Path):
    dataset = open_dataset(source, "train", ["cat", "dog"])
    dataset.crowds = True
    write_shards(dataset, tmp_path / "shards", "train", progress=False)
    assert convert_dataset(tmp_path / "shards", tmp_path / "coco", progress=False).notes == ()
    (note,) = convert_dataset(tmp_path / "shards", tmp_path / "files", layout="voc", progress=False).notes
    assert note.startswith("1 crowd marked as difficult")


def test_what_shards_cannot_do_is_said_with_what_to_do(shards: Path, tmp_path: Path):
    message = " ".join(refused("data", "split", shards).split())
    assert f"holds shards, whose images cannot be divided where they are: `ssd data convert {shards} --out" in message
    assert "leave out --link" in refused("data", "convert", shards, "--out", tmp_path / "files", "--link")
    tar = shards / "train-000000.tar"
    assert "is a shard: name its folder" in refused("data", "convert", tar, "--out", tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_show_and_shard_take_shards(shards: Path, tmp_path: Path):
    result = call("data", "show", shards, "--image-set", "train", "--out", tmp_path / "sheet.html")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sheet.html").read_text().count("<figure>") == 2
    result = call("data", "shard", shards, "--image-set", "train", "--to", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert "1 tar file of 'train'" in result.output
    assert known(ShardDataset(tmp_path / "again", "train")) == known(ShardDataset(shards, "train"))
