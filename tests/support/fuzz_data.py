"""Hostile data sets: annotations in both layouts, images, and EXIF data."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from support import fuzzing
from support.coco_folder import CATEGORIES, annotation, image
from support.fuzzing import can_be_printed, mutated, mutated_bytes, number, refused
from support.voc_folder import object_xml

from ssdlib.data import AnnotatedDataset, CocoDataset, VOCDataset, check_dataset
from ssdlib.data.images import load_image, read_header

WIDTH, HEIGHT = 40, 30


@cache
def picture(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A small image file."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def sound(dataset: AnnotatedDataset) -> None:
    """Whatever a file says, targets are boxes with an area, inside the image, of a known class."""
    for index in range(len(dataset)):
        target, (width, height) = dataset.target(index), dataset.size(index)
        boxes, labels = target["boxes"], target["labels"]
        assert boxes.shape == (len(labels), 4)
        assert torch.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert ((labels >= 1) & (labels <= len(dataset.classes))).all()
    for finding in dataset.findings:
        can_be_printed(str(finding))


def checked(root: Path) -> None:
    """The check of a folder ends with a report that can be printed."""
    report = check_dataset(root, progress=False)
    text = report.text()
    can_be_printed(text)
    assert len(text) < 100_000


def annotations(rng: random.Random, folder: Path) -> str:
    """A folder in the VOC layout with one odd annotation and, at times, an odd image set."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / "JPEGImages" / name).write_bytes(picture())
    (folder / "Annotations" / "b.xml").write_text(f"<annotation>{object_xml('cat', 1, 1, 9, 9)}</annotation>")
    lines = ["a", "b"]
    if rng.random() < 0.2:
        lines.insert(rng.randrange(3), rng.choice([*fuzzing.TEXTS, "a  1", "b -1", "a\t0"]))
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        text = mutated_bytes(rng, text)
    (folder / "ImageSets" / "Main" / "train.txt").write_bytes(text)
    (folder / "Annotations" / "a.xml").write_bytes(_xml(rng))
    names = [str(folder)]
    outcome = "refused" if refused(lambda: sound(_quietly(lambda: VOCDataset(folder, "train"))), *names) else "accepted"
    checked(folder)
    return outcome


def _xml(rng: random.Random) -> bytes:
    def text() -> str:
        return rng.choice([number(rng), number(rng), rng.choice(fuzzing.TEXTS)])

    name = rng.choice(["cat", "cat", "dog", rng.choice(fuzzing.TEXTS)])
    objects = [object_xml(name, *(text() for _ in range(4)), difficult=rng.choice([None, 0, 1, text()]))]
    objects += [object_xml("cat", *(rng.randint(-5, 45) for _ in range(4))) for _ in range(rng.randrange(4))]
    rng.shuffle(objects)
    size = f"<size><width>{rng.choice(['40', text()])}</width><height>{rng.choice(['30', text()])}</height></size>"
    filename = f"<filename>{rng.choice(['a.png', 'b.png', text()])}</filename>"
    xml = f"<annotation>{filename}{size}{''.join(objects)}</annotation>"
    kind = rng.randrange(10)
    if kind == 0:
        xml = '<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;&b;&b;">]>' + xml.replace("cat", "&c;")
    elif kind == 1:
        xml = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml.replace("cat", "&x;")
    elif kind == 2:
        encoding = rng.choice(["utf-16", "latin-1", "cp037", "rot13", "x" * 300, "utf-7", "idna"])
        xml = f'<?xml version="1.0" encoding="{encoding}"?>{xml}'
    elif kind == 3:
        xml = xml.replace("<bndbox>", "<a>" * rng.choice([10, 1000, 50_000]) + "<bndbox>")
    elif kind == 4:
        tag = rng.choice(["object", "bndbox", "xmin", "name", "size", "annotation", "difficult"])
        xml = xml.replace(f"<{tag}>", rng.choice(["", f"<{tag}><{tag}/>", f"<n:{tag}>", "<!-- -->"]))
    content = xml.encode("utf-8", "surrogatepass")
    return mutated_bytes(rng, content) if rng.random() < 0.3 else content


def coco(rng: random.Random, folder: Path) -> str:
    """A folder in the COCO layout with an odd file of annotations."""
    (folder / "annotations").mkdir()
    (folder / "train").mkdir()
    for name in ("1.png", "2.png"):
        (folder / "train" / name).write_bytes(picture())
    tree: Any = {"images": [image(1), image(2)], "categories": [dict(entry) for entry in CATEGORIES]}
    tree["annotations"] = [annotation(1, 1, 3, [2, 3.5, 10, 20]), annotation(2, 2, 7, [0, 0, 40, 30], crowd=1)]
    for _ in range(rng.choice([1, 1, 2, 4])):
        tree = mutated(rng, tree)
    content = json.dumps(tree).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        content = mutated_bytes(rng, content)
    (folder / "annotations" / "instances_train.json").write_bytes(content)
    opened = refused(lambda: sound(_quietly(lambda: CocoDataset(folder, "train"))), "instances_train.json")
    checked(folder)
    return "refused" if opened else "accepted"


KINDS: list[dict[str, Any]] = [
    {"kind": "JPEG"},
    {"kind": "JPEG", "progressive": True},
    {"kind": "JPEG", "mode": "CMYK"},
    {"kind": "JPEG", "mode": "L"},
    {"kind": "PNG"},
    {"kind": "PNG", "mode": "P"},
    {"kind": "PNG", "mode": "LA"},
    {"kind": "PNG", "mode": "1"},
    {"kind": "PNG", "mode": "I;16"},
    {"kind": "GIF", "mode": "P"},
    {"kind": "BMP"},
    {"kind": "BMP", "mode": "P"},
    {"kind": "PPM"},
    {"kind": "TIFF"},
    {"kind": "TIFF", "compression": "tiff_lzw"},
    {"kind": "TIFF", "compression": "jpeg"},
    {"kind": "TIFF", "mode": "F"},
    {"kind": "WEBP"},
    {"kind": "WEBP", "lossless": True},
    {"kind": "JPEG2000"},
    {"kind": "AVIF"},
    {"kind": "DDS"},
    {"kind": "EPS"},
    {"kind": "ICO"},
    {"kind": "TGA"},
    {"kind": "SGI"},
    {"kind": "PCX"},
]
KINDS = [
    k
    for k in KINDS
    if {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}.get(k["kind"], "") in ("", *features.get_supported())
]


def images(rng: random.Random, folder: Path) -> str:
    """An image file of any format with some bytes changed."""
    content = picture(**rng.choice(KINDS))
    if rng.random() < 0.95:
        content = mutated_bytes(rng, content)
    if rng.random() < 0.02:
        content = rng.choice([b"", b"\x00" * 100, content[:16]])
    path = folder / f"photo.{rng.choice(['jpg', 'png', 'tif', 'x'])}"
    path.write_bytes(content)
    return _decoded(path)


def exif(rng: random.Random, folder: Path) -> str:
    """A whole photograph with odd EXIF data, most of which ask for a turn."""
    path = folder / "photo.jpg"
    path.write_bytes(picture(**{"kind": rng.choice(["JPEG", "JPEG", "PNG", "WEBP"])}, exif=_exif(rng)))
    return _decoded(path)


def _exif(rng: random.Random) -> bytes:
    """A block of tags whose types, numbers and values do not fit."""
    order = rng.choice("<>")
    tags = [(0x0112, 3, 1, struct.pack(f"{order}HH", rng.randint(0, 9), 0))]
    for _ in range(rng.randrange(6)):
        tag = rng.choice(
            [0x0112, 0x010F, 0x011A, 0x011B, 0x0128, 0x8769, 0x8825, 0x927C, 0x9286, 0x0201, 0x0100, 0x0111]
        )
        count = rng.choice([0, 1, 2, 4, 5, 100, 2**16, 2**31, 2**32 - 1])
        tags.append(
            (tag, rng.randrange(15), count, rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4), b"\0\0\0\x08"]))
        )
    rng.shuffle(tags)
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    block += b"".join(struct.pack(f"{order}HHI", *tag[:3]) + tag[3] for tag in tags)
    block += struct.pack(f"{order}I", rng.choice([0, 8, 2**31, 20])) + rng.randbytes(rng.choice([0, 8, 60]))
    block = b"Exif\0\0" + block
    return mutated_bytes(rng, block) if rng.random() < 0.5 else block


def _decoded(path: Path) -> str:
    def load() -> None:
        header = read_header(path)
        for upright, (width, height) in ((True, header.upright), (False, header.stored)):
            pixels = load_image(path, upright)
            assert pixels.dtype == torch.uint8
            assert pixels.shape == (3, height, width), f"{tuple(pixels.shape)}, and the header says {header}"

    usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2_000_000  # Pillow's own bound, at a size that is quick
    try:
        return "refused" if refused(lambda: _quietly(load), path) else "accepted"
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _quietly(action: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


AREAS = [
    fuzzing.Area("annotations", annotations),
    fuzzing.Area("coco", coco),
    fuzzing.Area("images", images),
    fuzzing.Area("exif", exif),
]
