from __future__ import annotations

import math
from pathlib import Path

import pytest
from support.bccd import BCCD_ROOT, needs_bccd
from support.voc_folder import object_xml, write_annotation, write_image, write_voc

from ssdlib.data import check_voc

CAT = object_xml("cat", 1, 1, 40, 30)
SMALL_CAT = object_xml("cat", 1, 1, 10, 30, difficult=1)
DOG = object_xml("dog", 1, 1, 20, 15)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sets = {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d"]}
    return write_voc(tmp_path, sets, {"a": [CAT, DOG], "b": [SMALL_CAT, DOG], "d": [DOG]})


def test_a_clean_folder(root: Path):
    report = check_voc(root, progress=False)
    assert report.ok
    assert report.sets == {"test": 1, "train": 2, "trainval": 3, "val": 1}
    assert report.images == 4
    assert (report.width_range, report.height_range) == ((40, 40), (30, 30))
    assert report.empty == ("c",)
    assert report.findings == report.errors == report.warnings == ()
    cat, dog = report.classes
    assert (cat.name, cat.objects, cat.difficult) == ("cat", 2, 1)
    assert (cat.smallest, cat.median, cat.largest) == pytest.approx((0.5, 0.75, 1))
    assert (dog.name, dog.objects, dog.difficult) == ("dog", 3, 0)
    assert (dog.smallest, dog.median, dog.largest) == pytest.approx((0.5, 0.5, 0.5))


def test_text(root: Path):
    lines = check_voc(root, progress=False).text().splitlines()
    assert lines[0] == str(root)
    assert lines[1].split() == ["image", "set", "images"]
    assert lines[3].split() == ["test", "1"]
    assert "4 images, 40 wide and 30 high, in pixels" in lines
    assert "5 objects of 2 classes; 1 image without objects" in lines
    assert "cat          2          1     0.500   0.750    1.000" in lines
    assert lines[-1] == "ok"


def test_repairs_are_reported_and_ok(root: Path):
    write_annotation(root, "a", [object_xml("cat", 9, 4, 3, 8)])
    write_annotation(root, "b", [DOG], size=(99, 99))
    write_image(root, "c.png", size=(64, 20))
    write_annotation(root, "c", size=(64, 20))
    report = check_voc(root, progress=False)
    assert report.ok
    assert (report.width_range, report.height_range) == ((40, 64), (20, 30))
    assert [f.kind for f in report.findings] == ["swapped corners", "wrong size"]
    text = report.text()
    assert "repaired 2 (swapped corners 1, wrong size 1)" in text
    assert "Annotations/a.xml, object 0: swapped corners, repaired: xmin 9, ymin 4, xmax 3, ymax 8" in text
    assert "40 to 64 wide and 20 to 30 high" in text


def test_a_refused_object_is_not_ok(root: Path):
    write_annotation(root, "d", [CAT, object_xml("cat", 5, 5, 5, 9)])
    report = check_voc(root, progress=False)
    assert not report.ok
    assert "refused 1 (zero area 1)" in report.text()
    assert report.text().splitlines()[-1].startswith("not ok")
    assert [c.objects for c in report.classes] == [3, 2]


def test_classes_outside_a_given_list_are_refused(root: Path):
    report = check_voc(root, classes=["cat", "whale"], progress=False)
    assert not report.ok
    assert {(f.kind, f.detail) for f in report.findings} == {("unknown class", "dog")}
    assert [(c.name, c.objects) for c in report.classes] == [("cat", 2), ("whale", 0)]
    assert math.isnan(report.classes[1].median)
    assert report.text()


def test_one_run_shows_every_broken_file(root: Path):
    (root / "Annotations" / "a.xml").unlink()
    (root / "Annotations" / "b.xml").write_text("<annotation>")
    (root / "JPEGImages" / "c.png").unlink()
    cut = root / "JPEGImages" / "d.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    report = check_voc(root, progress=False)
    assert not report.ok
    assert len(report.errors) == 4
    for name in ("a.xml", "b.xml", "c.xml", "d.png"):
        assert any(name in error for error in report.errors)
        assert name in report.text()
    assert report.classes[0].objects == 0


def test_the_same_image_in_train_and_test(root: Path):
    (root / "ImageSets" / "Main" / "test.txt").write_text("d\nb\nb\n")
    report = check_voc(root, progress=False)
    assert report.ok
    assert report.warnings == (
        "test lists 1 id more than once: b",
        "test and train share 1 id: b",
        "test and trainval share 1 id: b",
    )
    assert report.warnings[1] in report.text()


def test_sets_of_one_class_are_no_overlap(root: Path):
    for name in ("cat_train", "dog_train"):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("a  1\nb -1\n")
    assert check_voc(root, progress=False).warnings == ()


def test_the_same_image_under_two_ids(root: Path):
    (root / "JPEGImages" / "d.png").write_bytes((root / "JPEGImages" / "a.png").read_bytes())
    (warning,) = check_voc(root, progress=False).warnings
    assert warning == "the same image under 2 ids: a (train, trainval), d (test)"


def test_folders_that_cannot_be_checked(root: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="not in the VOC layout"):
        check_voc(tmp_path / "nowhere", progress=False)
    for path in (root / "ImageSets" / "Main").glob("*.txt"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="has no image set"):
        check_voc(root, progress=False)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar(root: Path, capsys: pytest.CaptureFixture[str], progress: bool):
    check_voc(root, progress=progress)
    assert ("checking" in capsys.readouterr().err) == progress


@needs_bccd
def test_blood_cells():
    report = check_voc(BCCD_ROOT, progress=False)
    assert not report.ok
    assert report.images == 364
    assert report.sets == {"test": 72, "train": 205, "trainval": 292, "val": 87}
    assert {c.name: c.objects for c in report.classes} == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert [(f.kind, f.action) for f in report.findings] == [("zero area", "refused")] * 2
    assert report.errors == report.warnings == ()
    assert "refused 2 (zero area 2)" in report.text()
