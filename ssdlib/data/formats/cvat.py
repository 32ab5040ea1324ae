"""CVAT's own XML, "CVAT for images": one file with all images and their shapes, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from ssdlib.data.formats.collecting import Collector, ImageFiles, LabelledObject, Source, around, edges, refusal
from ssdlib.data.names import said

_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton")


def read_cvat(files: Sequence[Path], root: Path, images: ImageFiles) -> Source:
    """Read XML files; of a polygon, ellipse, mask or turned box the box around it is taken.

    Raises:
        ValueError: a file is not readable as XML, or is "CVAT for video", whose images are frames of a clip.
    """
    found = Collector("cvat", root)
    for path in files:
        try:
            tree = ElementTree.parse(str(path)).getroot()
        except (ParseError, ValueError, LookupError) as error:
            raise ValueError(f"{path}: not readable as XML: {said(error)}") from error
        nodes = tree.findall("image")
        if not nodes and tree.find("track") is not None:
            raise ValueError(f'{path} is "CVAT for video", tracks without images: export it as "CVAT for images"')
        found.declare(path, (name.text or "" for name in tree.iterfind("meta//labels/label/name")))
        for node in nodes:
            shapes = [shape for shape in node if shape.tag in _SHAPES]
            name = node.get("name", "")
            try:
                image = images.find(name, path.parent)
            except LookupError as error:
                found.lose(path, "no image", str(error), len(shapes))
                continue
            found.add(path, image, _size(node), [_object(shape) for shape in shapes], node.get("subset") or None)
    return found.finish()


def _size(node: Element) -> tuple[int, int] | None:
    try:
        size = int(node.get("width", "")), int(node.get("height", ""))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _object(shape: Element) -> LabelledObject:
    label = shape.get("label", "")
    try:
        corners = _corners(shape)
    except (TypeError, ValueError, KeyError) as error:
        return LabelledObject(label, refusal("not a number", f"<{shape.tag}>: {said(error)}"))
    if corners is None:
        return LabelledObject(label, refusal("not a box", f"<{shape.tag}> has no area"))
    return LabelledObject(label, edges(corners))


def _corners(shape: Element) -> tuple[float, float, float, float] | None:
    numbers = shape.attrib
    if shape.tag == "box":
        x_min, y_min, x_max, y_max = (float(numbers[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        turned = float(numbers.get("rotation") or 0)
        if not turned:
            return x_min, y_min, x_max, y_max
        return _turned((x_min + x_max) / 2, (y_min + y_max) / 2, (x_max - x_min) / 2, (y_max - y_min) / 2, turned)
    if shape.tag == "ellipse":
        x, y, a, b = (float(numbers[key]) for key in ("cx", "cy", "rx", "ry"))
        angle = math.radians(float(numbers.get("rotation") or 0))
        w, h = (
            math.hypot(a * math.cos(angle), b * math.sin(angle)),
            math.hypot(a * math.sin(angle), b * math.cos(angle)),
        )
        return x - w, y - h, x + w, y + h
    if shape.tag == "mask":
        left, top, width, height = (float(numbers[key]) for key in ("left", "top", "width", "height"))
        return left, top, left + width, top + height
    if shape.tag == "polygon":
        return around([[float(value) for value in pair.split(",")] for pair in numbers["points"].split(";")])
    return None


def _turned(x: float, y: float, a: float, b: float, degrees: float) -> tuple[float, float, float, float]:
    """The box around a rectangle of half sides a and b that is turned about its centre."""
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    w, h = abs(a) * cos + abs(b) * sin, abs(a) * sin + abs(b) * cos
    return x - w, y - h, x + w, y + h
