"""Which format the labels of a folder have, and the reader for it."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from ssdlib.data.formats.collecting import ImageFiles, Source, files_below
from ssdlib.data.formats.cvat import read_cvat
from ssdlib.data.formats.labelme import is_labelme, read_labelme
from ssdlib.data.formats.layouts import read_coco, read_shards, read_voc, root_of
from ssdlib.data.formats.openimages import is_openimages, read_openimages
from ssdlib.data.formats.yolo import NAME_FILES, is_labels, read_yolo
from ssdlib.data.names import said
from ssdlib.data.shards import DESCRIPTION

FORMATS = ("yolo", "coco", "voc", "labelme", "cvat", "openimages", "shards")
# Formats with one file for many images:
_TABLES = {"coco": "*.json", "cvat": "*.xml", "openimages": "*.csv", "shards": f"*{DESCRIPTION}"}
_LOOK_AT = 50  # files of a kind, to tell what they are


def read_source(source: Path, name: str | None = None, images: Path | None = None, *, one_based: bool = True) -> Source:
    """Read labels and find their images; no image is decoded.

    Args:
        source: a folder with labels; or the file of labels, for formats that have one file. Shards have one a set.
        name: one of `FORMATS`; if not given, the files say which.
        images: folder of the images, where that is not (a folder in) the one of the labels.
        one_based: see :func:`ssdlib.data.formats.layouts.read_voc`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the format is unknown or cannot be told, or nothing could be read; the message says why.
    """
    for path in (source, images):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
    if source.suffix.lower() == ".tar" and any(source.parent.glob(f"*{DESCRIPTION}")):
        raise ValueError(f"{source} is a shard: name its folder")
    if source.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
        raise ValueError(f"{source} is an archive: unpack it, and name the folder")
    if source.suffix.lower() in (".yaml", ".yml") and source.is_file():  # YOLO's, which stands for its folder
        source = source.parent
    evidence = find_labels(source)
    if name is None:
        if len(evidence) != 1:
            seen = "; ".join(f"{kind}: {files[0]}" for kind, files in evidence.items())
            known = ", ".join(FORMATS)
            if evidence:
                raise ValueError(f"{source} has labels of {len(evidence)} formats ({seen}): choose one with --from")
            raise ValueError(
                f"{source} has no labels of a known format ({known}): name one with --from to see what fails"
            )
        (name,) = evidence
    if name not in FORMATS:
        raise ValueError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    root = source if source.is_dir() else source.parent
    found = ImageFiles(root if images is None else images)
    files = evidence.get(name, [])
    if name in _TABLES and not files:  # perhaps one of these is damaged: its reader says how
        files = _fitting(source, _TABLES[name])
        if not files:
            raise ValueError(f"{source} has no file of labels in the format {name}: no {_TABLES[name]}")
    readers: dict[str, Callable[[], Source]] = {
        "yolo": lambda: read_yolo(root, found),
        "coco": lambda: read_coco(files, root, found),
        "voc": lambda: read_voc(root, found, one_based),
        "labelme": lambda: read_labelme(root, found),
        "cvat": lambda: read_cvat(files, root, found),
        "openimages": lambda: read_openimages(files, root, found),
        "shards": lambda: read_shards(files, root),
    }
    try:
        return readers[name]()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # the system would repeat all of it
            raise OSError(f"{source}: its labels have a name longer than the system allows: {said(error)}") from error
        raise


def find_labels(source: Path) -> dict[str, list[Path]]:
    """The files that show a format, by its name; of formats with a file for each image, not all of them."""
    found: dict[str, list[Path]] = {}

    def note(kind: str, path: Path) -> None:
        found.setdefault(kind, []).append(path)

    xml = _fitting(source, "*.xml")
    for path in xml:
        if "voc" in found and len(xml) > _LOOK_AT:
            break  # one file for each image: they are all alike
        kind = {"annotation": "voc", "annotations": "cvat"}.get(root_of(path) or "")
        if kind:
            note(kind, path)
    for path in _fitting(source, "*.json"):
        if len(found.get("labelme", ())) == _LOOK_AT:
            break
        content = _json(path)
        if is_labelme(content):
            note("labelme", path)
        elif isinstance(content, dict) and all(
            isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
        ):
            note("coco", path)
    for path in _fitting(source, f"*{DESCRIPTION}"):
        note("shards", path)
    for path in _fitting(source, "*.csv"):
        if is_openimages(path):
            note("openimages", path)
    texts = [
        path
        for path in _fitting(source, "*.txt")
        if path.name.lower() not in (*NAME_FILES, "train.txt", "val.txt", "test.txt")
    ]
    for path in islice(texts, _LOOK_AT):
        if is_labels(path):
            note("yolo", path)
            break
    return found


def _fitting(source: Path, pattern: str) -> list[Path]:
    if source.is_file():
        return [source] if source.match(pattern) else []
    return files_below(source, pattern)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
