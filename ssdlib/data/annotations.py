"""VOC annotation files: parsing, and the rules by which a box is repaired or refused."""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from ssdlib.data.names import check_name, printable, shown

Action = Literal["repaired", "refused"]
Box = tuple[float, float, float, float]
_APART = 0.02  # pixels: edges with such a distance, below 2**16, are two numbers in the precision of boxes, too
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Finding:
    """Something in an annotation that could not be taken as it stands, and what was done about it.

    `file` is relative to the root of the data set; `object_index` counts the file's objects from 0 and is None
    where the whole file is meant; `detail` quotes the offending values.
    """

    file: str
    object_index: int | None
    kind: str
    action: Action
    detail: str

    def __str__(self) -> str:
        where = self.file if self.object_index is None else f"{self.file}, object {self.object_index}"
        return printable(f"{where}: {self.kind}, {self.action}: {self.detail}")


class Note(NamedTuple):
    """A finding before it is known in which file, at which object, it was made."""

    kind: str
    action: Action
    detail: str


class AnnotatedObject(NamedTuple):
    """One <object> as written: the texts of its corners are not yet checked."""

    name: str
    corners: tuple[str, str, str, str] | None
    difficult: bool


class Annotation(NamedTuple):
    """One annotation file as written. `size` is (width, height), None where it is missing or 0."""

    filename: str | None
    size: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]


def read_annotation(path: str | os.PathLike[str]) -> Annotation:
    """Parse one VOC annotation file. Entity declarations and external references are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not readable as XML, its root is not <annotation>, an object has no name or one that
            :func:`ssdlib.data.names.check_name` refuses, or <size> or <difficult> is not a number. The message names
            the file and the value.
    """
    try:
        root = ElementTree.parse(os.fspath(path)).getroot()
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{path}: not readable as XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{path}: the root element is <{printable(root.tag[:50])}>, expected <annotation>")
    try:
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        objects = tuple(_object(node) for node in root.findall("object"))
        filename = _text(root, "filename")
        if filename is not None:
            check_name(filename, "<filename>")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    size = (round(width), round(height)) if width >= 1 and height >= 1 else None
    return Annotation(filename, size, objects)


def _text(node: Element, tag: str) -> str | None:
    text = node.findtext(tag)
    return text.strip() or None if text else None


def _number(node: Element, tag: str) -> float:
    """Finite number in a tag; 0 where the tag is missing or empty."""
    text = _text(node, tag)
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"<{tag}> is not a number: {shown(text)}")
    return value


def _object(node: Element) -> AnnotatedObject:
    name = _text(node, "name")
    if name is None:
        raise ValueError("an <object> has no <name>")
    check_name(name, "the <name> of an <object>")
    box = node.find("bndbox")
    corners = None
    if box is not None:
        x_min, y_min, x_max, y_max = (box.findtext(tag, "").strip() for tag in _CORNERS)
        corners = (x_min, y_min, x_max, y_max)
    return AnnotatedObject(name, corners, _number(node, "difficult") != 0)


def clean_box(
    corners: tuple[str, str, str, str] | None, size: tuple[int, int], one_based: bool = True
) -> tuple[Box | None, list[Note]]:
    """Apply the box rules to the corners of one object.

    1. No <bndbox>, or a corner that is not a finite number: refused.
    2. xmin > xmax or ymin > ymax: repaired, the two are swapped.
    3. xmin = xmax or ymin = ymax, as written: refused, the box has no area.
    4. The corners are turned into continuous pixel edges, x from 0 to the width: with `one_based` (VOC: the
       first pixel is 1, and the last one belongs to the box) xmin and ymin are lowered by 1; otherwise they are
       edges already.
    5. No part inside the image: refused. A part outside: repaired, the box is clipped, so no edge is negative.

    Args:
        corners: texts of xmin, ymin, xmax, ymax.
        size: (width, height) of the image in pixels.

    Returns:
        The box (x_min, y_min, x_max, y_max) in pixel edges, or None if it is refused; and the notes on what was found.
    """
    if corners is None:
        return None, [Note("no box", "refused", "the object has no <bndbox>")]

    def written(quotes: bool = False) -> str:  # nearly no box needs it
        text = ", ".join(f"{tag} {shown(text)}" for tag, text in zip(_CORNERS, corners, strict=True))
        return text if quotes else text.replace("'", "")

    try:
        # In the precision of the boxes to come, or corners that differ now may coincide then.
        x_min, y_min, x_max, y_max = array("f", map(float, corners))
    except ValueError:
        return None, [Note("not a number", "refused", written(quotes=True))]
    if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))):
        return None, [Note("not a number", "refused", written())]
    notes = []
    if x_min > x_max or y_min > y_max:
        notes.append(Note("swapped corners", "repaired", written()))
        x_min, x_max = min(x_min, x_max), max(x_min, x_max)
        y_min, y_max = min(y_min, y_max), max(y_min, y_max)
    if x_min == x_max or y_min == y_max:
        return None, [*notes, Note("zero area", "refused", written())]
    if one_based:
        x_min, y_min = x_min - 1, y_min - 1
    width, height = size
    left, top, right, bottom = max(x_min, 0.0), max(y_min, 0.0), min(x_max, width), min(y_max, height)
    image = f"the image is {width} x {height}"
    if left >= right or top >= bottom:
        return None, [*notes, Note("outside the image", "refused", f"{written()}; {image}")]
    if (left, top, right, bottom) != (x_min, y_min, x_max, y_max):
        notes.append(Note("partly outside", "repaired", f"{written()}; clipped, {image}"))
    return (left, top, right, bottom), notes


def plainly_inside(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> Box | None:
    """The box of edges on which no rule of :func:`clean_box` has a say, as nearly all are; None for the others.

    Args:
        left, top, right, bottom: continuous pixel edges, not larger than numbers of floating point can be.
        size: (width, height) of the image in pixels.
    """
    inside = left >= 0 and right <= size[0] < 2**16 and top >= 0 and bottom <= size[1] < 2**16
    if not inside or right - left < _APART or bottom - top < _APART:
        return None
    x_min, y_min, x_max, y_max = array("f", (left, top, right, bottom))
    return x_min, y_min, x_max, y_max


def clean_edges(edges: Sequence[float], size: tuple[int, int]) -> tuple[Box | None, list[Note]]:
    """Apply the rules of :func:`clean_box` to numbers x_min, y_min, x_max, y_max in pixel edges: the same, but fast."""
    left, top, right, bottom = edges
    if 0 <= left <= size[0] and 0 <= top <= size[1] and 0 <= right <= size[0] and 0 <= bottom <= size[1]:
        box = plainly_inside(left, top, right, bottom, size)
        if box is not None:
            return box, []
    x_min, y_min, x_max, y_max = (str(float(str(edge))) for edge in edges)  # by way of text: a huge int is infinite
    return clean_box((x_min, y_min, x_max, y_max), size, one_based=False)


def summarize(findings: Iterable[Finding]) -> str:
    """One line that counts findings by action and kind, such as `refused 2 (zero area 2)`."""
    counts = Counter((finding.action, finding.kind) for finding in findings)
    parts = []
    for action in ("refused", "repaired"):
        kinds = {kind: n for (a, kind), n in sorted(counts.items()) if a == action}
        if kinds:
            listed = ", ".join(f"{kind} {n}" for kind, n in kinds.items())
            parts.append(f"{action} {sum(kinds.values())} ({listed})")
    return "; ".join(parts)
