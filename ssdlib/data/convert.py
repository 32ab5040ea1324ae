"""From the labels of an annotation tool to a folder that `open_dataset` reads, with an account of what came over."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent  # writes only

import numpy as np
from tqdm import tqdm

from ssdlib.data.annotated import ALL, AnnotatedDataset, DataWarning
from ssdlib.data.annotations import Finding, summarize
from ssdlib.data.coco import CocoDataset
from ssdlib.data.columns import AnnotatedImage
from ssdlib.data.files import folder_aside, space_for
from ssdlib.data.formats.collecting import Source
from ssdlib.data.formats.detecting import read_source
from ssdlib.data.images import copy_file, file_of
from ssdlib.data.names import counted, distinct, printable
from ssdlib.data.voc import VOCDataset

Layout = Literal["coco", "voc"]
REPORT = "conversion.txt"
_DIGITS = 3  # after the decimal point, in pixels
_SHOWN = 20  # findings of a kind in the report; the rest are counted


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert_dataset` did.

    Attributes:
        folder: the new data set.
        format: of the labels that were read.
        classes: names, in the order of the labels.
        counts: objects of each class that came over.
        sets: images of each image set.
        images: that came over; `lost` says which did not.
        objects: in the files that were read, and how many of them came over.
        left_out: the others, by kind.
        findings: on objects: refused, or set right and taken.
        lost: on whole images, files and entries.
        notes: what is worth knowing besides.
    """

    folder: Path
    format: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    sets: dict[str, int]
    images: int
    objects: tuple[int, int]
    left_out: dict[str, int]
    findings: tuple[Finding, ...]
    lost: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything came over."""
        return not self.left_out and not self.lost

    def text(self) -> str:
        """The account in words, a line for each thing."""
        written, came = self.objects
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.left_out.items()))
        lost = counted(len(self.lost), "file or entry", "files or entries")
        lines = [
            f"{self.format} to {printable(self.folder)}",
            f"images: {self.images:,} came over, {lost} did not",
            f"objects: {written} in the labels, {came} came over" + (f"; left out: {kinds}" if kinds else ""),
            f"sets: {', '.join(f'{name} {count}' for name, count in self.sets.items())}",
            f"classes: {', '.join(f'{printable(name)} {self.counts[name]}' for name in self.classes)}",
            "read back: the same images, boxes and classes",
        ]
        lines += [f"note: {printable(note)}" for note in self.notes]
        for title, findings in (("did not come over", self.lost), ("objects left out or set right", self.findings)):
            if findings:
                lines += ["", f"{title}: {summarize(findings)}"]
                seen: Counter[str] = Counter()
                for finding in findings:
                    seen[finding.kind] += 1
                    if seen[finding.kind] <= _SHOWN:
                        lines.append(f"  {finding}")
                lines += [f"  and {n - _SHOWN} more of: {kind}" for kind, n in seen.items() if n > _SHOWN]
        return "\n".join(lines)


def convert_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    labels: str | None = None,
    layout: Layout = "coco",
    images: str | os.PathLike[str] | None = None,
    one_based: bool = True,
    link: bool = False,
    progress: bool = True,
) -> Conversion:
    """Read labels in any of the formats, write a data set, and read it back to see that it is the same.

    Boxes are cleaned by the rules of :class:`ssdlib.data.VOCDataset`. Images are copied as they are into one folder;
    names get the name of their folder where two are alike, and "_" for spaces. The set "all" holds every image; sets
    of the source are kept beside it, if they do not hold every image, too. What is written is written beside `out`, and
    moved there when it is complete; the account is in `conversion.txt`.

    Args:
        source: folder with labels and images, or the file of labels.
        out: folder to make; if it exists, it must be empty.
        labels: "yolo", "coco", "voc", "labelme", "cvat", "openimages" or "shards"; if not given, the files say which.
        layout: "coco" holds everything; "voc" knows no classes without objects, and no box of a pixel or less.
        images: folder of the images, where that is not in the one of the labels.
        one_based: of VOC's XML: its first pixel is 1.
        link: make symbolic links to the images, and no copies.
        progress: show a bar on stderr.

    Raises:
        FileExistsError: `out` holds something, or is the current folder.
        FileNotFoundError: the source is missing.
        ValueError: nothing could be read; `out` lies in the source; images in shards, which no link can lead to, are to
            be linked; or what was written is not what is read back.
    """
    source, out = Path(source), Path(out)
    place = Path(os.path.realpath(out))  # a link stays, and what it leads to is made
    if place == Path.cwd():
        raise FileExistsError(f"{out} is the current folder: choose another")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists: choose another folder")
    if source.is_dir() and place.is_relative_to(source.resolve()):
        raise ValueError(f"{out} lies in {source}, which is read: choose another folder")
    read = read_source(source, labels, None if images is None else Path(images), one_based=one_based)
    if link and (inside := [image for image in read.images if file_of(str(image.image_path)) != str(image.image_path)]):
        raise ValueError(f"{inside[0].image_path} is no file that a link could lead to: leave out --link")
    read = _without_thin(read, layout)
    notes = [*read.notes, *_changed_meanings(read, layout)]
    names = _file_names(read.images)
    own = {name: s for name, s in read.sets.items() if name != ALL and 0 < len(s) < len(read.images)}
    sets = {ALL: list(range(len(read.images))), **own}
    place.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(place) as folder, space_for(out):
        made = folder / "set"
        write, beside = (_write_coco, "images") if layout == "coco" else (_write_voc, "JPEGImages")
        (made / beside).mkdir(parents=True)
        together = zip(read.images, names, strict=True)
        for image, name in tqdm(together, "copying", len(names), unit="image", disable=not progress):
            if link:
                (made / beside / name).symlink_to(image.image_path.resolve())
            else:
                copy_file(image.image_path, made / beside / name)
        write(made, read, names, sets)
        _require_same(made, read, layout, names)
        counts = Counter(int(label) for image in read.images for label in image.labels)
        done = Conversion(
            folder=out,
            format=read.format,
            classes=read.classes,
            counts={name: counts[label] for label, name in enumerate(read.classes, start=1)},
            sets={name: len(members) for name, members in sets.items()},
            images=len(read.images),
            objects=(read.objects, sum(counts.values())),
            left_out=read.left_out,
            findings=tuple(finding for image in read.images for finding in image.findings),
            lost=tuple(read.findings),
            notes=tuple(notes),
        )
        (made / REPORT).write_text(done.text() + "\n", encoding="utf-8")
        if place.exists():
            place.rmdir()
        os.replace(made, place)
    return done


def _without_thin(read: Source, layout: Layout) -> Source:
    """Without objects whose corners cannot be written: of VOC's smallest box the first pixel is not the last one."""
    least = 2 * 10**-_DIGITS + (layout == "voc")
    images, left_out = [], Counter(read.left_out)
    for image in read.images:
        keep = (image.boxes[:, 2:] - image.boxes[:, :2] > least).all(axis=1)
        lost = [
            Finding(image.image_id, None, "too thin", "refused", f"{layout} cannot hold the box {_shown_box(box)}")
            for box in image.boxes[~keep]
        ]
        left_out["too thin"] += len(lost)
        images.append(
            image._replace(
                boxes=image.boxes[keep],
                labels=image.labels[keep],
                difficult=image.difficult[keep],
                findings=(*image.findings, *lost),
            )
        )
    return read._replace(images=images, left_out={kind: n for kind, n in left_out.items() if n})


def _changed_meanings(read: Source, layout: Layout) -> list[str]:
    """What the layout writes in another way."""
    notes = []
    marked = sum(int(image.difficult.sum()) for image in read.images)
    if marked and layout == "coco" and not read.crowds:
        marks = counted(marked, "difficult object")
        notes.append(f"{marks} marked as crowd, which training leaves out; --to voc keeps the mark")
    if marked and layout == "voc" and read.crowds:
        notes.append(f"{counted(marked, 'crowd')} marked as difficult, which training takes; --to coco keeps the mark")
    there = {int(label) for image in read.images for label in image.labels}
    without = [name for label, name in enumerate(read.classes, start=1) if label not in there]
    if without:
        what = "and VOC has no list of classes, so that they are lost" if layout == "voc" else "but are kept as classes"
        notes.append(f"{', '.join(without)}: without objects, {what}")
    return notes


def _file_names(images: Sequence[AnnotatedImage]) -> list[str]:
    """A name for each image, whose beginning no other has, on disks that know no capitals, too."""
    stems = Counter(_plain(image.image_path.stem) for image in images)
    taken: set[str] = set()
    names = []
    for image in images:
        stem = _plain(image.image_path.stem)
        if stems[stem] > 1:
            stem = f"{_plain(image.image_path.parent.name)}_{stem}"
        names.append(f"{distinct(stem, taken)}{image.image_path.suffix.lower()}")
    return names


def _plain(stem: str) -> str:
    """A stem that is one word in a list of ids."""
    return re.sub(r"[\s\\/:*?\"<>|]|[^\w.()+=,@~-]", "_", stem).strip(".")[:100] or "image"


def _shown_box(box: Sequence[float]) -> str:
    return ", ".join(f"{float(value):.4g}" for value in box)


def _written(value: float) -> str:
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".")


def _write_coco(made: Path, read: Source, names: Sequence[str], sets: Mapping[str, Sequence[int]]) -> None:
    categories = [{"id": label, "name": name} for label, name in enumerate(read.classes, start=1)]
    entries: list[dict[str, Any]] = []
    of_image: list[list[dict[str, Any]]] = []
    number = 0
    for index, (image, name) in enumerate(zip(read.images, names, strict=True), start=1):
        entries.append({"id": index, "file_name": name, "width": image.size[0], "height": image.size[1]})
        mine = []
        corners = image.boxes.astype(float).round(_DIGITS)
        sides = (corners[:, 2:] - corners[:, :2]).round(_DIGITS)
        rows = (np.hstack([corners[:, :2], sides]), sides.prod(axis=1).round(_DIGITS), image.labels, image.difficult)
        for bbox, area, label, crowd in zip(*(column.tolist() for column in rows), strict=True):
            number += 1
            mine.append(
                {
                    "id": number,
                    "image_id": index,
                    "category_id": label,
                    "bbox": bbox,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
        of_image.append(mine)
    folder = made / "annotations"
    folder.mkdir()
    for name, members in sets.items():
        content = {
            "images": [entries[i] for i in members],
            "annotations": [item for i in members for item in of_image[i]],
            "categories": categories,
        }
        (folder / f"instances_{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _write_voc(made: Path, read: Source, names: Sequence[str], sets: Mapping[str, Sequence[int]]) -> None:
    (made / "Annotations").mkdir()
    (made / "ImageSets" / "Main").mkdir(parents=True)
    for image, name in zip(read.images, names, strict=True):
        root = Element("annotation")
        _fill(root, {"folder": "JPEGImages", "filename": name})
        _fill(SubElement(root, "size"), {"width": image.size[0], "height": image.size[1], "depth": 3})
        for box, label, difficult in zip(image.boxes.tolist(), image.labels, image.difficult, strict=True):
            node = SubElement(root, "object")
            _fill(node, {"name": read.classes[label - 1], "difficult": int(difficult)})
            corners = (box[0] + 1, box[1] + 1, box[2], box[3])  # the first pixel is 1, and the last one is in the box
            tags = ("xmin", "ymin", "xmax", "ymax")
            _fill(SubElement(node, "bndbox"), dict(zip(tags, map(_written, corners), strict=True)))
        indent(root)
        ElementTree(root).write(made / "Annotations" / f"{Path(name).stem}.xml", encoding="utf-8")
    for name, members in sets.items():
        lines = "".join(f"{Path(names[i]).stem}\n" for i in members)
        (made / "ImageSets" / "Main" / f"{name}.txt").write_text(lines, encoding="utf-8")


def _fill(parent: Element, values: Mapping[str, Any]) -> None:
    for tag, value in values.items():
        SubElement(parent, tag).text = str(value)


def _require_same(made: Path, read: Source, layout: Layout, names: Sequence[str]) -> None:
    """Read the new data set back, and compare every box.

    Raises:
        ValueError: something is not the same.
    """
    reader: Callable[..., AnnotatedDataset] = CocoDataset if layout == "coco" else VOCDataset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        back = reader(made, ALL, read.classes)
    if len(back) != len(read.images) or back.findings:
        what = str(back.findings[0]) if back.findings else f"{len(back)} of {counted(len(read.images), 'image')}"
        raise ValueError(f"what was written is not what is read back: {what}")
    for index, (image, name) in enumerate(zip(read.images, names, strict=True)):
        target = back.target(index)
        same = (
            back.image_path(index).name == name
            and back.size(index) == image.size
            and len(target["labels"]) == len(image.labels)
            and np.array_equal(target["labels"].numpy(), image.labels)
            and np.array_equal(target["difficult"].numpy(), image.difficult)
            and np.allclose(target["boxes"].numpy(), image.boxes, rtol=0, atol=2 * 10**-_DIGITS)
        )
        if not same:
            raise ValueError(f"what was written of {image.image_path} is not what is read back")
