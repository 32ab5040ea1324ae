"""One data set from one folder or from several, whatever their layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from .records import RecordDataset
from .voc import VOCDataset

AnyPath: TypeAlias = "str | os.PathLike[str]"


class JoinedDataset(RecordDataset):
    """The images of several data sets, one after another, such as VOC 2007 and VOC 2012.

    Raises:
        ValueError: there is no part, or two parts differ in their classes or in the order of them; the message names
            both lists.
    """

    def __init__(self, parts: Sequence[RecordDataset]) -> None:
        if not parts:
            raise ValueError("no data sets to join")
        first = parts[0]
        for number, part in enumerate(parts[1:], start=2):
            if part.classes != first.classes:
                raise ValueError(
                    f"data sets 1 and {number} have different classes: {list(first.classes)} and {list(part.classes)}"
                )
        records = [record for part in parts for record in part._records]
        super().__init__(records, first.classes, keep_difficult=first.keep_difficult)


def open_dataset(
    paths: AnyPath | Sequence[AnyPath], image_set: str, classes: Sequence[str] | None = None
) -> RecordDataset:
    """Open an image set of one folder, or of several as one data set.

    Args:
        paths: folder, or folders, in the VOC layout.
        image_set: name of the set, which every folder must have.
        classes: names of the classes; the label is the index + 1. If not given, those of the first folder, which all
            others must have too.

    Raises:
        FileNotFoundError: a folder, the image set, or a file is missing.
        ValueError: no folder is given, the folders differ in their classes, or a file cannot be read.
    """
    folders = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not folders:
        raise ValueError("no folder with data is given")
    parts = [_open(Path(folder), image_set, classes) for folder in folders]
    first = parts[0]
    for number, (folder, part) in enumerate(zip(folders, parts, strict=True)):
        only = [sorted(set(a) - set(b)) for a, b in ((first.classes, part.classes), (part.classes, first.classes))]
        if any(only):
            raise ValueError(
                f"{folders[0]} and {folder} have different classes: only the first has {only[0]}, "
                f"only the second has {only[1]}"
            )
        if part.classes != first.classes:  # the same in another order
            parts[number] = _open(Path(folder), image_set, first.classes)
    return first if len(parts) == 1 else JoinedDataset(parts)


def _open(folder: Path, image_set: str, classes: Sequence[str] | None) -> RecordDataset:
    return VOCDataset(folder, image_set, classes)
