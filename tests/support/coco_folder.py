"""Small folders in the COCO layout, written for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.voc_folder import write_image

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(number: int, image_id: Any, category_id: int, bbox: Any, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": crowd, "area": 1.0}


def image(number: Any, file_name: str = "", size: tuple[int, int] = (40, 30)) -> dict[str, Any]:
    return {"id": number, "file_name": file_name or f"{number}.png", "width": size[0], "height": size[1]}


def write_coco(
    root: Path,
    image_set: str,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]] = CATEGORIES,
    folder: str = "",
) -> Path:
    """`annotations/instances_<image set>.json`, and a PNG for every image that is named sensibly; returns the file."""
    for entry in images:
        path = root / (folder or image_set) / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        made = write_image(root / "aside", f"{image_set}_{path.name}", (entry["width"], entry["height"]))
        made.replace(path)
    file = root / "annotations" / f"instances_{image_set}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file
