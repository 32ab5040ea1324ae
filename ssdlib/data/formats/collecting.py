"""What the readers of all formats share: the images of a folder, and an account of what came over and what did not."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssdlib.data.annotated import annotated_image, oriented
from ssdlib.data.annotations import Box, Finding, Note, clean_box, clean_edges
from ssdlib.data.columns import AnnotatedImage
from ssdlib.data.names import check_name, printable

IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
_ROUNDED = 0.01  # pixels by which rounded fractions may lie outside an image that they touch
Size = tuple[int, int]
Cleaner = Callable[[Size], tuple[Box | None, list[Note]]]


class LabelledObject(NamedTuple):
    """One object as a file has it: `clean` gives its box once the (width, height) of the image is known."""

    name: str
    clean: Cleaner
    difficult: bool = False


class Source(NamedTuple):
    """What was read.

    `sets` holds indices of images; `objects` counts those that the files have; `left_out` counts, by kind, those that
    did not come over; `findings` are about whole images and files, those about objects are with their images; and
    `crowds` says whether difficult objects are boxes around many objects.
    """

    format: str
    classes: tuple[str, ...]
    images: list[AnnotatedImage]
    sets: dict[str, list[int]]
    objects: int
    left_out: dict[str, int]
    findings: list[Finding]
    notes: list[str]
    crowds: bool


def edges(corners: Sequence[object]) -> Cleaner:
    """A box of x_min, y_min, x_max, y_max in pixel edges from 0, as numbers or texts."""
    if {*map(type, corners)} == {float}:
        return lambda size: clean_edges(corners, size)  # type: ignore[arg-type]
    a, b, c, d = map(str, corners)
    return lambda size: clean_box((a, b, c, d), size, one_based=False)


def fractions(corners: Sequence[float]) -> Cleaner:
    """A box of x_min, y_min, x_max, y_max in fractions of the width and height, rounded by whoever wrote them."""

    def clean(size: Size) -> tuple[Box | None, list[Note]]:
        pixels = []
        for fraction, side in zip(corners, size * 2, strict=True):
            value = round(fraction * side, 4)
            limit = min(max(value, 0.0), float(side))
            pixels.append(limit if abs(value - limit) < _ROUNDED else value)
        return clean_edges(pixels, size)

    return clean


def around(points: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """The smallest box around points (x, y)."""
    xs, ys = zip(*((float(x), float(y)) for x, y in points), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def refusal(kind: str, detail: str) -> Cleaner:
    """An object that has no box that could be taken."""
    return lambda size: (None, [Note(kind, "refused", detail)])


def files_below(root: Path, pattern: str) -> list[Path]:
    """Files below a folder whose names fit a pattern, sorted; what is hidden, a folder or a pipe is none."""
    return [path for path in sorted(root.rglob(pattern)) if path.is_file() and not _is_hidden(path.relative_to(root))]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _key(name: str) -> str:
    """A name as it is looked up: without capitals, and é in one letter, which Macs write as e and an accent."""
    return unicodedata.normalize("NFC", name).lower()


def _class(name: str) -> str:
    """A name of a class as it is taken: é is the same class in one letter or two. Raises as `check_name`."""
    return check_name(unicodedata.normalize("NFC", name.strip()), "the class")


class ImageFiles:
    """The images below a folder. Names in labels are only looked up here: none can lead out of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[Path] = []
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if not _is_hidden(Path(name)))
            for name in sorted(files):
                path = Path(folder, name)
                if path.suffix.lower() in IMAGE_ENDINGS and not _is_hidden(Path(name)) and path.is_file():
                    self.paths.append(path)
                    self._by_name[_key(name)].append(path)
                    self._by_name[_key(path.stem)].append(path)
        self._known = set(self.paths)

    def find(self, name: str, beside: Path | None = None) -> Path:
        """The image that labels call `name`, with or without folders and ending.

        Args:
            name: a file name, perhaps with folders, perhaps of another machine.
            beside: the folder of the file that has the labels.

        Raises:
            LookupError: there is none, or several that fit equally well; the message says so.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for folder in (beside, self.root):
            path = None if folder is None else Path(os.path.normpath(folder.joinpath(*parts)))
            if path in self._known:
                return path
        last = _key(parts[-1]) if parts else ""
        found = self._by_name.get(last) or self._by_name.get(Path(last).stem, [])
        if not found:
            raise LookupError(f"no image {printable(name)!r} in {self.root}")
        tails = [_common_tail(path.with_suffix("").parts, Path(*parts).with_suffix("").parts) for path in found]
        best = [path for path, tail in zip(found, tails, strict=True) if tail == max(tails)]
        if len(best) > 1:
            raise LookupError(f"{len(best)} images are called {printable(name)!r}, such as {best[0]} and {best[1]}")
        return best[0]

    def relative(self, path: Path) -> str:
        """The path of an image as messages show it."""
        return path.relative_to(self.root).as_posix()


def _common_tail(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if _key(x) != _key(y):
            break
        count += 1
    return count


class Collector:
    """Takes over images one by one, and counts.

    Args:
        name: of the format.
        root: folder that paths in findings are relative to.
        crowds: whether difficult objects are boxes around many objects.
    """

    def __init__(self, name: str, root: Path, crowds: bool = False) -> None:
        self.name, self.root, self.crowds = name, root, crowds
        self._classes: dict[str, None] = {}
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self._sets: dict[str, dict[int, None]] = {}
        self._labelled: list[tuple[str, Path, Size, bool, list[tuple[Box, str, bool]], list[Finding]]] = []
        self._index: dict[Path, int] = {}
        self._objects = 0
        self._left_out: Counter[str] = Counter()

    def file(self, path: Path) -> str:
        """A file as findings name it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def declare(self, path: Path, names: Iterable[str]) -> None:
        """Take over a list of classes, in its order; names that stand in none follow, sorted."""
        for name in names:
            try:
                self._classes[_class(name)] = None
            except ValueError as error:
                self.lose(path, "class name", str(error))

    def lose(self, path: Path, kind: str, detail: str, objects: int = 0) -> None:
        """A file, image or entry that did not come over, with so many objects."""
        self.findings.append(Finding(self.file(path), None, kind, "refused", detail))
        self._objects += objects
        if objects:
            self._left_out[kind] += objects

    def add(
        self,
        path: Path,
        image: Path,
        declared: Size | None,
        objects: Iterable[LabelledObject],
        image_set: str | None = None,
    ) -> None:
        """Take over an image with its objects; where it cannot be read, or was labelled before, that is a finding.

        Args:
            path: the file that has the labels.
            image: the file of the image.
            declared: (width, height) that the labels state.
            objects: its objects, in order.
            image_set: the set it belongs to.
        """
        objects, file = list(objects), self.file(path)
        try:
            size, upright, findings = oriented(file, image, declared, "the size in the labels")
        except (OSError, ValueError) as error:
            self.lose(path, "unreadable image", str(error), len(objects))
            return
        taken = []
        refused: Counter[str] = Counter()
        for index, item in enumerate(objects):
            try:
                name = _class(item.name)
            except ValueError as error:
                box, notes = None, [Note("class name", "refused", str(error))]
            else:
                box, notes = item.clean(size)
            findings.extend(Finding(file, index, *note) for note in notes)
            if box is None:
                refused[notes[-1].kind] += 1
            else:
                taken.append((box, name, item.difficult))
        if image in self._index:
            before = self._labelled[self._index[image]]
            if before[4] != taken:
                detail = (
                    f"{image.name}, which has other labels in {before[5][0].file if before[5] else 'another place'}"
                )
                self.lose(path, "labelled twice", detail, len(objects))
                return
        else:
            self._index[image] = len(self._labelled)
            self._labelled.append((file, image, size, upright, taken, findings))
            self._objects += len(objects)
            self._left_out.update(refused)
        if image_set is not None:
            self._sets.setdefault(image_set, {})[self._index[image]] = None

    def finish(self) -> Source:
        """What was read.

        Raises:
            ValueError: no image came over; the message names the first reason.
        """
        if not self._labelled:
            why = f": {self.findings[0]}" if self.findings else ""
            raise ValueError(f"{self.root}: no labelled image was found as {self.name}{why}")
        found = {name for image in self._labelled for _, name, _ in image[4]}
        classes = (*self._classes, *sorted(found - set(self._classes)))
        labels = {name: label for label, name in enumerate(classes, start=1)}
        images = [
            annotated_image(file, image, size, upright, [(b, labels[name], d) for b, name, d in taken], findings)
            for file, image, size, upright, taken, findings in self._labelled
        ]
        sets = {name: list(members) for name, members in self._sets.items()}
        left_out = dict(self._left_out)
        return Source(self.name, classes, images, sets, self._objects, left_out, self.findings, self.notes, self.crowds)
