from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.coco_folder import annotation, image, write_coco
from support.voc_folder import object_xml, write_voc

from ssdlib.data import CocoDataset, DataWarning, VOCDataset, check_dataset, json_lists, open_dataset
from ssdlib.data.annotations import clean_box
from ssdlib.data.coco import clean_bbox

IMAGES = [image(9), image(2, "sub/b.png"), image(5)]
ANNOTATIONS = [
    annotation(1, 2, 3, [2, 3.5, 10, 20]),
    annotation(2, 9, 7, [0, 0, 40, 30]),
    annotation(3, 2, 7, [5, 5, 30, 20], crowd=1),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco(tmp_path, "train", IMAGES, ANNOTATIONS)
    return tmp_path


def change(root: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


# ---- targets ---------------------------------------------------------------------------------------------------


def test_items(root: Path):
    dataset = CocoDataset(root, "train")
    assert dataset.classes == ("cat", "dog")  # by id, 3 and 7
    assert dataset.ids == ["9", "2", "5"]
    assert dataset.image_path(1) == root / "train" / "sub" / "b.png"
    assert dataset.size(1) == (40, 30)
    pixels, target = dataset[1]
    with Image.open(root / "train" / "sub" / "b.png") as stored:
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(stored))
    assert target["boxes"].tolist() == [[2, 3.5, 12, 23.5], [5, 5, 35, 25]]
    assert target["labels"].tolist() == [1, 2]
    assert target["difficult"].tolist() == [False, True]
    assert [target[key].dtype for key in ("boxes", "labels", "difficult")] == [torch.float32, torch.int64, torch.bool]
    assert dataset.findings == ()


def test_an_image_without_annotations(root: Path):
    target = CocoDataset(root, "train").target(2)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == target["difficult"].shape == (0,)


def test_the_same_interface_as_the_other_layout(root: Path, tmp_path: Path):
    voc = write_voc(tmp_path / "voc", {"train": ["a"]}, {"a": [object_xml("cat", 1, 1, 40, 30)]})

    def public(dataset: object) -> set[str]:
        return {name for name in dir(dataset) if not name.startswith("_")}

    assert public(CocoDataset(root, "train")) == public(VOCDataset(voc, "train"))


def test_crowds_can_be_left_out(root: Path):
    for dataset in (CocoDataset(root, "train", keep_difficult=False), open_dataset(root, "train", keep_crowds=False)):
        assert dataset.target(1)["boxes"].tolist() == [[2, 3.5, 12, 23.5]]
        assert dataset.target(1)["difficult"].tolist() == [False]
    assert len(open_dataset(root, "train").target(1)["boxes"]) == 2


def test_given_classes_give_the_labels(root: Path):
    dataset = CocoDataset(root, "train", ["whale", "dog", "cat"])
    assert dataset.target(1)["labels"].tolist() == [3, 2]
    with pytest.raises(ValueError, match=r"annotations\[1\]: class 'dog' is not among \['cat'\]"):
        CocoDataset(root, "train", ["cat"])
    with pytest.warns(DataWarning, match="refused 2 .unknown class 2"):
        assert len(CocoDataset(root, "train", ["cat"], unknown="ignore").target(0)["boxes"]) == 0
    with pytest.raises(ValueError, match="duplicates: cat"):
        CocoDataset(root, "train", ["cat", "cat"])


def test_transform_and_pickle(root: Path):
    dataset = CocoDataset(root, "train", transform=_swap)
    labels, mean = pickle.loads(pickle.dumps(dataset))[0]
    assert labels.tolist() == [2]
    assert mean.ndim == 0


def _swap(pixels: torch.Tensor, target: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return target["labels"], pixels.float().mean()


def test_images_in_a_folder_of_that_name(tmp_path: Path):
    write_coco(tmp_path, "val", [image(1)], [], folder="images")
    assert CocoDataset(tmp_path, "val").image_path(0) == tmp_path / "images" / "1.png"
    write_coco(tmp_path, "val", [image(1)], [])
    assert CocoDataset(tmp_path, "val").image_path(0) == tmp_path / "val" / "1.png"


def test_sizes_and_rotation_follow_the_rules_of_voc(tmp_path: Path):
    write_coco(tmp_path, "train", [image(1, size=(40, 30)), image(2, size=(40, 30))], [])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "1.png", exif=exif)
    Image.new("RGB", (64, 20)).save(tmp_path / "train" / "2.png")
    with pytest.warns(DataWarning, match="repaired 1 .wrong size 1"):
        dataset = CocoDataset(tmp_path, "train")
    assert [dataset.size(i) for i in range(2)] == [(40, 30), (64, 20)]
    assert dataset[0][0].shape == (3, 30, 40)
    assert dataset.findings[0].detail == "the size of the image 2 is 40 x 30, 2.png is 64 x 20"
    change(tmp_path, lambda content: [entry.pop(key) for entry in content["images"] for key in ("width", "height")])
    dataset = CocoDataset(tmp_path, "train")
    assert [dataset.size(i) for i in range(2)] == [(30, 40), (64, 20)]
    assert dataset.findings == ()


# ---- boxes -----------------------------------------------------------------------------------------------------


OUTLINES: list[Any] = [
    [[1.5, 2, 3e1, -4, 5, 6]],
    [[1, 2], [3, 4]],
    [],
    {"counts": [1, 2, 3], "size": [30, 40]},
    {"counts": "ab}", "size": [30, 40]},
    None,
    'a "text": [1]',
]


@pytest.mark.parametrize("piece", [1, 7, 2**24])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_outlines_are_passed_over(
    root: Path, monkeypatch: pytest.MonkeyPatch, piece: int, first: bool, indent: int | None
):
    boxes = [[1, 2, 3.5, 4], [1.25, 2.5, 3, 4], [1, 2, 3, 400], [math.nan, 1, 2, 3], [1], None, [1, 2, 3]]
    plain = [annotation(k, 1, 3, bbox) for k, bbox in enumerate(boxes)]
    names = [{"id": 3, "name": 'cat "segmentation": [1, 2]'}]
    write_coco(root, "train", [image(1)], plain, names)
    with pytest.warns(DataWarning):
        expected = CocoDataset(root, "train")
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    for entry, outline in zip(content["annotations"], OUTLINES, strict=True):
        rest = dict(entry)
        entry.clear()
        entry.update({"segmentation": outline, **rest} if first else {**rest, "segmentation": outline})
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content, indent=indent))
    monkeypatch.setattr(json_lists, "_PIECE", piece)
    with pytest.warns(DataWarning):
        dataset = CocoDataset(root, "train")
    assert dataset.classes == expected.classes == ('cat "segmentation": [1, 2]',)
    assert dataset.findings == expected.findings
    assert dataset.target(0)["boxes"].tolist() == expected.target(0)["boxes"].tolist()
    text = "".join(json_lists.pieces_of(root / "annotations" / "instances_train.json"))
    assert "30" not in text.split('"annotations"')[1].split("}")[0]  # an outline was cut, and not only not used


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json(root: Path, encoding: str):
    file = root / "annotations" / "instances_train.json"
    expected = CocoDataset(root, "train")
    file.write_text(file.read_text(), encoding=encoding)
    assert CocoDataset(root, "train").ids == expected.ids


def test_findings(root: Path):
    boxes = [[9, 8, -6, -4], [5, 5, 0, 4], [1, 1, 5, 5], [-3, 1, 20, 99], [math.nan, 1, 2, 3], [41, 1, 9, 9], None]
    boxes += [[1, 2, 3], ["1", 2, 3, 4], [10**400, 1, 2, 3], [1, 2, math.inf, 4], [], [True, 2, 3, 4]]
    write_coco(root, "train", [image(1)], [annotation(k, 1, 3, bbox) for k, bbox in enumerate(boxes)])
    change(root, lambda content: content["annotations"][2].pop("id"))
    with pytest.warns(DataWarning) as caught:
        dataset = CocoDataset(root, "train")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "refused 10 (no box 2, not a number 6, outside the image 1, zero area 1)" in str(caught[0].message)
    assert "repaired 2 (partly outside 1, swapped corners 1)" in str(caught[0].message)
    assert [finding.object_index for finding in dataset.findings] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert {finding.file for finding in dataset.findings} == {"annotations/instances_train.json"}
    assert dataset.target(0)["boxes"].tolist() == [[3, 4, 9, 8], [1, 1, 6, 6], [0, 1, 17, 30]]


edges = st.one_of(st.integers(-50, 50), st.floats(-50, 50, width=32))


@given(st.lists(edges, min_size=4, max_size=4))
def test_boxes_are_cleaned_by_the_rules_of_voc(bbox: list[float]):
    x, y, width, height = bbox
    corners = [float(value) for value in (x, y, x + width, y + height)]
    x_min, y_min, x_max, y_max = map(repr, corners)
    box, notes = clean_bbox(bbox, (40, 30))
    assert (box, notes) == clean_box((x_min, y_min, x_max, y_max), (40, 30), one_based=False)
    if 0 <= x < x + width <= 40 and 0 <= y < y + height <= 30 and box is not None:
        assert box == tuple(np.float32(value) for value in corners)
        assert notes == []


def test_parity_with_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    coco = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    numbers = rng.permutation(200)[:12].tolist()
    categories = [{"id": int(i), "name": f"class {i}"} for i in rng.permutation(90)[:8]]
    images = [image(n, size=(int(w), int(h))) for n, w, h in zip(numbers, *rng.integers(20, 60, (2, 12)), strict=True)]
    annotations = []
    for number in range(60):
        entry = images[rng.integers(10)]  # two images have none
        size = np.array([entry["width"], entry["height"]])
        low, high = np.sort(rng.choice(16, (2, 2), replace=False), axis=0) / 16 * size
        bbox = [*low.tolist(), *(high - low).tolist()]
        crowd = int(rng.random() < 0.2)
        annotations.append(annotation(number, entry["id"], int(rng.choice(categories)["id"]), bbox, crowd))
    annotations = [a for a in annotations if a["bbox"][2] > 0 and a["bbox"][3] > 0]
    file = write_coco(tmp_path, "val2017", images, annotations, categories)
    theirs, ours = coco.COCO(str(file)), CocoDataset(tmp_path, "val2017")
    assert sorted(ours.ids) == sorted(map(str, theirs.getImgIds()))
    labels = {number: label for label, number in enumerate(sorted(theirs.getCatIds()), start=1)}
    assert ours.classes == tuple(theirs.loadCats([number])[0]["name"] for number in labels)
    crowds = 0
    for index, image_id in enumerate(ours.ids):
        rows = theirs.loadAnns(theirs.getAnnIds(imgIds=[int(image_id)]))
        target = ours.target(index)
        expected = torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        torch.testing.assert_close(target["boxes"], expected)
        assert target["labels"].tolist() == [labels[row["category_id"]] for row in rows]
        assert target["difficult"].tolist() == [bool(row["iscrowd"]) for row in rows]
        crowds += int(target["difficult"].sum())
    assert crowds > 0
    assert sum(not len(ours.target(i)["labels"]) for i in range(12)) >= 2


# ---- errors ----------------------------------------------------------------------------------------------------


def put(key: str, index: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[key][index].update(values)


def drop(key: str, index: int, name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[key][index].pop(name)


WRONG = [
    (put("images", 1, id=9), r"images\[1\]: the id 9 stands twice"),
    (put("annotations", 2, id=1), r"annotations\[2\]: the id 1 stands twice"),
    (put("categories", 1, id=7), r"categories\[1\]: the id 7 stands twice"),
    (put("categories", 1, name="dog"), r"categories\[1\]: the name 'dog' stands twice"),
    (put("annotations", 0, category_id=4), r"annotations\[0\]: unknown category_id 4"),
    (put("annotations", 0, image_id=77), r"annotations\[0\]: unknown image_id 77"),
    (put("annotations", 0, image_id=[2]), r"'image_id' must be a whole number or a text, got \[2\]"),
    (put("annotations", 0, category_id="3"), r"'category_id' must be a whole number, got '3'"),
    (put("annotations", 0, iscrowd="no"), r"'iscrowd' must be a whole number, got 'no'"),
    (put("categories", 0, id=True), r"categories\[0\]: 'id' must be a whole number, got True"),
    (put("images", 0, file_name=5), r"images\[0\]: 'file_name' must be a text, got 5"),
    (put("images", 0, width=40.5), r"images\[0\]: 'width' must be a whole number, got 40.5"),
    (drop("images", 0, "height"), r"images\[0\]: there is no 'height'"),
    (drop("images", 0, "id"), r"images\[0\]: there is no 'id'"),
    (drop("annotations", 0, "image_id"), r"annotations\[0\]: there is no 'image_id'"),
    (lambda content: content["annotations"].insert(0, 5), r"annotations\[0\]: must be an object in braces, got 5"),
    (lambda content: content.pop("categories"), "there is no list 'categories'"),
    (lambda content: content.update(images={}), "there is no list 'images'"),
]


@pytest.mark.parametrize(("edit", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_entries_are_named(root: Path, edit: Callable[[dict[str, Any]], object], message: str):
    change(root, edit)
    with pytest.raises(ValueError, match=message) as caught:
        CocoDataset(root, "train")
    assert str(root / "annotations" / "instances_train.json") in str(caught.value)


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/etc/hostname", r"..\a.png", r"C:\a.png", "C:a.png"])
def test_a_file_name_cannot_leave_the_folder(root: Path, name: str):
    Image.new("RGB", (40, 30)).save(root / "a.png")
    change(root, put("images", 0, file_name=name))
    with pytest.raises(ValueError, match="leads out of the data set") as caught:
        CocoDataset(root, "train")
    assert repr(name) in str(caught.value)
    assert str(caught.value).endswith("(and 1 more)")  # the annotation of that image


@pytest.mark.parametrize("bad", ["", " ", "\x1b[31mcat", "\ud800", "cat\nok"])
@pytest.mark.parametrize(("key", "field"), [("categories", "name"), ("images", "file_name"), ("images", "id")])
def test_names_that_cannot_be_shown_are_refused(root: Path, key: str, field: str, bad: str):
    change(root, put(key, 0, **{field: bad}))
    with pytest.raises(
        ValueError, match=rf"instances_train\.json, {key}\[0\]: the .*(is empty|control char)"
    ) as caught:
        CocoDataset(root, "train")
    str(caught.value).encode("utf-8")
    assert "\x1b" not in str(caught.value)
    report = check_dataset(root, progress=False)
    assert not report.ok
    assert "\x1b" not in report.text()


def test_values_in_messages_are_cut(root: Path):
    change(root, put("annotations", 0, bbox=[0] * 100_000))
    with pytest.warns(DataWarning, match="not a number 1"):
        dataset = CocoDataset(root, "train")
    assert len(str(dataset.findings[0])) < 400


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\xff", "[" * 100_000])
def test_no_json(root: Path, text: str):
    (root / "annotations" / "instances_train.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"instances_train\.json: not readable as JSON"):
        CocoDataset(root, "train")


def test_what_is_missing_is_named(root: Path):
    (root / "train" / "5.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"instances_train\.json: the image with the id 5 is missing: .*5\.png"):
        CocoDataset(root, "train")
    (root / "train" / "9.png").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"9\.png: cannot be read"):
        CocoDataset(root, "train")
    (root / "train").rename(root / "pictures")
    with pytest.raises(FileNotFoundError, match=r"no folder of images: neither .*train nor .*images"):
        CocoDataset(root, "train")
    with pytest.raises(FileNotFoundError, match="has no image set 'val'; it has train"):
        CocoDataset(root, "val")


# ---- with other folders ----------------------------------------------------------------------------------------


def test_the_layout_is_recognised(root: Path, tmp_path: Path):
    assert isinstance(open_dataset(root, "train"), CocoDataset)
    with pytest.raises(FileNotFoundError, match="has no image set 'val'; it has train"):
        open_dataset(root, "val")
    objects = {"a": [object_xml("cat", 1, 1, 40, 30, difficult=1)], "b": [object_xml("dog", 1, 1, 9, 9)]}
    voc = write_voc(tmp_path / "voc", {"train": ["a", "b"]}, objects)
    joined = open_dataset([voc, root], "train", keep_crowds=False)
    assert joined.ids == ["a", "b", "9", "2", "5"]
    assert joined.classes == ("cat", "dog")
    assert [joined.target(i)["labels"].tolist() for i in range(5)] == [[1], [2], [2], [1], []]
    assert joined.target(0)["difficult"].tolist() == [True]  # of VOC they stay: there they are objects


def test_the_same_classes_in_another_order(root: Path, tmp_path: Path):
    other = tmp_path / "other"
    write_coco(
        other,
        "train",
        [image(1)],
        [annotation(1, 1, 1, [0, 0, 9, 9])],
        [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    )
    assert open_dataset(other, "train").classes == ("dog", "cat")
    joined = open_dataset([root, other], "train")
    assert joined.classes == ("cat", "dog")
    assert joined.target(3)["labels"].tolist() == [2]


# ---- the check -------------------------------------------------------------------------------------------------


def test_check_of_a_clean_folder(root: Path):
    write_coco(root, "val", [image(9)], [annotation(1, 9, 3, [0, 0, 20, 15])])
    report = check_dataset(root, progress=False)
    assert report.ok
    assert report.sets == {"train": 3, "val": 1}
    assert report.images == 4  # the same id in two sets is another image
    assert [(c.name, c.objects, c.difficult) for c in report.classes] == [("cat", 2, 0), ("dog", 2, 1)]
    assert report.classes[1].largest == 1
    assert report.empty == ("train/5.png",)
    assert report.findings == report.errors == report.warnings == ()
    assert report.text().splitlines()[-1] == "ok"


def test_check_shows_everything_in_one_run(root: Path):
    def edit(content: dict[str, Any]) -> None:
        content["annotations"] += [
            annotation(10, 77, 3, [0, 0, 5, 5]),
            annotation(11, 9, 4, [0, 0, 5, 5]),
            annotation(12, 9, 3, [0, 0, 0, 5]),
        ]

    change(root, edit)
    (root / "train" / "5.png").unlink()
    content = (root / "train" / "9.png").read_bytes()
    write_coco(root, "val", [image(9), image(1)], [], [{"id": 1, "name": "cat"}])
    (root / "val" / "9.png").write_bytes(content)
    cut = root / "val" / "1.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    (root / "annotations" / "instances_test.json").write_text("{")
    report = check_dataset(root, progress=False)
    assert not report.ok
    for part in ("no folder of images", "unknown image_id 77", "unknown category_id 4", "5.png", "1.png: cannot be"):
        assert sum(part in error for error in report.errors) == 1, report.errors
    assert len(report.errors) == 5
    assert [(f.object_index, f.kind) for f in report.findings] == [(5, "zero area")]
    assert report.warnings == (
        "train and val have different categories: {3: 'cat', 7: 'dog'} and {1: 'cat'}",
        "the same image under 2 ids: train/9.png (train), val/9.png (val)",
    )
    assert all(message in report.text() for message in (*report.errors, *report.warnings))


def test_check_of_two_sets_that_share_an_image(tmp_path: Path):
    for name in ("train", "test"):
        write_coco(tmp_path, name, [image(1)], [annotation(1, 1, 3, [0, 0, 5, 5])], folder="images")
    report = check_dataset(tmp_path, progress=False)
    assert report.warnings == ("test and train share 1 id: images/1.png",)
    assert report.images == 1
    assert report.classes[0].objects == 1  # which both sets say, in the same words


def test_check_with_given_classes(root: Path):
    report = check_dataset(root, ["cat"], progress=False)
    assert [(f.kind, f.detail) for f in report.findings] == [("unknown class", "dog")] * 2
    with pytest.raises(FileNotFoundError, match="not in the VOC layout"):
        check_dataset(root / "train")
