from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.bccd import BCCD_ROOT, needs_bccd
from support.coco_folder import annotation, image, write_coco
from support.voc_folder import object_xml, write_annotation, write_image, write_voc

from ssdlib.data import VOCDataset, check, check_voc
from ssdlib.data.transforms import model_input

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


def test_bad_image_sets_are_listed_and_the_rest_goes_on(root: Path):
    main = root / "ImageSets" / "Main"
    (main / "latin.txt").write_bytes("café\n".encode("latin-1"))
    (main / "test.txt").write_text("d\n../../../etc/passwd\n\x1b[31md\n", encoding="utf-8")
    report = check_voc(root, progress=False)
    assert not report.ok
    assert report.sets == {"test": 1, "train": 2, "trainval": 3, "val": 1}
    assert [error.removeprefix(f"{main}/") for error in report.errors] == [
        "latin.txt is not UTF-8 text: 'utf-8' codec can't decode byte 0xe9 in position 3: invalid continuation byte",
        "test.txt, line 2: the id '../../../etc/passwd' leads out of the data set",
        r"test.txt, line 3: the id '\x1b[31md' has a control character, or one that cannot be shown",
    ]


def test_an_image_that_a_decoder_chokes_on_is_listed_and_the_rest_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch):
    def load(path: Path, upright: bool) -> None:
        if path.name == "a.png":
            raise ValueError(f"{path}: cannot be decoded: unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(check, "load_image", load)
    report = check_voc(root, progress=False)
    assert [error.split(": ")[0] for error in report.errors] == [str(root / "JPEGImages" / "a.png")]
    assert not report.ok
    assert report.classes[1].objects == 2


def test_the_text_can_be_printed_whatever_the_names(tmp_path: Path):
    odd = b"\xff\x1b[31m".decode("utf-8", "surrogateescape")
    root = write_voc(tmp_path / odd, {f"train{odd}": ["a"]}, {"a": [CAT]})
    write_annotation(root, "a", [CAT, object_xml("c\u0085at", 1, 1, 9, 9)])
    text = check_voc(root, progress=False).text()
    text.encode("utf-8")
    assert "\x1b" not in text
    assert r"train\udcff\x1b[31m" in text
    assert r"'c\x85at' has a control character" in text


def test_nothing_to_learn(root: Path):
    for image_id in "abcd":
        write_annotation(root, image_id)
    report = check_voc(root, progress=False)
    assert report.ok
    assert report.warnings == ("no object is annotated at all",)


def test_objects_that_vanish_are_counted(root: Path):
    write_image(root, "c.png", size=(900, 30))
    slim, enough = object_xml("cat", 1, 1, 2, 30), object_xml("cat", 1, 1, 3, 30)  # 2/3 and 1 pixel of 300
    write_annotation(root, "c", [slim, enough, slim], size=(900, 30))
    report = check_voc(root, progress=False)
    assert report.ok
    assert report.warnings == (
        "2 objects are smaller than a pixel in images of 300 x 300: training at that size leaves them out",
    )
    dataset = VOCDataset(root, "val")
    assert dataset.smaller_than_a_pixel(300) == 2
    assert len(model_input(300)(*dataset[0])[1]["boxes"]) == 1


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar(root: Path, capsys: pytest.CaptureFixture[str], progress: bool):
    check_voc(root, progress=progress)
    assert ("checking" in capsys.readouterr().err) == progress


def test_one_scene_in_two_sets(tmp_path: Path):
    """Near-duplicates in train and test; not those of one set, or of sets of which one is a part of the other."""
    sets = {"all": list("abcdef"), "train": list("abd"), "trainval": list("abcdf"), "val": ["c", "f"], "test": ["e"]}
    root = write_voc(tmp_path, sets)
    for name, number in {"a": 0, "b": 1, "c": 2, "d": 1, "e": 0, "f": 2}.items():
        cells = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(cells).resize((80, 60), Image.Resampling.BICUBIC)
        write_image(root, f"{name}.png", image=image if name < "d" else image.crop((1, 1, 79, 60)))
    warnings = [warning for warning in check_voc(root, progress=False).warnings if "scene" in warning]
    assert warnings == [
        "test and train have near-duplicates of one scene: e (test) and a (train)",
        "test and trainval have near-duplicates of one scene: e (test) and a (trainval)",
    ]
    for name, ids in {"trainval": "ae", "train": "ae", "val": "", "test": "a", "all": "ae"}.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(ids))
    assert not [w for w in check_voc(root, progress=False).warnings if "scene" in w]  # that they share "a" is said


@pytest.mark.slow
@needs_bccd
def test_blood_cells():
    report = check_voc(BCCD_ROOT, progress=False)
    assert not report.ok
    assert report.images == 364
    assert report.sets == {"test": 72, "train": 205, "trainval": 292, "val": 87}
    assert {c.name: c.objects for c in report.classes} == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert [(f.kind, f.action) for f in report.findings] == [("zero area", "refused")] * 2
    assert report.errors == ()
    twins = "BloodImage_00038 (train) and BloodImage_00037 (val)"
    assert report.warnings == (f"train and val have near-duplicates of one scene: {twins}",)
    assert "refused 2 (zero area 2)" in report.text()


def test_the_objects_of_a_large_set_are_not_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    boxes = [annotation(k, k % 40, 3, [k % 9, 1.5, 5.25, 7]) for k in range(8000)]
    write_coco(tmp_path, "train", [image(k) for k in range(40)], boxes)
    monkeypatch.setattr(check, "_report", lambda *given: given[3])
    tracemalloc.start()
    try:
        readers: Any = check.check_coco(tmp_path, progress=False)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(read().boxes) for _, read in readers) == 8000
    assert held / 8000 < 150  # bytes
