"""Tiny sets of labelled images in the formats of annotation tools, written for tests; what a reader made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssdlib.data.formats.collecting import Source

Box = tuple[str, float, float, float, float]

COCO = {
    "images": [{"id": 7, "file_name": "photos/a.jpg", "width": 100, "height": 80}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "owl"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 30.5, 40]},
        {"id": 2, "image_id": 7, "category_id": 9, "bbox": [10, 20, -5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 3},
        {"id": 4, "image_id": 8, "category_id": 3, "bbox": [1, 1, 5, 5]},
    ],
}
CSV_HEAD = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def picture(path: Path, size: tuple[int, int] = (100, 80), orientation: int = 1) -> Path:
    """An image of noise that differs from name to name; `orientation` is that of EXIF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path.name).encode()))
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation != 1 else {}))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def voc_xml(objects: str, filename: str = "a.jpg", size: str = "<width>100</width><height>80</height>") -> str:
    return f"<annotation><filename>{filename}</filename><size>{size}</size>{objects}</annotation>"


def shape(kind: str | None, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": "cat", "points": points, **({"shape_type": kind} if kind else {}), **more}


def boxes(source: Source, name: str = "a") -> list[Box]:
    """(class, edges) of the objects of an image."""
    (image,) = (image for image in source.images if image.image_path.stem == name)
    rows = zip(image.labels, image.boxes.tolist(), strict=True)
    return [(source.classes[label - 1], *(round(edge, 3) for edge in box)) for label, box in rows]  # type: ignore[misc]


def kinds(source: Source) -> list[str]:
    return [finding.kind for image in source.images for finding in image.findings]


def balanced(source: Source) -> bool:
    """Every object that the files have came over, or is counted among those that did not."""
    return source.objects == sum(len(image.boxes) for image in source.images) + sum(source.left_out.values())
