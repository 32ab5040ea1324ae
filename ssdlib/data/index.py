"""The index of a large data set: what was read of its files, kept beside them as long as they are the same.

To open a hundred thousand images takes long: each header says how large its image is and whether it is turned, and each
box is checked. An index holds the result in a few arrays. It is only a shortcut: it is made anew where a file has
another size or another time than it says, or where it is damaged itself, and it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import ssdlib
from ssdlib.data.annotated import check_classes
from ssdlib.data.annotations import Finding
from ssdlib.data.columns import ImageTable
from ssdlib.data.files import cache_folder, replaced
from ssdlib.data.images import file_of
from ssdlib.data.names import check_file_name, check_name

FOLDER = ".ssdlib_index"
LEAST = 2_000  # images of a set that has an index: fewer are read in a second or two
FORMAT = 1  # goes up with each change of the rules by which annotations are read, or of what is kept
_SETTLED = 2.0  # seconds: what was written later than that may change again, and keep its time
_COLUMNS: dict[str, tuple[type, int]] = {  # type of the numbers, and of how many axes
    "key": (np.uint8, 1),  # texts, as UTF-8
    "classes": (np.uint8, 1),
    "ids": (np.uint8, 1),
    "files": (np.uint8, 1),  # paths relative to the folder, those of the images first
    "findings": (np.uint8, 1),
    "states": (np.int64, 2),  # (K, 2) size in bytes and time in nanoseconds of each file
    "sizes": (np.int32, 2),  # from here on as in ImageTable
    "upright": (np.bool_, 1),
    "starts": (np.int64, 1),
    "boxes": (np.float32, 2),  # (M, 4)
    "labels": (np.int64, 1),
    "difficult": (np.bool_, 1),
}


class Contents(NamedTuple):
    """What was read of an image set: the images, the classes, and what else the answer depends on.

    `sources` are files, and folders in which another file would have been taken.
    """

    images: ImageTable
    classes: tuple[str, ...]
    sources: list[Path]


def indexed(
    root: Path, image_set: str, asked: Mapping[str, Any], read: Callable[[], Contents]
) -> tuple[ImageTable, tuple[str, ...]]:
    """The images of a set and its classes: from the index, if there is one that holds, or else from the files.

    A set of `LEAST` images or more gets an index, in the folder `.ssdlib_index` beside the data; or, where nothing can
    be written there, in the user's cache. Processes may come here at the same time: each writes a whole file.

    Args:
        root: folder of the data set.
        image_set: name of the set.
        asked: what else decides the answer, such as the classes that are given; JSON can hold it.
        read: reads the files, and raises what is wrong with them.
    """
    said = {**asked, "image_set": image_set, "format": FORMAT, "version": ssdlib.__version__}
    key = json.dumps(said, sort_keys=True)
    name = f"{image_set[:40]}-{_checksum(key)}.npz"
    places = [root / FOLDER / name, cache_folder() / "index" / f"{_checksum(str(root.resolve()))}-{name}"]
    for place in places:
        kept = _load(place, root, key) if place.is_file() else None
        if kept is not None:
            return kept
    began = time.time()
    contents = read()
    if len(contents.images) >= LEAST:
        columns = _columns(root, key, contents, began)
        if columns is not None:
            _save(places, columns)
    return contents.images, contents.classes


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _columns(root: Path, key: str, contents: Contents, began: float) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of an index; None if files are elsewhere, or so new that they may change without another time."""
    images = contents.images
    beginning = _beginning(root)
    paths = [*images.paths, *map(str, contents.sources)]
    try:
        states = _states(_watched(paths))
    except OSError:
        return None
    if not all(path.startswith(beginning) for path in paths) or states[:, 1].max() > (began - _SETTLED) * 1e9:
        return None
    rows = [
        [number, found.file, found.object_index, found.kind, found.action, found.detail]
        for number, findings in images.findings.items()
        for found in findings
    ]
    texts = {
        "key": key,
        "classes": json.dumps(contents.classes),
        "ids": "\n".join(images.ids),
        "files": "\n".join(path[len(beginning) :] for path in paths),
        "findings": json.dumps(rows),
    }
    return {
        **{name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()},
        "states": states,
        "sizes": images.sizes,
        "upright": images.upright,
        "starts": images.starts,
        "boxes": images.boxes,
        "labels": images.labels,
        "difficult": images.difficult,
    }


def _beginning(root: Path) -> str:
    """What comes before the names of files in a folder."""
    return "" if root == Path() else f"{root}{os.sep}"


def _watched(paths: Iterable[str]) -> list[str]:
    """Files whose state is kept; of images in a shard that of the shard."""
    return list(dict.fromkeys(map(file_of, paths)))


def _states(paths: Sequence[str]) -> npt.NDArray[np.int64]:
    """(K, 2) size and time of files."""
    found = ((state.st_size, state.st_mtime_ns) for state in map(os.stat, paths))
    return np.array(list(found), dtype=np.int64).reshape(-1, 2)


def _save(places: Iterable[Path], columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write to the first place that can be written; to none, if the disk is full or all are for reading only."""
    for place in places:
        try:
            with replaced(place) as aside:
                np.savez(aside, **columns)  # type: ignore[arg-type]
        except OSError:
            continue
        return


def _load(path: Path, root: Path, key: str) -> tuple[ImageTable, tuple[str, ...]] | None:
    """The images and classes of an index; None if it is damaged, of something else, or older than a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in members):
                return None  # and might become any size
        with np.load(path, allow_pickle=False) as arrays:
            if sorted(arrays.files) != sorted(_COLUMNS) or _text(arrays["key"]) != key:
                return None
            columns = {name: arrays[name] for name in _COLUMNS}
        _require_whole(columns)
        files = _text(columns["files"]).split("\n")
        for file in files:
            check_file_name(file, "the file")
        if not np.array_equal(_states(_watched([f"{_beginning(root)}{file}" for file in files])), columns["states"]):
            return None
        return _table(columns, root, files), check_classes(json.loads(_text(columns["classes"])))
    except Exception:  # zipfile, NumPy and damaged texts raise errors of many kinds; none of them is worth a stop
        return None


def _text(column: npt.NDArray[Any]) -> str:
    return column.tobytes().decode()


def _require_whole(columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse columns that do not fit each other: whoever made the data may have made the index.

    Raises:
        ValueError: in that case.
    """
    types = all(columns[name].dtype == of and columns[name].ndim == axes for name, (of, axes) in _COLUMNS.items())
    sizes, starts, boxes, labels = (columns[name] for name in ("sizes", "starts", "boxes", "labels"))
    images, objects = len(sizes), len(labels)
    lengths = [len(columns[name]) for name in ("starts", "upright", "boxes", "difficult")]
    shapes = (columns[name].shape[1:] for name in ("states", "sizes", "boxes"))
    if not types or lengths != [images + 1, images, objects, objects] or list(shapes) != [(2,), (2,), (4,)]:
        raise ValueError("the columns are not those of an index")
    counts = np.diff(starts)
    if (starts[0], starts[-1]) != (0, objects) or (counts < 0).any() or (sizes < 1).any():
        raise ValueError("the numbers of objects or the sizes are wrong")
    inside = boxes[:, 2:] <= np.repeat(sizes, counts, axis=0)
    fit = (boxes[:, :2] >= 0).all() and (boxes[:, :2] < boxes[:, 2:]).all() and inside.all()  # false for nan, too
    classes = len(json.loads(_text(columns["classes"])))
    if not fit or (objects and not 1 <= labels.min() <= labels.max() <= classes):
        raise ValueError("a box or a label is wrong")


def _table(columns: Mapping[str, npt.NDArray[Any]], root: Path, files: Sequence[str]) -> ImageTable:
    ids = [check_name(image_id, "the id") for image_id in _text(columns["ids"]).split("\n")]
    if len(ids) != len(columns["sizes"]) or len(files) < len(ids):
        raise ValueError("the lists have not the lengths that belong together")
    found: dict[int, tuple[Finding, ...]] = {}
    for image, file, index, kind, action, detail in json.loads(_text(columns["findings"])):
        texts = all(isinstance(text, str) for text in (file, kind, detail))
        if not texts or type(index) not in (int, type(None)) or action not in ("repaired", "refused"):
            raise ValueError("a finding is wrong")
        found[range(len(ids))[image]] = (*found.get(image, ()), Finding(file, index, kind, action, detail))
    paths = [f"{_beginning(root)}{file}" for file in files[: len(ids)]]
    names = ("sizes", "upright", "starts", "boxes", "labels", "difficult")
    return ImageTable(ids, paths, **{name: columns[name] for name in names}, findings=found)
