from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from support.voc_folder import object_xml, write_voc

from ssdlib.data import (
    DataWarning,
    JoinedDataset,
    OpenImagesDataset,
    VOCDataset,
    check_dataset,
    open_dataset,
    split_dataset,
)
from ssdlib.data.columns import ImageTable
from ssdlib.data.formats.openimages import openimages_set_names
from ssdlib.data.opening import choose_set

CAT = object_xml("cat", 1, 1, 40, 30)
DOG = object_xml("dog", 3, 4, 10, 12, difficult=1)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    first = write_voc(tmp_path / "VOC2007", {"trainval": ["a", "b"], "test": ["c"]}, {"a": [CAT], "c": [DOG]})
    return [first, write_voc(tmp_path / "VOC2012", {"trainval": ["d"]}, {"d": [DOG, CAT]})]


def test_one_folder(folders: list[Path]):
    for paths in (folders[0], str(folders[0]), [folders[0]]):
        dataset = open_dataset(paths, "trainval")
        assert isinstance(dataset, VOCDataset)
        assert dataset.ids == ["a", "b"]
        assert dataset.classes == ("cat", "dog")


def test_several_folders_are_one_after_the_other(folders: list[Path]):
    dataset = open_dataset(folders, "trainval")
    parts = [VOCDataset(folder, "trainval") for folder in folders]
    assert len(dataset) == 3
    assert dataset.classes == ("cat", "dog")
    assert dataset.ids == ["a", "b", "d"]
    for index, (part, i) in enumerate([(parts[0], 0), (parts[0], 1), (parts[1], 0)]):
        assert dataset.image_path(index) == part.image_path(i)
        assert dataset.size(index) == part.size(i)
        assert torch.equal(dataset[index][0], part[i][0])
        assert dataset[index][1].keys() == part[i][1].keys()
        assert all(torch.equal(dataset[index][1][key], value) for key, value in part[i][1].items())


def test_no_image_is_made_to_join_them(folders: list[Path], monkeypatch: pytest.MonkeyPatch):
    """A large set has a hundred thousand of them."""
    parts = [VOCDataset(folder, "trainval") for folder in folders]
    monkeypatch.setattr(ImageTable, "__getitem__", lambda *_: pytest.fail("an image was made"))
    assert len(JoinedDataset(parts)) == 3


def test_findings_of_all_folders(folders: list[Path], tmp_path: Path):
    bad = write_voc(tmp_path / "bad", {"trainval": ["e"]}, {"e": [object_xml("cat", 5, 5, 5, 9), DOG, CAT]})
    with pytest.warns(UserWarning, match="zero area 1"):
        dataset = open_dataset([*folders, bad], "trainval")
    assert [finding.kind for finding in dataset.findings] == ["zero area"]
    assert [len(dataset._images[i].findings) for i in range(len(dataset))] == [0, 0, 0, 1]


def test_given_classes_give_the_labels(folders: list[Path]):
    dataset = open_dataset(folders, "trainval", ["dog", "whale", "cat"])
    assert dataset.classes == ("dog", "whale", "cat")
    assert [dataset.target(i)["labels"].tolist() for i in range(3)] == [[3], [], [1, 3]]
    with pytest.raises(ValueError, match="class 'cat' is not among"):
        open_dataset(folders, "trainval", ["dog"])


def test_different_classes_are_refused(folders: list[Path], tmp_path: Path):
    other = write_voc(tmp_path / "other", {"trainval": ["f"]}, {"f": [CAT, object_xml("bird", 1, 1, 9, 9)]})
    message = (
        r"VOC2007 and .*other have different classes: only the first has \['dog'\], only the second has \['bird'\]"
    )
    with pytest.raises(ValueError, match=message):
        open_dataset([*folders, other], "trainval")
    assert len(open_dataset([*folders, other], "trainval", ["bird", "cat", "dog"])) == 4


def test_data_sets_to_join_must_agree_in_the_order_too(folders: list[Path]):
    parts = [VOCDataset(folders[0], "trainval"), VOCDataset(folders[1], "trainval", ["dog", "cat"])]
    with pytest.raises(ValueError, match=r"1 and 2 have different classes: \['cat', 'dog'\] and \['dog', 'cat'\]"):
        JoinedDataset(parts)
    with pytest.raises(ValueError, match="no data sets"):
        JoinedDataset([])


def test_what_is_missing_is_named(folders: list[Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="VOC2012 has no image set 'test'"):
        open_dataset(folders, "test")
    with pytest.raises(FileNotFoundError, match="nowhere is not in the VOC layout"):
        open_dataset([folders[0], tmp_path / "nowhere"], "trainval")
    with pytest.raises(ValueError, match="no folder"):
        open_dataset([], "trainval")


def test_a_set_without_any_object(tmp_path: Path):
    root = write_voc(tmp_path / "empty", {"train": ["a", "b"]})
    with pytest.raises(
        ValueError, match=r"empty: no object is annotated in the set 'train'; there is nothing to learn"
    ):
        open_dataset(root, "train")
    with pytest.warns(DataWarning, match=r"empty: no object is annotated in the set 'train'$"):
        assert len(open_dataset(root, "train", ["cat"])) == 2


def test_an_image_set_that_is_no_text_is_named(folders: list[Path]):
    path = folders[0] / "ImageSets" / "Main" / "test.txt"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"Main/test\.txt is not UTF-8 text: .*0xe9"):
        open_dataset(folders[0], "test")


# ---- Open Images ------------------------------------------------------------------------------------------------

TABLE = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    root = tmp_path / "openimages"
    for name in ("images/a.jpg", "images/b.jpg", "more/c.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80)).save(root / name)
    rows = "b,x,/m/1,1,.1,.3,.25,.5,0,0,0,0,0\nb,x,/m/2,1,0,1,0,1,0,0,1,0,0\ngone,x,/m/1,1,0,1,0,1,0,0,0,0,0\n"
    (root / "train-annotations-bbox.csv").write_text(TABLE + rows)
    (root / "validation-annotations-bbox.csv").write_text(TABLE + "c,x,/m/2,1,.5,1,.5,1,0,0,0,0,0\n")
    (root / "class-descriptions-boxable.csv").write_text('/m/1,"Cat, tabby"\n/m/2,Dog\n')
    return root


def test_open_images(tables: Path):
    assert openimages_set_names(tables) == ["all", "train", "validation"]
    assert choose_set(tables) == "all"
    with pytest.warns(DataWarning, match="no image 1"):
        dataset = open_dataset(tables, "train")
    assert isinstance(dataset, OpenImagesDataset)
    assert dataset.classes == ("Cat, tabby", "Dog")
    assert dataset.ids == ["b"]
    image, target = dataset[0]
    assert image.shape == (3, 80, 100)
    assert target["boxes"].tolist() == [[10, 20, 30, 40], [0, 0, 100, 80]]
    assert target["labels"].tolist() == [1, 2]
    assert target["difficult"].tolist() == [False, True]
    with pytest.warns(DataWarning):
        dataset = open_dataset(tables, "train", ["Dog", "Whale", "Cat, tabby"], keep_crowds=False)
    assert dataset.target(0)["labels"].tolist() == [3]
    with pytest.warns(DataWarning):
        dataset = open_dataset(tables, "validation")
    assert (dataset.ids, dataset.target(0)["boxes"].tolist()) == (["c"], [[50, 40, 100, 80]])
    with pytest.warns(DataWarning):
        assert sorted(open_dataset(tables, "all").ids) == ["a", "b", "c"]


def test_open_images_refuse_what_is_missing(tables: Path):
    with pytest.raises(FileNotFoundError, match="no image set 'test'; it has all, train, validation"):
        open_dataset(tables, "test")
    with pytest.raises(ValueError, match=r"b\.jpg: class 'Cat, tabby' is not among \['Dog'\]"):
        open_dataset(tables, "train", ["Dog"])
    with pytest.raises(FileNotFoundError, match="openimages is not in the VOC layout"):
        split_dataset(tables, progress=False)  # there would be no place for the new sets
    with pytest.raises(ValueError, match=r"openimages has tables of Open Images: `ssd data convert .*openimages --out"):
        check_dataset(tables)


def test_a_table_beside_the_lists_of_voc_is_a_note(folders: list[Path]):
    (folders[0] / "boxes.csv").write_text(TABLE)
    assert isinstance(open_dataset(folders[0], "trainval"), VOCDataset)
