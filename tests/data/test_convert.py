"""From other tools' labels to a folder that is trained on: what was written, read by our reader; round trips by globox.

globox is an independent implementation of the formats: it writes the small sets here, and reads what we write.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.label_sets import picture, text
from support.voc_folder import object_xml, write_annotation, write_image

from ssdlib.data import check_dataset, convert_dataset, open_dataset, write_shards
from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.formats.detecting import FORMATS

SIZE = (100, 80)
# whole pixels, so that no format rounds; the corners of the image, and an image without objects
TRUTH = {
    "a": [("cat", (0, 0, 100, 80)), ("dog", (10, 20, 31, 40))],
    "b": [("dog", (98, 78, 100, 80))],
    "empty": [],
}


def rows(dataset: AnnotatedDataset) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """The objects of each image, by the stem of its file."""
    found = {}
    for index in range(len(dataset)):
        target = dataset.target(index)
        pairs = zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
        found[dataset.image_path(index).stem] = [
            (dataset.classes[label - 1], tuple(round(edge, 2) for edge in box)) for label, box in pairs
        ]
    return found


def by_globox(root: Path, name: str) -> Path:
    """TRUTH in a format, written by globox, with the images; in shards by us, of what it wrote for COCO."""
    globox = pytest.importorskip("globox")
    if name == "shards":
        convert_dataset(by_globox(root.parent / "written", "coco"), root.parent / "files", progress=False)
        write_shards(open_dataset(root.parent / "files", "all"), root, "train", 2, progress=False)
        return root
    one = 1 if name == "voc" else 0  # it writes what it is given; VOC's first pixel is 1
    annotations = globox.AnnotationSet(
        globox.Annotation(
            f"{stem}.jpg",
            SIZE,
            [globox.BoundingBox(label=c, xmin=x + one, ymin=y + one, xmax=r, ymax=b) for c, (x, y, r, b) in objects],
        )
        for stem, objects in TRUTH.items()
    )
    for stem in TRUTH:
        picture(root / "images" / f"{stem}.jpg", SIZE)
    if name == "yolo":
        annotations.save_yolo_v5(root / "labels", label_to_id={"cat": 0, "dog": 1})
        text(root / "classes.txt", "cat\ndog\n")
    elif name == "coco":
        annotations.save_coco(root / "labels.json", auto_ids=True)
    elif name == "voc":
        annotations.save_pascal_voc(root / "labels")
    elif name == "labelme":
        annotations.save_labelme(root / "labels")
    elif name == "cvat":
        annotations.save_cvat(root / "labels.xml")
    else:
        annotations.save_openimage(root / "labels.csv")
    return root


@pytest.mark.parametrize("layout", ["coco", "voc"])
@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name: str, layout: Any, tmp_path: Path):
    source = by_globox(tmp_path / "source", name)
    done = convert_dataset(source, tmp_path / "set", layout=layout, progress=False)  # the format is told by the files
    assert done.format == name
    assert done.ok, done.text()
    assert (done.images, done.objects, done.left_out, done.findings) == (3, (3, 3), {}, ())
    dataset = open_dataset(tmp_path / "set", "all")
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset) == TRUTH
    assert check_dataset(tmp_path / "set", progress=False).ok
    assert (tmp_path / "set" / "conversion.txt").read_text(encoding="utf-8") == done.text() + "\n"
    from globox import AnnotationSet

    back = (
        AnnotationSet.from_coco(tmp_path / "set" / "annotations" / "instances_all.json")
        if layout == "coco"
        else AnnotationSet.from_pascal_voc(tmp_path / "set" / "Annotations")
    )
    one = 1 if layout == "voc" else 0
    found = {a.image_id[:-4]: [(b.label, (b.xmin - one, b.ymin - one, b.xmax, b.ymax)) for b in a.boxes] for a in back}
    assert found == TRUTH


edge = st.floats(-20, 130, width=32)


@settings(max_examples=60, deadline=None)
@given(corners=st.lists(st.tuples(edge, edge, edge, edge), max_size=6))
def test_every_object_is_written_or_accounted_for(
    corners: list[tuple[float, ...]], tmp_path_factory: pytest.TempPathFactory
):
    """Whatever the boxes are, in both layouts."""
    folder = tmp_path_factory.mktemp("cvat")
    root = folder / "source"
    picture(root / "a.png", SIZE)
    shapes = "".join(f'<box label="cat" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d in corners)
    text(root / "all.xml", f'<annotations><image name="a.png" width="100" height="80">{shapes}</image></annotations>')
    inside = [
        (x, y, r, b)
        for x, y, r, b in ((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners)
        if min(r, 100) - max(x, 0) > 1.01 and min(b, 80) - max(y, 0) > 1.01
    ]
    for layout, thinnest in (("coco", 0), ("voc", 1)):
        done = convert_dataset(root, folder / layout, layout=layout, progress=False)  # type: ignore[arg-type]
        written, came = done.objects
        assert written == len(corners) == came + sum(done.left_out.values())
        (image,) = open_dataset(folder / layout, "all", ["cat"])._images if came else [None]
        assert len(inside) <= came
        if image is not None:
            assert (image.boxes[:, 2:] - image.boxes[:, :2] > thinnest).all()
            kept = [box for box in image.boxes.tolist() if min(box[2] - box[0], box[3] - box[1]) > 1.01]
            clipped = [(max(x, 0), max(y, 0), min(r, 100), min(b, 80)) for x, y, r, b in inside]
            np.testing.assert_allclose(np.array(kept).reshape(-1, 4), np.array(clipped).reshape(-1, 4), atol=0.002)


def test_images_of_the_same_name_and_with_spaces(tmp_path: Path):
    source = tmp_path / "source"
    for place in ("images/train", "images/val"):
        picture(source / place / "a 1.jpg")
        text(source / place.replace("images", "labels") / "a 1.txt", f"{int('val' in place)} .5 .5 .5 .5\n")
    text(source / "classes.txt", "cat\ndog\n")
    for layout in ("coco", "voc"):
        out = tmp_path / layout
        done = convert_dataset(source, out, layout=layout, progress=False)  # type: ignore[arg-type]
        assert done.sets == {"all": 2, "train": 1, "val": 1}
        assert rows(open_dataset(out, "all")) == {
            "train_a_1": [("cat", (25, 20, 75, 60))],
            "val_a_1": [("dog", (25, 20, 75, 60))],
        }
        assert list(rows(open_dataset(out, "val"))) == ["val_a_1"]
        assert check_dataset(out, progress=False).ok


@pytest.mark.parametrize("layout", ["coco", "voc"])
@pytest.mark.parametrize("stored", [False, True])
def test_exif_orientation(stored: bool, layout: Any, tmp_path: Path):
    """A photograph that lies on its side: labels of the upright image, or of the stored pixels, as the size says."""
    size = (100, 80) if stored else (80, 100)
    picture(tmp_path / "source" / "a.jpg", (100, 80), orientation=6)
    box = '<box label="cat" xtl="0" ytl="0" xbr="9" ybr="20"/>'
    node = f'<image name="a.jpg" width="{size[0]}" height="{size[1]}">{box}'
    text(tmp_path / "source" / "labels.xml", f"<annotations>{node}</image></annotations>")
    convert_dataset(tmp_path / "source", tmp_path / "set", layout=layout, progress=False)
    dataset = open_dataset(tmp_path / "set", "all")
    assert dataset.size(0) == size
    assert dataset[0][0].shape == (3, size[1], size[0])
    assert rows(dataset) == {"a": [("cat", (0, 0, 9, 20))]}


def test_a_set_of_all_images_divides_nothing(tmp_path: Path):
    """So that `ssd data split` finds no train set in its way."""
    for place in ("train/images", "train/labels"):
        (tmp_path / "source" / place).mkdir(parents=True)
    picture(tmp_path / "source" / "train" / "images" / "a.jpg")
    text(tmp_path / "source" / "train" / "labels" / "a.txt", "0 .5 .5 .5 .5\n")
    text(tmp_path / "source" / "data.yaml", "train: train/images\nnames: [cat]\n")
    assert convert_dataset(tmp_path / "source", tmp_path / "set", progress=False).sets == {"all": 1}


def test_links(tmp_path: Path):
    by_globox(tmp_path / "source", "coco")
    convert_dataset(tmp_path / "source", tmp_path / "set", link=True, progress=False)
    image = tmp_path / "set" / "images" / "a.jpg"
    assert image.is_symlink()
    with Image.open(image) as opened:
        assert opened.size == SIZE


def test_what_a_layout_cannot_hold_is_said(tmp_path: Path):
    source = tmp_path / "source"
    picture(source / "a.jpg")
    bboxes = [([5, 5, 1, 9], 0), ([5, 5, 20, 9], 1)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "owl"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": b, "iscrowd": c} for i, (b, c) in enumerate(bboxes)
        ],
    }
    text(source / "labels.json", json.dumps(content))
    voc = convert_dataset(source, tmp_path / "voc", layout="voc", progress=False)
    assert voc.objects == (2, 1)
    assert voc.left_out == {"too thin": 1}
    assert "voc cannot hold the box 5, 5, 6, 14" in voc.text()
    assert "1 crowd marked as difficult" in voc.text()
    assert "owl: without objects, and VOC has no list of classes" in voc.text()
    coco = convert_dataset(source / "labels.json", tmp_path / "coco", progress=False)
    assert coco.ok
    assert "owl: without objects, but are kept as classes" in coco.text()
    assert open_dataset(tmp_path / "coco", "all").classes == ("cat", "owl")


def test_difficult_objects_become_crowds(tmp_path: Path):
    write_annotation(
        tmp_path / "source", "a", [object_xml("cat", 1, 1, 9, 9), object_xml("cat", 11, 1, 19, 9, difficult=1)]
    )
    write_image(tmp_path / "source", "a.png")
    done = convert_dataset(tmp_path / "source", tmp_path / "set", progress=False)
    assert "1 difficult object marked as crowd" in done.text()
    assert len(open_dataset(tmp_path / "set", "all", keep_crowds=False).target(0)["boxes"]) == 1


def test_nothing_is_left_behind_or_replaced(tmp_path: Path):
    source = by_globox(tmp_path / "source", "openimages")
    (tmp_path / "taken").mkdir()
    text(tmp_path / "taken" / "mine.txt", "important")
    with pytest.raises(FileExistsError, match="choose another folder"):
        convert_dataset(source, tmp_path / "taken", progress=False)
    with pytest.raises(ValueError, match="no file of labels"):
        convert_dataset(source, tmp_path / "set", labels="cvat", progress=False)
    with pytest.raises(ValueError, match="which is read: choose another folder"):
        convert_dataset(source, source / "set", progress=False)
    for path in source.glob("images/*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no labelled image was found as openimages: .*no image 'a\.jpg'"):
        convert_dataset(source, tmp_path / "set", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "taken"]
    (tmp_path / "set").mkdir()
    picture(source / "images" / "a.jpg")
    done = convert_dataset(source, tmp_path / "set", progress=False)
    assert (done.images, done.objects, done.left_out) == (1, (3, 2), {"no image": 1})
    assert not done.ok


def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path: Path):
    source = by_globox(tmp_path / "source", "openimages")
    left = tmp_path / ".set.part.abcdefgh"
    text(left / "set" / "images" / "a.jpg", "half")
    text(left / ".lock", "")
    os.utime(left / ".lock", (1, 1))
    convert_dataset(source, tmp_path / "set", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "source"]


def test_a_folder_to_fill_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = by_globox(tmp_path / "source", "openimages")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "new").symlink_to("nowhere")
    for name, place in (("link", "empty"), ("new", "nowhere")):
        convert_dataset(source, tmp_path / name, progress=False)
        assert (tmp_path / name).is_symlink()
        assert len(open_dataset(tmp_path / place, "all", progress=False)) == 3
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileExistsError, match=r"\. is the current folder: choose another"):
        convert_dataset(source, ".", progress=False)


def test_images_elsewhere(tmp_path: Path):
    source = by_globox(tmp_path / "source", "openimages")
    (source / "images").rename(tmp_path / "photographs")
    done = convert_dataset(source / "labels.csv", tmp_path / "set", images=tmp_path / "photographs", progress=False)
    assert (done.images, done.objects) == (3, (3, 3))
    with (source / "labels.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
