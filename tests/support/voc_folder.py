"""Small VOC folders, written by hand for the tests of the reader and of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def object_xml(name: str, *corners: Any, difficult: Any = None) -> str:
    """One <object>; without `difficult` it has no such tag."""
    tags = "".join(f"<{t}>{c}</{t}>" for t, c in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{mark}<bndbox>{tags}</bndbox></object>"


def write_annotation(
    root: Path, image_id: str, objects: Sequence[str] = (), size: tuple[int, int] | None = (40, 30), filename: str = ""
) -> Path:
    """Annotations/<image_id>.xml, with the objects as XML."""
    path = root / "Annotations" / f"{image_id}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    extent = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    name = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(f"<annotation>{name}{extent}{''.join(objects)}</annotation>", encoding="utf-8")
    return path


def write_image(root: Path, name: str, size: tuple[int, int] = (40, 30), image: Image.Image | None = None) -> Path:
    """JPEGImages/<name>, noise that differs from name to name unless an image is given."""
    path = root / "JPEGImages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        rng = np.random.default_rng(list(name.encode()))
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    image.save(path)
    return path


def write_voc(
    root: Path, sets: Mapping[str, Sequence[str]], objects: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """A whole folder: every id of every set gets a 40 x 30 PNG and an annotation with its objects."""
    objects = objects or {}
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Annotations", "JPEGImages"):
        (root / name).mkdir(exist_ok=True)
    for name, ids in sets.items():
        (folder / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
        for image_id in ids:
            write_annotation(root, image_id, objects.get(image_id, ()))
            write_image(root, f"{image_id}.png")
    return root
