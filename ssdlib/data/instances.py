"""COCO's file of annotations: what it says of images and objects, in columns, and each image when it is asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ssdlib.data.json_lists import read_lists
from ssdlib.data.names import check_name, shown

ImageId = int | str
Size = tuple[int, int]
LISTS = ("categories", "images", "annotations")
NUMBERS = {int, float}  # and not bool, which is an int
_EXACT = 2**53  # whole numbers up to here are the same in floating point


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
    size: Size | None
    objects: list[CocoObject]


@dataclass(frozen=True)
class CocoImages(Sequence[CocoImage]):
    """N images with M objects in all; `images[i]` is made when it is asked for.

    Attributes:
        ids, paths, sizes: of N images.
        starts: (N + 1,) where the objects of each image begin, and the last ones end.
        positions, categories, boxes, crowds: (M,), (M,), (M, 4), (M,) of the objects, image by image.
        category_ids: by the numbers in `categories`.
        others: by the position of an object, a bbox that is not four numbers of floating point.
    """

    ids: list[ImageId]
    paths: list[str]
    sizes: list[Size | None]
    starts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int32]
    categories: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float64]
    crowds: npt.NDArray[np.bool_]
    category_ids: list[int]
    others: Mapping[int, Any]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> CocoImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[CocoImage]: ...
    def __getitem__(self, index: int | slice) -> CocoImage | list[CocoImage]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]  # counts from the end if it is negative, and raises IndexError
        part = slice(self.starts[index], self.starts[index + 1])
        columns = (column[part].tolist() for column in (self.positions, self.categories, self.boxes, self.crowds))
        objects = [
            CocoObject(position, self.category_ids[category], self.others.get(position, box), crowd)
            for position, category, box, crowd in zip(*columns, strict=True)
        ]
        return CocoImage(self.ids[index], Path(self.paths[index]), self.sizes[index], objects)


class Instances(NamedTuple):
    """One file of annotations as written.

    `categories` are the names by id, sorted by id; `problems` has a message for each entry that could not be taken.
    """

    categories: dict[int, str]
    images: Sequence[CocoImage]
    problems: list[str]


def parse_instances(file: Path, locate: Callable[[str], Path]) -> Instances:
    """Parse a file of annotations, of which `locate` says where the image of a name is.

    Raises:
        ValueError: the file is not readable as JSON, or lacks one of its lists.
    """
    entries = _Entries(file, locate)
    readers = {"categories": entries.category, "images": entries.image, "annotations": entries.annotation}
    found = read_lists(file, {key: entries.noting(key, read) for key, read in readers.items()})
    for key in LISTS:
        if key not in found:
            raise ValueError(f"{file}: there is no list {key!r}, as COCO's instances have it")
    return entries.instances()


class _Entries:
    """Takes the entries of the lists, in whatever order the lists are, and keeps of each only what is asked of it."""

    def __init__(self, file: Path, locate: Callable[[str], Path]) -> None:
        self.file, self.locate = file, locate
        self.problems: dict[str, dict[int, str]] = {key: {} for key in LISTS}  # of entries, by their places
        self.categories: dict[int, str] = {}
        self.ids: list[ImageId] = []
        self.paths: list[str] = []
        self.sizes: list[Size | None] = []
        self.known_sizes: dict[Size, Size] = {}  # a set has few of them
        # Objects may come before their images and categories: each id gets a number when it is first seen.
        self.image_numbers: dict[ImageId, int] = {}
        self.category_numbers: dict[int, int] = {}
        self.rows: dict[int, int] = {}  # of images, by the number
        # Of the objects: 60 bytes for each, where Python's objects would take five hundred.
        self.positions, self.of_image, self.of_category = array("i"), array("i"), array("i")
        self.boxes, self.crowds = array("d"), bytearray()
        self.others: dict[int, Any] = {}
        self.named = array("q"), array("i")  # ids of annotations, and their places
        self.other_names: set[ImageId] = set()  # ids that are no number of 64 bits

    def noting(self, key: str, read: Callable[[int, Mapping[str, Any]], None]) -> Callable[[int, Any], None]:
        """A function that reads an entry, and notes what is wrong with it."""
        problems = self.problems[key]

        def one(index: int, entry: Any) -> None:
            try:
                if not isinstance(entry, dict):
                    raise ValueError(f"must be an object in braces, got {shown(entry)}")
                read(index, entry)
            except ValueError as error:
                problems[index] = str(error)

        return one

    def category(self, index: int, entry: Mapping[str, Any]) -> None:
        number = _new(_get(entry, "id", int), self.categories)
        name = check_name(_get(entry, "name", str), "the name")
        if name in self.categories.values():
            raise ValueError(f"the name {shown(name)} stands twice")
        self.categories[number] = name

    def image(self, index: int, entry: Mapping[str, Any]) -> None:
        image_id, name = _get(entry, "id", int, str), _get(entry, "file_name", str)
        number = self.image_numbers.get(image_id, len(self.image_numbers))
        if number in self.rows:
            raise ValueError(_twice(image_id))
        if isinstance(image_id, str):
            check_name(image_id, "the id")
        size = (_get(entry, "width", int), _get(entry, "height", int)) if "width" in entry else None
        self.paths.append(str(self.locate(name)))
        self.rows[self.image_numbers.setdefault(image_id, number)] = len(self.ids)
        self.ids.append(image_id)
        self.sizes.append(size and self.known_sizes.setdefault(size, size))

    def annotation(self, index: int, entry: Mapping[str, Any]) -> None:
        image_id, category = _get(entry, "image_id", int, str), _get(entry, "category_id", int)
        crowd = _get(entry, "iscrowd", int) if "iscrowd" in entry else 0
        if "id" in entry:
            self.name(index, _get(entry, "id", int, str))
        bbox: Any = entry.get("bbox")
        kinds = {*map(type, bbox)} if isinstance(bbox, list) and len(bbox) == 4 else set()
        if kinds != {float} and not (kinds and kinds <= NUMBERS and all(abs(value) <= _EXACT for value in bbox)):
            self.others[index] = bbox
            bbox = (0.0,) * 4
        self.boxes.extend(bbox)
        self.positions.append(index)
        self.of_image.append(self.image_numbers.setdefault(image_id, len(self.image_numbers)))
        self.of_category.append(self.category_numbers.setdefault(category, len(self.category_numbers)))
        self.crowds.append(crowd != 0)

    def name(self, index: int, annotation_id: ImageId) -> None:
        """Take the id of an annotation. Which of them stand twice is seen at the end: a set of all would be large."""
        if isinstance(annotation_id, int) and abs(annotation_id) < 2**63:
            self.named[0].append(annotation_id)
            self.named[1].append(index)
        else:
            self.other_names.add(_new(annotation_id, self.other_names))

    def instances(self) -> Instances:
        """What was read. That an image or a category of an object is not there is a problem."""
        problems = self.problems["annotations"]
        names, places = (np.array(column) for column in self.named)
        order = names.argsort(kind="stable")
        again = order[1:][names[order[1:]] == names[order[:-1]]]
        for at in again.tolist():
            problems[int(places[at])] = _twice(int(names[at]))
        image_ids, category_ids = list(self.image_numbers), list(self.category_numbers)
        row_of = np.array([self.rows.get(number, -1) for number in range(len(image_ids))], dtype=np.int32)
        known = np.array([number in self.categories for number in category_ids], dtype=np.bool_)
        positions, categories = (np.array(column, dtype=np.int32) for column in (self.positions, self.of_category))
        rows = row_of[np.array(self.of_image, dtype=np.int32)]  # (M,)
        for at in np.nonzero((rows < 0) | ~known[categories])[0].tolist():
            key, number = "image_id", image_ids[self.of_image[at]]
            if rows[at] >= 0:
                key, number = "category_id", category_ids[categories[at]]
            problems.setdefault(self.positions[at], f"unknown {key} {shown(number)}")
        order = np.nonzero(~np.isin(positions, list(problems)))[0]
        order = order[rows[order].argsort(kind="stable")]
        images = CocoImages(
            self.ids,
            self.paths,
            self.sizes,
            np.searchsorted(rows[order], np.arange(len(self.ids) + 1)),
            positions[order],
            categories[order],
            np.array(self.boxes).reshape(-1, 4)[order],
            np.array(self.crowds, dtype=np.bool_)[order],
            category_ids,
            self.others,
        )
        messages = [
            f"{self.file}, {key}[{index}]: {of[index]}" for key, of in self.problems.items() for index in sorted(of)
        ]
        return Instances(dict(sorted(self.categories.items())), images, messages)


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
        raise ValueError(_twice(key))
    return key


def _twice(key: Any) -> str:
    return f"the id {shown(key)} stands twice"
