"""Data sets in the COCO layout: `annotations/instances_<image set>.json` and a folder of images."""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssdlib.data.annotated import (
    AnnotatedDataset,
    Transform,
    Unknown,
    annotated_image,
    check_classes,
    labels_of,
    oriented,
)
from ssdlib.data.annotations import Box, Finding, Note, clean_box, plainly_inside
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.index import Contents, indexed
from ssdlib.data.names import check_file_name, check_name, shown

ImageId = int | str
_NUMBERS = {int, float}  # and not bool, which is an int
_PIECE = 2**24  # bytes of a file that are read at a time
_OUTLINE = re.compile(rb'("segmentation"\s*:\s*)\[[][0-9eE+.,\s-]*\]')


class CocoObject(NamedTuple):
    """One entry of "annotations": its place in that list, and what it says. The box is not yet checked."""

    position: int
    category_id: int
    bbox: Any
    crowd: bool


class CocoImage(NamedTuple):
    """One entry of "images" with its objects. `size` is (width, height), None where it is missing."""

    image_id: ImageId
    path: Path
    size: tuple[int, int] | None
    objects: list[CocoObject]


class _Annotation(NamedTuple):
    """What we ask of an entry of "annotations"; the parser makes one of each that has all of it, and right types."""

    id: ImageId | None
    image_id: ImageId
    category_id: int
    bbox: Any
    iscrowd: int


class Instances(NamedTuple):
    """One file of annotations as written.

    `categories` are the names by id, sorted by id; `problems` has a message for each entry that could not be taken.
    """

    categories: dict[int, str]
    images: list[CocoImage]
    problems: list[str]


class CocoDataset(AnnotatedDataset):
    """Images and their objects, read from a folder in the COCO layout.

    The interface, and the rules by which boxes are repaired or refused, are those of
    :class:`ssdlib.data.VOCDataset`. What differs:

    - A `bbox` is [x, y, width, height] in continuous pixel edges from 0, so nothing is subtracted.
    - Category ids may have gaps; labels 1..C follow the order of the ids.
    - `iscrowd` marks a box around many objects. It becomes `difficult`: for evaluation it neither has to be found nor
      makes a detection wrong. It is no object to learn: leave such boxes out of training with `keep_difficult=False`.
    - Images without annotations belong to the set; `ids` are the image ids as text, in the order of the file.
    - The index of a finding counts the file's list of annotations, from 0.

    Args:
        root: folder that holds `annotations/instances_<image_set>.json`, and the images in `<image_set>/` or, if there
            is no such folder, in `images/`.
        image_set: such as "val2017".
        classes: names of the object classes; the label is the index + 1. If not given, those of the file.
        keep_difficult: keep crowds.
        unknown: "error" raises on an object whose class is not in `classes`; "ignore" refuses it, with a finding.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.

    Raises:
        FileNotFoundError: the file of annotations, the folder of images, or an image is missing.
        ValueError: the file is not readable as JSON or lacks a list; an id is missing, stands twice or is unknown; a
            file name leads out of the folder; a name is empty or has a control character; an image header cannot be
            read; the class list has duplicates; or a class is unknown. The message names the file and the value.
    """

    crowds = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_set: str,
        classes: Sequence[str] | None = None,
        *,
        keep_difficult: bool = True,
        unknown: Unknown = "error",
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        file, folder = instances_path(self.root, image_set), _image_folder(self.root, image_set)
        given = None if classes is None else check_classes(classes)

        def read() -> Contents:
            found = read_instances(self.root, image_set)
            if found.problems:
                more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
                raise ValueError(f"{found.problems[0]}{more}")
            labels = labels_of(tuple(found.categories.values()) if given is None else given)
            images = ImageTable.of(coco_image(file, image, found.categories, labels, unknown) for image in found.images)
            return Contents(images, tuple(labels), [file])

        asked = {"layout": "coco", "folder": folder and folder.name, "classes": given, "unknown": unknown}
        images, names = indexed(self.root, image_set, asked, read)
        images = images if keep_difficult else images.without_difficult()
        super().__init__(images, names, transform=transform)
        self._warn_of_findings(f"{self.root}, set {image_set!r}")


def coco_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder, sorted; none if it is not in the COCO layout."""
    return sorted(p.stem.removeprefix("instances_") for p in (root / "annotations").glob("instances_*.json"))


def instances_path(root: Path, image_set: str) -> Path:
    """File of annotations of an image set."""
    return root / "annotations" / f"instances_{image_set}.json"


def read_instances(root: Path, image_set: str) -> Instances:
    """Parse a file of annotations; what is wrong with single entries is collected in `problems`.

    Raises:
        FileNotFoundError: the file or the folder of images is missing.
        ValueError: the file is not readable as JSON, or lacks one of its lists.
    """
    names = coco_set_names(root)
    if image_set not in names:
        raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
    file = instances_path(root, image_set)
    folder = _image_folder(root, image_set)
    if folder is None:
        raise FileNotFoundError(f"{file}: no folder of images: neither {root / image_set} nor {root / 'images'}")
    return parse_instances(file, lambda name: folder / check_file_name(name, "the file name"))


def _image_folder(root: Path, image_set: str) -> Path | None:
    return next((root / name for name in (image_set, "images") if (root / name).is_dir()), None)


def parse_instances(file: Path, locate: Callable[[str], Path]) -> Instances:
    """Parse a file of annotations, of which `locate` says where the image of a name is.

    Raises:
        ValueError: the file is not readable as JSON, or lacks one of its lists.
    """
    try:
        content = json.loads(_text_of(file), object_hook=_compact)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON: {error}") from error
    for key in ("categories", "images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{file}: there is no list {key!r}, as COCO's instances have it")

    categories: dict[int, str] = {}
    images: dict[ImageId, CocoImage] = {}
    annotation_ids: set[ImageId] = set()
    problems: list[str] = []

    def category(index: int, entry: Mapping[str, Any]) -> None:
        number, name = _new(_get(entry, "id", int), categories), check_name(_get(entry, "name", str), "the name")
        if name in categories.values():
            raise ValueError(f"the name {shown(name)} stands twice")
        categories[number] = name

    def image(index: int, entry: Mapping[str, Any]) -> None:
        image_id, name = _new(_get(entry, "id", int, str), images), _get(entry, "file_name", str)
        if isinstance(image_id, str):
            check_name(image_id, "the id")
        size = (_get(entry, "width", int), _get(entry, "height", int)) if "width" in entry else None
        images[image_id] = CocoImage(image_id, locate(name), size, [])

    def annotation(index: int, entry: Mapping[str, Any] | _Annotation) -> None:
        if not isinstance(entry, _Annotation):
            image_id, number = _get(entry, "image_id", int, str), _get(entry, "category_id", int)
            crowd = _get(entry, "iscrowd", int) if "iscrowd" in entry else 0
            annotation_id = _get(entry, "id", int, str) if "id" in entry else None
            entry = _Annotation(annotation_id, image_id, number, entry.get("bbox"), crowd)
        annotation_id, image_id, number, bbox, crowd = entry
        if annotation_id is not None:
            annotation_ids.add(_new(annotation_id, annotation_ids))
        if image_id not in images:
            raise ValueError(f"unknown image_id {shown(image_id)}")
        if number not in categories:
            raise ValueError(f"unknown category_id {shown(number)}")
        images[image_id].objects.append(CocoObject(index, number, bbox, crowd != 0))

    readers: dict[str, Callable[[int, Any], None]]
    readers = {"categories": category, "images": image, "annotations": annotation}
    for key, read in readers.items():
        entries = content.pop(key)
        for index in range(len(entries)):
            entry, entries[index] = entries[index], None  # what is read makes room for what comes of it
            try:
                if not isinstance(entry, dict) and (not isinstance(entry, _Annotation) or key != "annotations"):
                    raise ValueError(f"must be an object in braces, got {shown(entry)}")
                read(index, entry)
            except ValueError as error:
                problems.append(f"{file}, {key}[{index}]: {error}")
    return Instances(dict(sorted(categories.items())), list(images.values()), problems)


def _text_of(file: Path) -> str:
    """The text of a JSON file with 0 in the place of each outline: they are nine tenths of COCO's files.

    The parser would make half a gigabyte of numbers of them, only to have them thrown away.
    """
    parts, rest = [], b""
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            rest += piece
            cut = rest.rfind(b"}") + 1  # no outline goes on behind a brace
            parts.append(_OUTLINE.sub(rb"\g<1>0", rest[:cut]))
            rest = rest[cut:]
    whole = b"".join([*parts, rest])
    parts.clear()
    return whole.decode(json.detect_encoding(whole), "surrogatepass")


def _compact(entry: dict[str, Any]) -> Any:
    """What the parser keeps of an object in braces, as soon as it has read it: a set may have a million of them."""
    if "file_name" in entry:
        return {key: entry[key] for key in ("id", "file_name", "width", "height") if key in entry}
    values: list[Any] = [entry.get(name) for name in _Annotation._fields]
    number, image_id, category_id, bbox, crowd = values
    if {type(number), type(image_id), type(category_id), type(crowd)} != {int}:
        return entry
    if isinstance(bbox, list) and len(bbox) == 4 and {*map(type, bbox)} == {float}:
        bbox = array("d", bbox)  # half of what four numbers take in a list
    return _Annotation(number, image_id, category_id, bbox, crowd)


def _get(entry: Mapping[str, Any], key: str, *kinds: type) -> Any:
    """Value of a key, of one of the given types; True and False are no numbers here."""
    if key not in entry:
        raise ValueError(f"there is no {key!r}")
    if type(entry[key]) not in kinds:
        expected = " or ".join({int: "a whole number", str: "a text"}[kind] for kind in kinds)
        raise ValueError(f"{key!r} must be {expected}, got {shown(entry[key])}")
    return entry[key]


def _new(key: Any, known: Mapping[Any, Any] | set[Any]) -> Any:
    if key in known:
        raise ValueError(f"the id {shown(key)} stands twice")
    return key


def coco_image(
    file: Path, image: CocoImage, categories: Mapping[int, str], labels: Mapping[str, int], unknown: Unknown
) -> AnnotatedImage:
    """Look at the image and clean its boxes; `labels` are those of the classes. Raises as :class:`CocoDataset` does."""
    short = f"{file.parent.name}/{file.name}"
    source = f"the size of the image {image.image_id!r}"
    try:
        size, upright, findings = oriented(short, image.path, image.size, source)
    except (FileNotFoundError, ValueError) as error:
        if image.path.is_file():
            raise
        missing = f"{file}: the image with the id {image.image_id!r} is missing: {image.path}"
        raise FileNotFoundError(missing) from error
    objects = []
    for item in image.objects:
        name = categories[item.category_id]
        if name not in labels:
            if unknown == "error":
                raise ValueError(f"{file}, annotations[{item.position}]: class {name!r} is not among {list(labels)}")
            findings.append(Finding(short, item.position, "unknown class", "refused", name))
            continue
        box, notes = clean_bbox(item.bbox, size)
        findings.extend(Finding(short, item.position, *note) for note in notes)
        if box is not None:
            objects.append((box, labels[name], item.crowd))
    return annotated_image(str(image.image_id), image.path, size, upright, objects, findings)


def clean_bbox(bbox: Any, size: tuple[int, int]) -> tuple[Box | None, list[Note]]:
    """Apply the rules of :func:`ssdlib.data.annotations.clean_box` to [x, y, width, height] in pixel edges.

    A width or height below 0 counts as swapped corners. Returns the box in corners, or None, and the notes.
    """
    if isinstance(bbox, array):
        bbox = bbox.tolist()
    if bbox is None or bbox == []:
        return None, [Note("no box", "refused", f"bbox {shown(bbox)}")]
    if not isinstance(bbox, list) or len(bbox) != 4 or not {*map(type, bbox)} <= _NUMBERS:
        return None, [Note("not a number", "refused", f"bbox {shown(bbox)}")]
    x, y, width, height = bbox
    if 0 <= x <= size[0] and 0 <= y <= size[1] and 0 < width <= size[0] and 0 < height <= size[1]:
        box = plainly_inside(x, y, x + width, y + height, size)
        if box is not None:
            return box, []
    x, y, width, height = (float(str(value)) for value in bbox)  # by way of text: a huge whole number is infinite
    corners = (str(x), str(y), str(x + width), str(y + height))
    return clean_box(corners, size, one_based=False)
