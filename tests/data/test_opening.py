from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.voc_folder import object_xml, write_voc

from ssdlib.data import DataWarning, JoinedDataset, VOCDataset, open_dataset

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


def test_findings_of_all_folders(folders: list[Path], tmp_path: Path):
    bad = write_voc(tmp_path / "bad", {"trainval": ["e"]}, {"e": [object_xml("cat", 5, 5, 5, 9), DOG, CAT]})
    with pytest.warns(UserWarning, match="zero area 1"):
        dataset = open_dataset([*folders, bad], "trainval")
    assert [finding.kind for finding in dataset.findings] == ["zero area"]


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
