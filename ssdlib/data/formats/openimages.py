"""Open Images: a CSV table with a row for each box, in fractions of the image."""

from __future__ import annotations

import csv
import os
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssdlib.data.annotated import ALL, AnnotatedDataset, Transform, check_classes
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.formats.collecting import (
    Collector,
    ImageFiles,
    LabelledObject,
    Source,
    files_below,
    fractions,
    refusal,
)
from ssdlib.data.names import counted, said, shown

CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = {"ImageID", "LabelName", *CORNERS}


class OpenImagesDataset(AnnotatedDataset):
    """Images and their objects, read from a folder with tables of boxes of Open Images.

    The interface, and the rules by which boxes are repaired or refused, are those of
    :class:`ssdlib.data.VOCDataset`. What differs:

    - A set is the beginning of a table's name: train-annotations-bbox.csv is of "train". "all" is every image of the
      folder, those without a row among them.
    - Coordinates are fractions of the image, from 0 to 1.
    - `LabelName` holds codes such as /m/01yrx; their words come from class-descriptions*.csv, where there is one.
    - `IsGroupOf` marks a box around many objects, as COCO's `iscrowd`, and becomes `difficult`.
    - Nobody has all nine million images: rows of an image that is not in the folder are left out, with a finding.

    Args:
        root: folder with the tables and, somewhere below it, the images, named after their ids.
        image_set: such as "train".
        classes: names of the object classes; the label is the index + 1. If not given, all that have a box in one of
            the tables, sorted, so that the sets of one folder agree.
        keep_difficult: keep boxes around many objects.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.

    Raises:
        FileNotFoundError: there is no such set.
        ValueError: a table cannot be read, no image of a table is there, or a class is not in `classes`.
    """

    crowds = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_set: str,
        classes: Sequence[str] | None = None,
        *,
        keep_difficult: bool = True,
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        names = openimages_set_names(self.root)
        if image_set not in names:
            raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
        source = read_openimages(_tables(self.root), self.root, ImageFiles(self.root))
        members = range(len(source.images)) if image_set == ALL else source.sets.get(image_set, [])
        images = ImageTable.of(_named(source.images[i], source.classes, classes) for i in members)
        images = images if keep_difficult else images.without_difficult()
        super().__init__(images, source.classes if classes is None else check_classes(classes), transform=transform)
        self.findings += tuple(source.findings)
        self._warn_of_findings(f"{self.root}, set {image_set!r}")


def openimages_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder with tables of Open Images, sorted, and "all"; none without a table."""
    tables = _tables(root)
    return sorted({ALL, *filter(None, map(_set_of, tables))}) if tables else []


def _tables(root: Path) -> list[Path]:
    return [path for path in files_below(root, "*.csv") if is_openimages(path)]


def _set_of(path: Path) -> str | None:
    return path.stem.partition("-annotations")[0] if "-annotations" in path.stem else None


def _named(image: AnnotatedImage, names: Sequence[str], classes: Sequence[str] | None) -> AnnotatedImage:
    """An image under its own id, with the labels of the classes that are asked for."""
    image = image._replace(image_id=image.image_path.stem)
    if classes is None:
        return image
    mine = [names[label - 1] for label in image.labels]
    for name in mine:
        if name not in classes:
            raise ValueError(f"{image.image_path}: class {name!r} is not among {list(classes)}")
    return image._replace(labels=np.array([list(classes).index(name) + 1 for name in mine], dtype=np.int64))


def read_openimages(files: Sequence[Path], root: Path, images: ImageFiles) -> Source:
    """Read tables of boxes; the set is the beginning of a name such as train-annotations-bbox.csv.

    `LabelName` holds codes such as /m/01yrx; their words come from a table class-descriptions*.csv, where there is one.
    `IsGroupOf` marks a box around many objects, as COCO's `iscrowd`. An image without a row has no objects.

    Raises:
        ValueError: a table cannot be read; the message names it.
    """
    words = _words(root)
    found = Collector("openimages", root, crowds=True)
    codes: set[str] = set()
    seen: set[Path] = set()
    for path in files:
        rows: dict[str, _Rows] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                table.fieldnames = [name.strip() for name in table.fieldnames or ()]
                if lacking := sorted(_COLUMNS - set(table.fieldnames)):
                    raise csv.Error(f"its first line has no {lacking[0]!r}")
                for row in table:
                    name = row["ImageID"] or ""
                    if name not in rows:
                        rows[name] = _Rows(images, name, path.parent)
                    rows[name].add(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no table of boxes of Open Images: {said(error)}") from error
        image_set = _set_of(path)
        for mine in rows.values():
            if mine.image is None:
                found.lose(path, "no image", mine.problem, mine.count)
                continue
            seen.add(mine.image)
            codes.update(mine.codes)
            found.add(path, mine.image, None, mine.objects(words), image_set)
    empty = [image for image in images.paths if image not in seen]
    for image in empty:
        found.add(image, image, None, [])
    if empty:
        found.notes.append(f"{counted(len(empty), 'image')} without a row, taken to be without objects")
    nameless = sorted(code for code in codes if code.startswith("/") and code not in words)
    if nameless:
        found.notes.append(
            f"no class-descriptions*.csv names {', '.join(map(shown, nameless[:5]))}: the codes are kept"
        )
    return found.finish()


def is_openimages(path: Path) -> bool:
    """Whether the first line of a table is that of the boxes of Open Images."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {cell.strip() for cell in file.readline(10_000).split(",")} >= _COLUMNS


def _words(root: Path) -> dict[str, str]:
    words = {}
    for path in files_below(root, "*class-descriptions*.csv"):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                words.update({row[0]: row[1] for row in csv.reader(file) if len(row) >= 2 and row[0] != "LabelName"})
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no table of classes: {said(error)}") from error
    return words


class _Rows:
    """The rows of an image, in columns: a table has millions. Of an image that is not there only how many."""

    def __init__(self, images: ImageFiles, name: str, beside: Path) -> None:
        self.image, self.problem, self.count = None, "", 0
        self.codes: list[str] = []
        self.corners, self.groups = array("d"), bytearray()
        self.wrong: dict[int, str] = {}  # by the number of the row
        try:
            self.image = images.find(name, beside)
        except LookupError as error:
            self.problem = str(error)

    def add(self, row: dict[str, str]) -> None:
        """Take a row of the table."""
        if self.image is not None:
            try:
                corners = [float(row[key]) for key in CORNERS]
            except (TypeError, ValueError):
                self.wrong[self.count] = shown([row.get(key) for key in CORNERS])
                corners = [0.0] * len(CORNERS)
            self.corners.extend(corners)
            self.codes.append(sys.intern(row.get("LabelName") or ""))
            self.groups.append(row.get("IsGroupOf") == "1")
        self.count += 1

    def objects(self, words: dict[str, str]) -> list[LabelledObject]:
        """The objects of the rows; `words` are the names of the codes."""
        found = []
        for number, (code, group) in enumerate(zip(self.codes, self.groups, strict=True)):
            if number in self.wrong:
                found.append(LabelledObject(words.get(code, code), refusal("not a number", self.wrong[number])))
            else:
                corners = self.corners[4 * number : 4 * number + 4].tolist()
                found.append(LabelledObject(words.get(code, code), fractions(corners), bool(group)))
        return found
