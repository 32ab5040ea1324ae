"""LabelMe: a JSON file for each image, with shapes in pixels."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ssdlib.data.formats.collecting import (
    Collector,
    ImageFiles,
    LabelledObject,
    Source,
    around,
    edges,
    files_below,
    refusal,
)
from ssdlib.data.names import counted, said, shown

_WITH_POINTS = ("polygon", "rectangle", "oriented_rectangle", "mask")


def read_labelme(root: Path, images: ImageFiles) -> Source:
    """Read a folder of JSON files and images.

    Of a polygon, mask or circle the box around it is taken; points and lines have none. Shapes with the same label and
    `group_id` are parts of one object. Images that have no JSON file are not labelled yet, and are left out.
    """
    found = Collector("labelme", root)
    seen = set()
    for path in files_below(root, "*.json"):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            found.lose(path, "unreadable labels", said(error))
            continue
        if not is_labelme(content):
            continue
        shapes = content["shapes"]
        try:
            image = images.find(str(content.get("imagePath", "")), path.parent)
        except LookupError:
            try:
                image = images.find(path.stem, path.parent)
            except LookupError as error:
                found.lose(path, "no image", str(error), len(shapes))
                continue
        seen.add(image)
        size = (content.get("imageWidth"), content.get("imageHeight"))
        declared = size if all(type(side) is int and side > 0 for side in size) else None
        found.add(path, image, declared, _objects(shapes))  # type: ignore[arg-type]
    unlabelled = len(images.paths) - len(seen)
    if unlabelled:
        images_without = counted(unlabelled, "image")
        found.notes.append(f"{images_without} without a JSON file of labels, left out as not labelled yet")
    return found.finish()


def is_labelme(content: Any) -> bool:
    """Whether JSON is the label file of an image."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _objects(shapes: list[Any]) -> list[LabelledObject]:
    """An object for each shape; of the parts of one object, the first has the box and the others say so."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, shape in enumerate(shapes):
        if isinstance(shape, dict) and shape.get("group_id") is not None and _box(shape) is not None:
            groups[str(shape.get("label")), str(shape["group_id"])].append(index)
    objects = []
    for index, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            objects.append(LabelledObject("?", refusal("no label", shown(shape))))
            continue
        label, flags = shape["label"], shape.get("flags")
        difficult = isinstance(flags, dict) and flags.get("difficult") is True
        parts = groups.get((label, str(shape.get("group_id"))), [index]) if _box(shape) else [index]
        boxes = [_box(shapes[part]) for part in parts]
        corners = [(x, y) for box in boxes if box for x, y in (box[:2], box[2:])]
        if not corners:
            kind = shape.get("shape_type", "polygon")
            clean = refusal("not a box", f"{shown(kind)} with the points {shown(shape.get('points'))}")
        elif parts[0] != index:
            clean = refusal(
                "part of another", f"{label}, group {shown(shape['group_id'])}: one object with shape {parts[0]}"
            )
        else:
            clean = edges(around(corners))
        objects.append(LabelledObject(label, clean, difficult))
    return objects


def _box(shape: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """Corners of the box around a shape, or None if it is none that has an area."""
    kind = shape.get("shape_type") or "polygon"  # files of old versions do not say
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "circle":
            (x, y), on_it = points
            radius = math.dist((x, y), on_it)
            return x - radius, y - radius, x + radius, y + radius
        return around(points) if kind in _WITH_POINTS and len(points) >= 2 else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
