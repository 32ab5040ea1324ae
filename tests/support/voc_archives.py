"""Archives as those of PASCAL VOC, made on the spot."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from support.voc_folder import object_xml, write_annotation, write_image

CAT = object_xml("cat", 1, 1, 40, 30)


def write_part(folder: Path, image_set: str, ids: list[str]) -> None:
    """A data set as the archives have it, with JPEG files."""
    for image_id in ids:
        write_annotation(folder, image_id, [CAT], filename=f"{image_id}.jpg")
        write_image(folder, f"{image_id}.jpg")
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True, exist_ok=True)
    (main / f"{image_set}.txt").write_text("".join(f"{i}\n" for i in ids))


def packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, "VOCdevkit")
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
