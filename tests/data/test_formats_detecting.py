"""Folders of labels: which format they are in, which image a label is of, and files that are damaged."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from support.label_sets import COCO, CSV_HEAD, balanced, picture, shape, text, voc_xml
from support.voc_folder import object_xml

from ssdlib.data.formats.collecting import ImageFiles
from ssdlib.data.formats.detecting import find_labels, read_source

# ---- damaged files ---------------------------------------------------------------------------------------------

LABELS = {
    "yolo": ("a.txt", "1 0.5 0.5 0.2 0.5\n0 .1 .5 .3 .25 .2 .75\n"),
    "coco": ("all.json", json.dumps(COCO)),
    "voc": ("a.xml", voc_xml(object_xml("cat", 1, 1, 90, 70) + object_xml("dog", 5, 5, 9, 9, difficult=1))),
    "labelme": (
        "a.json",
        json.dumps(
            {"imagePath": "a.jpg", "imageWidth": 100, "imageHeight": 80, "shapes": [shape("circle", (9, 9), (5, 5))]}
        ),
    ),
    "cvat": (
        "all.xml",
        '<annotations><image name="a.jpg" width="100" height="80">'
        '<box label="cat" xtl="1" ytl="2" xbr="30" ybr="40" rotation="9"/><polygon label="c" points="1,2;9,2;3,9"/>'
        "</image></annotations>",
    ),
    "openimages": ("all.csv", CSV_HEAD + "a,x,/m/1,1,.1,.3,.25,.5,0,0,1,0,0\n"),
    "data.yaml": ("data.yaml", "train: images\nkpt_shape: [1, 2]\nnames:\n  0: cat\n  1: dog\n"),
}


@pytest.mark.parametrize("name", LABELS)
def test_damaged_files_are_accounted_for_or_refused(name: str, tmp_path: Path):
    """Bytes that are changed, lost, doubled or replaced by what readers trip over: an account, or a ValueError."""
    picture(tmp_path / "a.jpg")
    text(tmp_path / "classes.txt", "cat\ndog\n")
    file, content = LABELS[name]
    picture(tmp_path / "b.jpg")
    if name in ("voc", "labelme"):  # a second file, so that something comes over
        text(tmp_path / f"b{Path(file).suffix}", content)
    if name == "data.yaml":
        text(tmp_path / "a.txt", LABELS["yolo"][1])
    whole = content.encode()
    random = np.random.default_rng(0)
    pieces = [
        piece.encode("latin-1")
        for piece in ("", *'\0\xff-"<\n', "9" * 400, *["1e999", "nan", "null", "[]", "{}", "&x;", ".."])
    ]
    taken, refused = 0, []
    for _ in range(150):
        start = int(random.integers(len(whole)))
        end = start + int(random.choice([0, 1, 3, 12]))
        (tmp_path / file).write_bytes(whole[:start] + pieces[random.integers(len(pieces))] + whole[end:])
        try:
            assert balanced(read_source(tmp_path, "yolo" if name == "data.yaml" else name))
            taken += 1
        except ValueError as error:
            refused.append(str(error))
    assert all(str(tmp_path) in message for message in refused)
    assert taken > 30


# ---- which format, which image ---------------------------------------------------------------------------------


def test_formats_are_told_apart(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    with pytest.raises(
        ValueError, match=r"no labels of a known format \(yolo, coco, voc, labelme, cvat, openimages, shards\)"
    ):
        read_source(tmp_path)
    text(tmp_path / "package.json", '{"images": []}')
    text(tmp_path / "readme.txt", "0 and 1\n")
    text(tmp_path / "table.csv", "ImageID,Label\n")
    text(tmp_path / "page.xml", "<html/>")
    assert find_labels(tmp_path) == {}
    text(tmp_path / "a.txt", "0 .5 .5 .2 .2\n")
    text(tmp_path / "a.xml", voc_xml(""))
    with pytest.raises(ValueError, match=r"2 formats \(voc: .*a.xml; yolo: .*a.txt\): choose one with --from"):
        read_source(tmp_path)
    assert read_source(tmp_path, "voc").format == "voc"
    with pytest.raises(ValueError, match="no labelled image was found as cvat"):
        read_source(tmp_path, "cvat")
    with pytest.raises(ValueError, match=r"no file of labels in the format coco: no \*\.json"):
        read_source(picture(tmp_path / "bare" / "a.jpg").parent, "coco")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is an archive: unpack it"):
        read_source(text(tmp_path / "export.zip", ""))


def test_images_are_looked_up_in_the_folder_alone(tmp_path: Path):
    outside = picture(tmp_path / "outside.jpg")
    root = tmp_path / "set"
    first, second = (picture(root / part / "a.jpg") for part in ("train", "val"))
    only = picture(root / "train" / "B.PNG")
    images = ImageFiles(root)
    assert images.find("C:\\data\\val\\a.jpg") == second
    assert images.find("a.jpg", root / "train") == first
    assert images.find("b") == only
    assert images.find("b.jpg") == only
    for name in ("a.jpg", "../outside.jpg", str(outside), "", "..", "\x1b[31m"):
        with pytest.raises(LookupError):
            images.find(name)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("coco", "train.json", json.dumps(COCO)[:-5], "not readable as JSON"),
        ("cvat", "all.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "not readable as XML"),
        ("openimages", "boxes.csv", "ImageID,Label\na,cat\n", "no table of boxes of Open Images: .*'LabelName'"),
    ],
)
def test_a_format_that_is_named_says_what_is_wrong(name: str, file: str, content: str, message: str, tmp_path: Path):
    picture(tmp_path / "a.jpg")
    text(tmp_path / file, content)
    with pytest.raises(ValueError, match="name one with --from to see what fails"):
        read_source(tmp_path)
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        read_source(tmp_path, name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_images_and_labels_are_files(tmp_path: Path):
    """A folder or a pipe of such a name is none: reading a pipe would wait for ever."""
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", "0 .5 .5 .2 .2\n")
    text(tmp_path / "classes.txt", "cat\n")
    for name in ("b.txt", "b.json", "b.csv", "b.xml", "b.yaml", "c.jpg"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "d.jpg").mkdir()
    (tmp_path / "d.txt").mkdir()
    read = read_source(tmp_path)
    assert (read.format, read.objects, read.findings) == ("yolo", 1, [])
    assert [image.image_path.name for image in read.images] == ["a.jpg"]


def test_names_are_the_same_in_every_normal_form(tmp_path: Path):
    """A Mac writes é as e and an accent into the names of files, and other tools write one letter into labels."""
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    picture(tmp_path / f"{two}.jpg")
    text(
        tmp_path / "x.json",
        json.dumps(
            {
                "imagePath": f"{one}.jpg",
                "shapes": [{**shape("rectangle", (1, 1), (9, 9)), "label": label} for label in (one, two)],
            }
        ),
    )
    read = read_source(tmp_path)
    assert (len(read.images), read.classes, read.left_out) == (1, (one,), {})
