"""The readers of other tools' labels: what each file means is written down here by hand, in pixel edges."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.label_sets import COCO, CSV_HEAD, balanced, boxes, kinds, picture, shape, text, voc_xml
from support.voc_folder import object_xml

from ssdlib.data.formats.collecting import ImageFiles, Source
from ssdlib.data.formats.detecting import read_source
from ssdlib.data.formats.openimages import read_openimages

# ---- YOLO ------------------------------------------------------------------------------------------------------


def yolo(root: Path, lines: str, **sizes: Any) -> Source:
    picture(root / "images" / "a.jpg", **sizes)
    text(root / "labels" / "a.txt", lines)
    text(root / "classes.txt", "cat\ndog\n")
    return read_source(root, "yolo")


def test_yolo_is_centre_and_size(tmp_path: Path):
    source = yolo(tmp_path, "1 0.5 0.5 0.2 0.5\n\n0 .25 .25 .5 .5\r\n")
    assert boxes(source) == [("dog", 40, 20, 60, 60), ("cat", 0, 0, 50, 40)]
    assert source.classes == ("cat", "dog")
    assert kinds(source) == []


def test_yolo_polygons_are_boxes_around_their_points(tmp_path: Path):
    source = yolo(tmp_path, "0 .1 .5 .3 .25 .2 .75\n0 .1 .1 .2 .1 .2 .2 .1 .2\n")
    assert boxes(source) == [("cat", 10, 20, 30, 60), ("cat", 10, 8, 20, 16)]


def test_yolo_keypoints_are_no_polygon(tmp_path: Path):
    text(tmp_path / "data.yaml", "kpt_shape: [2, 2]\nnames: [cat]\n")
    assert boxes(yolo(tmp_path, "0 .5 .5 .2 .5 .1 .1 .9 .9\n")) == [("cat", 40, 20, 60, 60)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 .5 .5 .2 .2", "unknown class"),
        ("-1 .5 .5 .2 .2", "unknown class"),
        ("cat .5 .5 .2 .2", "unknown class"),
        ("0 .5 .5 .2", "not a box"),
        ("0 .5 .5 .2 .2 .99", "not a box"),
        ("0 .5 .5 .2 x", "not a number"),
        ("0 .5 .5 nan .2", "not a number"),
        ("0 .5 .5 0 .2", "zero area"),
        ("0 5 5 .2 .2", "outside the image"),
    ],
)
def test_yolo_lines_that_are_refused(line: str, kind: str, tmp_path: Path):
    source = yolo(tmp_path, f"0 .5 .5 .5 .5\n{line}\n")
    assert boxes(source) == [("cat", 25, 20, 75, 60)]
    assert kinds(source) == [kind]
    assert source.left_out == {kind: 1}
    assert source.objects == 2


def test_yolo_boxes_over_the_border(tmp_path: Path):
    source = yolo(tmp_path, "0 0 0 .5 .5\n0 .5000004 .5 1.00001 1\n0 .5 .5 -.2 .2\n")
    assert boxes(source) == [("cat", 0, 0, 25, 20), ("cat", 0, 0, 100, 80), ("cat", 40, 32, 60, 48)]
    assert kinds(source) == ["partly outside", "swapped corners"]  # rounding is none


def test_yolo_fractions_are_of_the_upright_image(tmp_path: Path):
    source = yolo(tmp_path, "0 .5 .5 .5 .5\n", size=(100, 80), orientation=6)
    assert source.images[0].size == (80, 100)
    assert boxes(source) == [("cat", 20, 25, 60, 75)]


def test_yolo_names_and_sets_of_data_yaml(tmp_path: Path):
    for place in ("train", "valid"):
        picture(tmp_path / place / "images" / f"{place}.jpg")
        text(tmp_path / place / "labels" / f"{place}.txt", "1 .5 .5 .5 .5\n")
    picture(tmp_path / "test" / "images" / "nothing.png")
    text(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames:\n  0: cat\n  1: hot dog\n")
    assert read_source(tmp_path / "data.yaml").objects == 2
    source = read_source(tmp_path)
    assert source.format == "yolo"
    assert source.classes == ("cat", "hot dog")
    assert {name: [source.images[i].image_path.stem for i in s] for name, s in source.sets.items()} == {
        "train": ["train"],
        "val": ["valid"],
    }
    assert boxes(source, "valid") == [("hot dog", 25, 20, 75, 60)]
    assert boxes(source, "nothing") == []
    assert "1 image without a label file" in source.notes[0]


def test_yolo_labels_without_an_image(tmp_path: Path):
    text(tmp_path / "labels" / "gone.txt", "0 .5 .5 .2 .2\n0 .5 .5 .3 .3\n")
    text(tmp_path / "notes.txt", "call the farmer\n")
    source = yolo(tmp_path, "0 .5 .5 .5 .5\n")
    assert [(f.file, f.kind) for f in source.findings] == [("labels/gone.txt", "no image")]
    assert source.left_out == {"no image": 2}
    assert balanced(source)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "does not say what its classes are called"),
        ({"data.yaml": "names: {0: cat, 2: dog}"}, "numbered from 0 without gaps"),
        ({"data.yaml": "names: [cat, cat]"}, "names 'cat' twice"),
        ({"data.yaml": 'names: ["a\\e[31m"]'}, "has a control character"),
        ({"data.yaml": "names: [cat\n"}, "is no readable YAML"),
        ({"data.yaml": "a: &a [x, x]\nnames: [*a, *a]"}, "aliases are not taken"),
        ({"data.yaml": "names: !!python/object/apply:os.getcwd []"}, "is no readable YAML"),
    ],
)
def test_yolo_names_that_cannot_be(names: dict[str, str], message: str, tmp_path: Path):
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", "0 .5 .5 .2 .2\n")
    for name, content in names.items():
        text(tmp_path / name, content)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path, "yolo")


# ---- VOC and COCO ----------------------------------------------------------------------------------------------


def test_voc_counts_from_one(tmp_path: Path):
    """As LabelImg writes it: the file lies beside the image."""
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", voc_xml(object_xml("cat", 1, 1, 100, 80) + object_xml("dog", 0, 5, 9, 9, difficult=1)))
    source = read_source(tmp_path)
    assert source.format == "voc"
    assert boxes(source) == [("cat", 0, 0, 100, 80), ("dog", 0, 4, 9, 9)]
    assert source.images[0].difficult.tolist() == [False, True]
    assert "1 box with a corner at 0" in source.notes[0]
    assert boxes(read_source(tmp_path, one_based=False)) == [("cat", 1, 1, 100, 80), ("dog", 0, 5, 9, 9)]


def test_voc_sets_and_images_that_are_not_labelled(tmp_path: Path):
    for name in "abc":
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
    for name in "ab":
        text(tmp_path / "Annotations" / f"{name}.xml", voc_xml("", "another.jpg"))
    (tmp_path / "Annotations" / "bad.xml").write_text("<annotation><object/></annotation>")
    text(tmp_path / "ImageSets" / "Main" / "train.txt", "b\n")
    text(tmp_path / "ImageSets" / "Main" / "cat_train.txt", "a -1\nb 1\n")
    source = read_source(tmp_path)
    assert source.sets == {"train": [1]}
    assert [len(image.boxes) for image in source.images] == [0, 0]
    assert "1 image without an XML file" in source.notes[0]
    assert [finding.kind for finding in source.findings] == ["unreadable labels"]


def test_an_entity_is_refused(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    text(tmp_path / "b.xml", voc_xml("", "b.jpg"))
    text(tmp_path / "a.xml", '<!DOCTYPE x [<!ENTITY e "cat">]>' + voc_xml(object_xml("&e;", 1, 1, 9, 9)))
    source = read_source(tmp_path, "voc")
    assert [image.image_path.name for image in source.images] == ["b.jpg"]


def test_coco(tmp_path: Path):
    """As Label Studio and Roboflow write it: file names with folders that are not there, the JSON beside the images."""
    picture(tmp_path / "train" / "a.jpg")
    text(tmp_path / "train" / "_annotations.coco.json", json.dumps(COCO))
    source = read_source(tmp_path)
    assert boxes(source) == [("cat", 10, 20, 40.5, 60), ("owl", 5, 20, 10, 25)]
    assert source.images[0].difficult.tolist() == [False, True]
    assert source.sets == {"train": [0]}
    assert source.left_out == {"no box": 1, "entry": 1}
    assert balanced(source)
    assert "unknown image_id 8" in source.findings[0].detail


def test_coco_of_two_files_that_share_an_image(tmp_path: Path):
    picture(tmp_path / "images" / "a.jpg")
    for name in ("all", "val"):
        text(tmp_path / "annotations" / f"instances_{name}.json", json.dumps(COCO))
    source = read_source(tmp_path, "coco")
    assert len(source.images) == 1
    assert source.sets == {"all": [0], "val": [0]}
    other = {**COCO, "annotations": COCO["annotations"][:1]}
    text(tmp_path / "annotations" / "instances_val.json", json.dumps(other))
    source = read_source(tmp_path, "coco")
    assert source.left_out["labelled twice"] == 1
    assert balanced(source)


# ---- LabelMe ---------------------------------------------------------------------------------------------------


def labelme(root: Path, *shapes: Any, **more: Any) -> Source:
    picture(root / "a.jpg")
    content = {"imagePath": "..\\photos\\a.jpg", "imageWidth": 100, "imageHeight": 80, "shapes": shapes, **more}
    text(root / "a.json", json.dumps(content))
    return read_source(root)


def test_labelme_shapes(tmp_path: Path):
    source = labelme(
        tmp_path,
        shape("rectangle", (30, 40), (10, 20)),
        shape("polygon", (1, 2), (7, 2), (4, 9)),
        shape(None, (1, 2), (7, 2), (4, 9)),
        shape("circle", (50, 40), (53, 44)),
        shape("mask", (60, 10), (80, 30)),
        shape("rectangle", (90, 70), (120, 90), flags={"difficult": True}),
    )
    assert [box[1:] for box in boxes(source)] == [
        (10, 20, 30, 40),
        (1, 2, 7, 9),
        (1, 2, 7, 9),
        (45, 35, 55, 45),
        (60, 10, 80, 30),
        (90, 70, 100, 80),
    ]
    assert source.images[0].difficult.tolist() == [False] * 5 + [True]
    assert kinds(source) == ["partly outside"]


def test_labelme_shapes_that_are_no_boxes(tmp_path: Path):
    source = labelme(
        tmp_path,
        shape("point", (30, 40)),
        shape("line", (30, 40), (50, 60)),
        shape("polygon"),
        {"label": 3, "points": []},
        shape("rectangle", (10, 10), (10, 40)),
        shape("circle", (1, 2)),
        shape("rectangle", (10**400, 2), (5, 5)),
        "text",
    )
    assert source.left_out == {"not a box": 5, "no label": 2, "zero area": 1}
    assert balanced(source)


def test_labelme_groups_are_one_object(tmp_path: Path):
    parts = [shape("polygon", (x, 10), (x + 5, 10), (x, 20), group_id=4) for x in (10, 40)]
    other = {**shape("rectangle", (1, 1), (5, 5), group_id=4), "label": "dog"}
    source = labelme(tmp_path, parts[0], other, parts[1], shape("rectangle", (60, 60), (70, 70), group_id=None))
    assert boxes(source) == [("cat", 10, 10, 45, 20), ("dog", 1, 1, 5, 5), ("cat", 60, 60, 70, 70)]
    assert source.left_out == {"part of another": 1}
    assert balanced(source)


def test_labelme_of_an_image_that_is_missing_or_damaged(tmp_path: Path):
    for name in ("gone", "broken"):
        content = {"imagePath": f"{name}.jpg", "shapes": [shape("rectangle", (1, 1), (5, 5))]}
        text(tmp_path / f"{name}.json", json.dumps(content))
    text(tmp_path / "broken.jpg", "no image")
    text(tmp_path / "half.json", '{"shapes": [')
    source = labelme(tmp_path)
    assert source.left_out == {"no image": 1, "unreadable image": 1}
    assert sorted(f.kind for f in source.findings) == ["no image", "unreadable image", "unreadable labels"]
    assert balanced(source)


# ---- CVAT ------------------------------------------------------------------------------------------------------


def cvat(root: Path, shapes: str) -> Source:
    picture(root / "images" / "a.jpg")
    names = "".join(f"<label><name>{name}</name></label>" for name in ("cat", "owl", "\u202e", ""))
    labels = f"<meta><job><labels>{names}</labels></job></meta>"
    node = f'<image id="0" name="sub/a.jpg" width="100" height="80">{shapes}</image>'
    text(root / "annotations.xml", f"<annotations><version>1.1</version>{labels}{node}</annotations>")
    return read_source(root)


def test_cvat_shapes(tmp_path: Path):
    source = cvat(
        tmp_path,
        '<box label="cat" xtl="10.5" ytl="20" xbr="30" ybr="40" occluded="1"/>'
        '<box label="cat" xtl="10" ytl="30" xbr="50" ybr="40" rotation="90"/>'
        '<polygon label="cat" points="1,2;7,2;4,9"/>'
        '<ellipse label="cat" cx="50" cy="40" rx="20" ry="10"/>'
        '<ellipse label="cat" cx="50" cy="40" rx="20" ry="10" rotation="90"/>'
        '<mask label="cat" left="5" top="6" width="10" height="20" rle="1, 2"/>',
    )
    assert [box[1:] for box in boxes(source)] == [
        (10.5, 20, 30, 40),
        (25, 15, 35, 55),
        (1, 2, 7, 9),
        (30, 30, 70, 50),
        (40, 20, 60, 60),
        (5, 6, 15, 26),
    ]
    assert source.classes == ("cat", "owl")
    assert [finding.kind for finding in source.findings] == ["class name"] * 2


def test_cvat_shapes_that_are_no_boxes(tmp_path: Path):
    lines = '<polyline label="cat" points="1,2;7,2"/><points label="cat" points="1,2"/><tag label="cat"/>'
    source = cvat(tmp_path, lines + '<box label="cat" xtl="1"/><box label="" xtl="1" ytl="1" xbr="3" ybr="4"/>')
    assert source.left_out == {"not a box": 2, "not a number": 1, "class name": 1}
    assert balanced(source)


def test_cvat_for_video_is_refused(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    text(tmp_path / "annotations.xml", '<annotations><track id="0" label="cat"/></annotations>')
    with pytest.raises(ValueError, match="CVAT for images"):
        read_source(tmp_path)


# ---- Open Images -----------------------------------------------------------------------------------------------


def test_open_images(tmp_path: Path):
    for name in ("a", "b", "empty"):
        picture(tmp_path / "images" / f"{name}.jpg")
    rows = "a,x,/m/1,1,.1,.3,.25,.5,0,0,0,0,0\na,x,/m/2,1,0,1,0,1,0,0,1,0,0\ngone,x,/m/1,1,0,1,0,1,0,0,0,0,0\n"
    text(tmp_path / "train-annotations-bbox.csv", CSV_HEAD + rows)
    text(
        tmp_path / "validation-annotations-bbox.csv",
        CSV_HEAD.replace(",", ", ") + "b,x,/m/1,1,,.3,.25,.5,0,0,0,0,0\n",
    )
    text(tmp_path / "class-descriptions-boxable.csv", '/m/1,"Cat, tabby"\n')
    source = read_source(tmp_path)
    assert source.format == "openimages"
    assert boxes(source) == [("Cat, tabby", 10, 20, 30, 40), ("/m/2", 0, 0, 100, 80)]
    assert source.images[0].difficult.tolist() == [False, True]
    assert source.sets == {"train": [0], "validation": [1]}
    assert source.left_out == {"no image": 1, "not a number": 1}
    assert balanced(source)
    assert boxes(source, "empty") == []
    assert [note.split(":")[0] for note in source.notes] == [
        "1 image without a row, taken to be without objects",
        "no class-descriptions*.csv names '/m/2'",
    ]


@pytest.mark.parametrize(("images", "most"), [(0, 100), (40, 700)])
def test_rows_of_open_images_are_kept_in_columns(tmp_path: Path, images: int, most: int):
    """Of an image that is not there only their number."""
    for number in range(images):
        picture(tmp_path / f"{number}.jpg")
    picture(tmp_path / "here.jpg")
    rows = [f"{k % 40},x,/m/{k % 7},1,{k / 9000:.6f},{k / 9000 + 0.5:.6f},.25,.5,0,0,0,0,0\n" for k in range(2000)]
    table = text(
        tmp_path / "train-annotations-bbox.csv",
        CSV_HEAD + "here,x,/m/1,1,.1,.3,.25,.5,0,0,1,0,0\n" + "".join(rows),
    )
    files = ImageFiles(tmp_path)
    tracemalloc.start()
    try:
        source = read_openimages([table], tmp_path, files)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.objects == 2001
    assert len(source.images) == images + 1
    assert peak / 2000 < most  # bytes a row
