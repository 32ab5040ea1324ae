from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.bccd import BCCD_ROOT, needs_bccd
from support.voc_folder import object_xml, write_annotation, write_image, write_voc
from torch.utils.data import DataLoader

from ssdlib.data import DataWarning, VOCDataset
from ssdlib.data.voc import find_classes, read_image_set

CAT = object_xml("cat", 1, 1, 40, 30)
DOG = object_xml("dog", 3, 4, 10, 12, difficult=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sets = {"train": ["a", "b"], "test": ["c"], "trainval": ["b", "a"]}
    return write_voc(tmp_path, sets, {"a": [CAT, DOG], "c": [object_xml("bird", 1, 1, 5, 5)]})


# ---- targets ---------------------------------------------------------------------------------------------------


def test_items(root: Path):
    dataset = VOCDataset(root, "train")
    assert len(dataset) == 2
    assert dataset.ids == ["a", "b"]
    assert VOCDataset(root, "trainval").ids == ["b", "a"]
    image, target = dataset[0]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 30, 40)
    assert dataset.size(0) == (40, 30)
    assert dataset.image_path(0) == root / "JPEGImages" / "a.png"
    with Image.open(dataset.image_path(0)) as stored:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(stored))
    assert target.keys() == {"boxes", "labels", "difficult"}
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [2, 3, 10, 12]]
    assert target["labels"].dtype == torch.int64
    assert [dataset.classes[label - 1] for label in target["labels"]] == ["cat", "dog"]
    assert target["difficult"].dtype == torch.bool
    assert target["difficult"].tolist() == [False, True]
    assert dataset.findings == ()


def test_an_image_without_objects(root: Path):
    target = VOCDataset(root, "train").target(1)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].shape == target["difficult"].shape == (0,)
    assert target["labels"].dtype == torch.int64
    assert target["difficult"].dtype == torch.bool


def test_targets_are_fresh(root: Path):
    dataset = VOCDataset(root, "train")
    dataset.target(0)["boxes"].zero_()
    dataset.target(0)["labels"].zero_()
    assert dataset.target(0)["boxes"].any()
    assert dataset.target(0)["labels"].all()


def test_target_does_not_decode(root: Path):
    dataset = VOCDataset(root, "train")
    dataset.image_path(0).unlink()
    assert len(dataset.target(0)["boxes"]) == 2
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        dataset[0]


def test_difficult_objects_can_be_left_out(root: Path):
    target = VOCDataset(root, "train", keep_difficult=False).target(0)
    assert target["boxes"].tolist() == [[0, 0, 40, 30]]
    assert target["difficult"].tolist() == [False]


def test_edges_that_are_no_pixel_numbers(root: Path):
    assert VOCDataset(root, "train", one_based=False).target(0)["boxes"][1].tolist() == [3, 4, 10, 12]


def test_transform_has_the_last_word(root: Path):
    dataset = VOCDataset(root, "train", transform=lambda image, target: (image.float().mean(), target["labels"]))
    mean, labels = dataset[0]
    assert mean.ndim == 0
    assert len(labels) == 2


def test_index_beyond_the_end(root: Path):
    dataset = VOCDataset(root, "train")
    with pytest.raises(IndexError):
        dataset[2]
    assert len(list(iter(dataset))) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_pickles_and_loads_in_workers(root: Path, workers: int):
    dataset = pickle.loads(pickle.dumps(VOCDataset(root, "train")))
    loader = DataLoader(dataset, num_workers=workers, batch_size=None)
    boxes = [target["boxes"].tolist() for _, target in loader]
    assert boxes == [[[0, 0, 40, 30], [2, 3, 10, 12]], []]


# ---- classes ---------------------------------------------------------------------------------------------------


def test_classes_are_found_in_all_sets(root: Path):
    assert VOCDataset(root, "train").classes == ("bird", "cat", "dog")
    assert VOCDataset(root, "test").classes == ("bird", "cat", "dog")
    assert VOCDataset(root, "test").target(0)["labels"].tolist() == [1]


def test_classes_do_not_need_the_annotations_of_other_sets(root: Path):
    (root / "Annotations" / "c.xml").unlink()
    assert VOCDataset(root, "train").classes == ("cat", "dog")
    with pytest.raises(FileNotFoundError, match=r"c\.xml"):
        VOCDataset(root, "test")


def test_a_given_order_of_classes_gives_the_labels(root: Path):
    dataset = VOCDataset(root, "train", classes=["dog", "whale", "cat"])
    assert dataset.classes == ("dog", "whale", "cat")
    assert dataset.target(0)["labels"].tolist() == [3, 1]


def test_unknown_class(root: Path):
    with pytest.raises(ValueError, match=r"a\.xml, object 1: class 'dog' is not among \['cat'\]"):
        VOCDataset(root, "train", classes=["cat"])
    with pytest.warns(DataWarning, match="refused 1 .unknown class 1"):
        dataset = VOCDataset(root, "train", classes=["cat"], unknown="ignore")
    assert dataset.target(0)["labels"].tolist() == [1]
    (finding,) = dataset.findings
    assert (finding.file, finding.object_index, finding.detail) == ("Annotations/a.xml", 1, "dog")


def test_class_lists_are_checked(root: Path):
    with pytest.raises(ValueError, match="duplicates: dog"):
        VOCDataset(root, "train", classes=["dog", "cat", "dog"])
    with pytest.raises(ValueError, match="'cat'"):
        VOCDataset(root, "train", classes="cat")


def test_no_objects_at_all(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a"], "empty": []})
    assert find_classes(root) == ()
    assert VOCDataset(root, "train").classes == ()
    assert len(VOCDataset(root, "empty")) == 0


# ---- what is repaired, refused, or an error --------------------------------------------------------------------


def test_findings_are_counted_once_and_never_silent(tmp_path: Path):
    bad = [
        object_xml("cat", 9, 4, 3, 8),
        object_xml("cat", 5, 5, 5, 9),
        CAT,
        object_xml("cat", -3, 1, 20, 99),
        object_xml("cat", "nan", 1, 2, 3),
        object_xml("cat", 41, 1, 50, 9, difficult=1),
        "<object><name>cat</name></object>",
    ]
    root = write_voc(tmp_path, {"train": ["good", "bad"]}, {"good": [CAT], "bad": bad})
    with pytest.warns(DataWarning) as caught:
        dataset = VOCDataset(root, "train")
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "refused 4 (no box 1, not a number 1, outside the image 1, zero area 1)" in message
    assert "repaired 2 (partly outside 1, swapped corners 1)" in message
    assert caught[0].filename == __file__
    assert [(f.object_index, f.action) for f in dataset.findings] == [
        (0, "repaired"),
        (1, "refused"),
        (3, "repaired"),
        (4, "refused"),
        (5, "refused"),
        (6, "refused"),
    ]
    assert {f.file for f in dataset.findings} == {"Annotations/bad.xml"}
    target = dataset.target(1)
    assert target["boxes"].tolist() == [[2, 3, 9, 8], [0, 0, 40, 30], [0, 0, 20, 30]]
    assert target["labels"].tolist() == [1, 1, 1]
    assert target["difficult"].tolist() == [False, False, False]


def test_boxes_are_clipped_to_the_image_not_to_what_size_says(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a"]})
    write_annotation(root, "a", [object_xml("cat", 1, 1, 300, 200)], size=(300, 200))
    with pytest.warns(DataWarning, match="partly outside 1, wrong size 1"):
        dataset = VOCDataset(root, "train")
    assert dataset.target(0)["boxes"].tolist() == [[0, 0, 40, 30]]
    assert dataset.findings[0].detail == "<size> is 300 x 200, a.png is 40 x 30"


def test_missing_size_is_no_finding(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a"]})
    write_annotation(root, "a", [CAT], size=None)
    assert VOCDataset(root, "train").target(0)["boxes"].tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize(
    ("declared", "size"),
    [((40, 30), (40, 30)), ((30, 40), (30, 40)), (None, (30, 40)), ((99, 99), (30, 40))],
)
def test_size_decides_whether_a_turned_image_was_annotated_upright(tmp_path: Path, declared, size):
    root = write_voc(tmp_path, {"train": ["a"]})
    (root / "JPEGImages" / "a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), (0, 0, 20, 15))
    image.save(root / "JPEGImages" / "a.jpg", exif=exif)
    write_annotation(root, "a", [object_xml("cat", 1, 1, 20, 15)], size=declared)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = VOCDataset(root, "train")
    assert len(caught) == (declared == (99, 99))
    image, _ = dataset[0]
    assert dataset.size(0) == size
    assert image.shape == (3, size[1], size[0])
    corner = image[0, 2, 2] if size == (40, 30) else image[0, 2, -3]
    assert corner > 200


def test_missing_files_are_named(root: Path):
    (root / "JPEGImages" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.xml: no image in .*JPEGImages.*b\.jpg"):
        VOCDataset(root, "train")
    (root / "Annotations" / "a.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.xml"):
        VOCDataset(root, "train")


def test_unreadable_files_are_named(root: Path):
    (root / "JPEGImages" / "b.png").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"b\.png: cannot be read"):
        VOCDataset(root, "train")
    (root / "Annotations" / "a.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"a\.xml: not readable as XML"):
        VOCDataset(root, "train")


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.png"])
def test_images_are_found_by_id(tmp_path: Path, name: str):
    root = write_voc(tmp_path, {"train": ["a"]})
    (root / "JPEGImages" / "a.png").unlink()
    path = write_image(root, name)
    write_annotation(root, "a", filename="another.jpg")
    assert VOCDataset(root, "train").image_path(0) == path


def test_filename_counts_when_it_is_named_after_the_id_or_nothing_else_is(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a", "b"]})
    write_image(root, "a.jpg")
    write_annotation(root, "a", filename="a.png")
    (root / "JPEGImages" / "b.png").unlink()
    write_image(root, "photo 7.webp")
    write_annotation(root, "b", filename=r"C:\somebody\photo 7.webp")
    dataset = VOCDataset(root, "train")
    assert [dataset.image_path(i).name for i in range(2)] == ["a.png", "photo 7.webp"]


# ---- folders and image sets ------------------------------------------------------------------------------------


def test_lines_of_an_image_set(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a"]})
    for name in ("b", "photo 1"):
        write_annotation(root, name)
    text = "\ufeffa\n\n  b  -1\r\nb 1\nphoto 1\nphoto 1  0\n"
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text(text, encoding="utf-8", newline="")
    assert read_image_set(root, "cat_train") == ["a", "b", "b", "photo 1", "photo 1"]


@pytest.mark.parametrize("image_id", ["../secret", "a/../../b", "/etc/hostname"])
def test_an_id_cannot_leave_the_folder(root: Path, image_id: str):
    (root / "ImageSets" / "Main" / "evil.txt").write_text(f"a\n{image_id}\n")
    with pytest.raises(ValueError, match=rf"evil\.txt, line 2: the id '{image_id}'"):
        VOCDataset(root, "evil")


def test_filename_cannot_leave_the_folder(root: Path):
    (root / "JPEGImages" / "a.png").rename(root / "secret.png")
    write_annotation(root, "a", filename="../secret.png")
    with pytest.raises(FileNotFoundError, match=r"a\.xml"):
        VOCDataset(root, "train", classes=["cat", "dog"])


def test_wrong_folders(root: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no image set 'val'; it has test, train, trainval"):
        VOCDataset(root, "val")
    with pytest.raises(FileNotFoundError, match="not in the VOC layout: no folder Annotations"):
        VOCDataset(tmp_path / "nowhere", "train")
    outer = tmp_path / "outer"
    outer.mkdir()
    root.joinpath("Annotations").rename(outer / "Annotations")
    with pytest.raises(FileNotFoundError, match=r"no folder Annotations; did you mean .*outer"):
        VOCDataset(root, "train")


# ---- real photographs ------------------------------------------------------------------------------------------


@needs_bccd
def test_blood_cells():
    with pytest.warns(DataWarning, match="refused 2 .zero area 2"):
        train = VOCDataset(BCCD_ROOT, "trainval")
    test = VOCDataset(BCCD_ROOT, "test")
    assert train.classes == test.classes == ("Platelets", "RBC", "WBC")
    assert (len(train), len(test)) == (292, 72)
    assert not set(train.ids) & set(test.ids)
    assert [(f.file, f.object_index) for f in train.findings] == [
        ("Annotations/BloodImage_00338.xml", 12),
        ("Annotations/BloodImage_00343.xml", 3),
    ]
    counts = torch.zeros(4, dtype=torch.int64)
    for dataset in (train, test):
        for i in range(len(dataset)):
            target = dataset.target(i)
            counts += torch.bincount(target["labels"], minlength=4)
            boxes = target["boxes"]
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert (boxes >= 0).all()
            assert (boxes <= torch.tensor([640, 480, 640, 480])).all()
    assert counts.tolist() == [0, 361, 4153, 372]
    image, target = train[train.ids.index("BloodImage_00001")]
    assert image.shape == (3, 480, 640)
    assert len(target["boxes"]) > 0


@pytest.mark.parametrize("name", ["c\x85at", "cat\nok", "\u202ecat"])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, name: str):
    write_voc(tmp_path, {"train": ["a"]}, {"a": [object_xml(name, 1, 1, 9, 9)]})
    with pytest.raises(ValueError, match=r"a\.xml: the <name> of an <object> '.*' has a control character") as caught:
        VOCDataset(tmp_path, "train")
    assert repr(name) in str(caught.value)
    write_annotation(tmp_path, "a", filename=f"{name}.jpg")
    with pytest.raises(ValueError, match=r"a\.xml: <filename> '.*' has a control character"):
        VOCDataset(tmp_path, "train", ["cat"])


@pytest.mark.parametrize("name", ["", "  ", "c\x1bat"])
def test_given_classes_have_names_that_can_be_shown(tmp_path: Path, name: str):
    write_voc(tmp_path, {"train": ["a"]})
    with pytest.raises(ValueError, match=r"^the class '.*' (is empty|has a control character)"):
        VOCDataset(tmp_path, "train", ["cat", name])


@pytest.mark.parametrize("line", ["a\t1", "a\t-1", "\ta "])
def test_tabs_in_an_image_set_are_blanks(tmp_path: Path, line: str):
    write_voc(tmp_path, {"train": ["a"]}, {"a": [object_xml("cat", 1, 1, 9, 9)]})
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    assert VOCDataset(tmp_path, "train").ids == ["a"]
