"""Data sets in the COCO layout: `annotations/instances_<image set>.json` and a folder of images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssdlib.data.annotated import (
    AnnotatedDataset,
    AnnotatedImage,
    Transform,
    Unknown,
    annotated_image,
    check_classes,
    oriented,
)
from ssdlib.data.annotations import Box, Finding, Note, clean_box
from ssdlib.data.names import check_file_name, check_name, shown

ImageId = int | str


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
        found = read_instances(self.root, image_set)
        if found.problems:
            more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
            raise ValueError(f"{found.problems[0]}{more}")
        names = tuple(found.categories.values()) if classes is None else check_classes(classes)
        file = instances_path(self.root, image_set)
        images = [coco_image(file, image, found.categories, names, unknown) for image in found.images]
        images = images if keep_difficult else [image.without_difficult() for image in images]
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
    folder = next((root / name for name in (image_set, "images") if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{file}: no folder of images: neither {root / image_set} nor {root / 'images'}")
    return parse_instances(file, lambda name: folder / check_file_name(name, "the file name"))


def parse_instances(file: Path, locate: Callable[[str], Path]) -> Instances:
    """Parse a file of annotations, of which `locate` says where the image of a name is.

    Raises:
        ValueError: the file is not readable as JSON, or lacks one of its lists.
    """
    try:
        content = json.loads(file.read_bytes())
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

    def annotation(index: int, entry: Mapping[str, Any]) -> None:
        if "id" in entry:
            annotation_ids.add(_new(_get(entry, "id", int, str), annotation_ids))
        image_id, number = _get(entry, "image_id", int, str), _get(entry, "category_id", int)
        for what, key, known in (("image_id", image_id, images), ("category_id", number, categories)):
            if key not in known:
                raise ValueError(f"unknown {what} {shown(key)}")
        crowd = _get(entry, "iscrowd", int) if "iscrowd" in entry else 0
        images[image_id].objects.append(CocoObject(index, number, entry.get("bbox"), crowd != 0))

    readers: dict[str, Callable[[int, Mapping[str, Any]], None]]
    readers = {"categories": category, "images": image, "annotations": annotation}
    for key, read in readers.items():
        for index, entry in enumerate(content[key]):
            try:
                if not isinstance(entry, dict):
                    raise ValueError(f"must be an object in braces, got {shown(entry)}")
                read(index, entry)
            except ValueError as error:
                problems.append(f"{file}, {key}[{index}]: {error}")
    return Instances(dict(sorted(categories.items())), list(images.values()), problems)


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
    file: Path, image: CocoImage, categories: Mapping[int, str], classes: Sequence[str], unknown: Unknown
) -> AnnotatedImage:
    """Look at the image and clean its boxes. Raises as :class:`CocoDataset` does."""
    if not image.path.is_file():
        raise FileNotFoundError(f"{file}: the image with the id {image.image_id!r} is missing: {image.path}")
    short = file.relative_to(file.parents[1]).as_posix()
    size, upright, findings = oriented(short, image.path, image.size, f"the size of the image {image.image_id!r}")
    objects = []
    for item in image.objects:
        name = categories[item.category_id]
        if name not in classes:
            if unknown == "error":
                raise ValueError(f"{file}, annotations[{item.position}]: class {name!r} is not among {list(classes)}")
            findings.append(Finding(short, item.position, "unknown class", "refused", name))
            continue
        box, notes = clean_bbox(item.bbox, size)
        findings.extend(Finding(short, item.position, *note) for note in notes)
        if box is not None:
            objects.append((box, classes.index(name) + 1, item.crowd))
    return annotated_image(str(image.image_id), image.path, size, upright, objects, findings)


def clean_bbox(bbox: Any, size: tuple[int, int]) -> tuple[Box | None, list[Note]]:
    """Apply the rules of :func:`ssdlib.data.annotations.clean_box` to [x, y, width, height] in pixel edges.

    A width or height below 0 counts as swapped corners. Returns the box in corners, or None, and the notes.
    """
    if bbox is None or bbox == []:
        return None, [Note("no box", "refused", f"bbox {shown(bbox)}")]
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(value) not in (int, float) for value in bbox):
        return None, [Note("not a number", "refused", f"bbox {shown(bbox)}")]
    x, y, width, height = (float(str(value)) for value in bbox)  # by way of text: a huge whole number is infinite
    corners = (str(x), str(y), str(x + width), str(y + height))
    return clean_box(corners, size, one_based=False)
