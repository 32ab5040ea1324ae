"""One data set from one folder or from several, whatever their layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from ssdlib.data.annotated import ALL, AnnotatedDataset, DataWarning
from ssdlib.data.coco import CocoDataset, coco_set_names
from ssdlib.data.columns import ImageTable
from ssdlib.data.formats.openimages import OpenImagesDataset, openimages_set_names
from ssdlib.data.shards import ShardDataset, shard_set_names
from ssdlib.data.voc import VOCDataset, image_set_names

AnyPath: TypeAlias = "str | os.PathLike[str]"


class JoinedDataset(AnnotatedDataset):
    """The images of several data sets, one after another, such as VOC 2007 and VOC 2012. Their transforms are left out.

    Raises:
        ValueError: there is no part, or two parts differ in their classes or in the order of them; the message names
            both lists.
    """

    def __init__(self, parts: Sequence[AnnotatedDataset]) -> None:
        if not parts:
            raise ValueError("no data sets to join")
        first = parts[0]
        for number, part in enumerate(parts[1:], start=2):
            if part.classes != first.classes:
                raise ValueError(
                    f"data sets 1 and {number} have different classes: {list(first.classes)} and {list(part.classes)}"
                )
        super().__init__(ImageTable.joined([part._images for part in parts]), first.classes)
        self.crowds = all(part.crowds for part in parts)


def open_dataset(
    paths: AnyPath | Sequence[AnyPath],
    image_set: str,
    classes: Sequence[str] | None = None,
    *,
    keep_crowds: bool = True,
    cache: bool = False,
    progress: bool = True,
) -> AnnotatedDataset:
    """Open an image set of one folder, or of several as one data set.

    Args:
        paths: folder, or folders, each with shards if it has a file `*.shards.json`; else in the COCO layout if it has
            a file `annotations/instances_*.json`; that of Open Images if it has a table of boxes and no folder
            `ImageSets`; and else in the VOC layout.
        image_set: name of the set, which every folder must have.
        classes: names of the classes; the label is the index + 1. If not given, those of the first folder, which all
            others must have too.
        keep_crowds: keep the crowds of COCO, and the groups of Open Images, as difficult objects: right for evaluation,
            wrong for training.
        cache: decode all images at once and keep them in memory; see :meth:`ssdlib.data.AnnotatedDataset.cache_images`.
        progress: show a bar on stderr meanwhile.

    Raises:
        FileNotFoundError: a folder, the image set, or a file is missing.
        ValueError: no folder is given, the folders differ in their classes, a file cannot be read, or no object is
            annotated in the set and `classes` are not given: then there is nothing to learn.

    Warns:
        DataWarning: no object is annotated in the set, and `classes` are given.
    """
    folders = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    if not folders:
        raise ValueError("no folder with data is given")

    def opened(folder: Path, names: Sequence[str] | None) -> AnnotatedDataset:
        if shard_set_names(folder):
            return ShardDataset(folder, image_set, names, keep_crowds=keep_crowds)
        if coco_set_names(folder):
            return CocoDataset(folder, image_set, names, keep_difficult=keep_crowds)
        if openimages_sets(folder):
            return OpenImagesDataset(folder, image_set, names, keep_difficult=keep_crowds)
        return VOCDataset(folder, image_set, names)

    first, *parts = [opened(folder, classes) for folder in folders]
    for number, (folder, part) in enumerate(zip(folders[1:], parts, strict=True)):
        here, there = sorted(set(first.classes) - set(part.classes)), sorted(set(part.classes) - set(first.classes))
        if here or there:
            raise ValueError(
                f"{folders[0]} and {folder} have different classes: only the first has {here}, "
                f"only the second has {there}"
            )
        if part.classes != first.classes:  # the same in another order
            parts[number] = opened(folder, first.classes)
    dataset = JoinedDataset([first, *parts]) if parts else first
    if not len(dataset._images.boxes):
        message = f"{', '.join(map(str, folders))}: no object is annotated in the set {image_set!r}"
        if classes is None:
            raise ValueError(f"{message}; there is nothing to learn")
        warnings.warn(message, DataWarning, stacklevel=2)
    if cache:
        dataset.cache_images(progress)
    return dataset


def choose_set(root: AnyPath, image_set: str | None = None) -> str:
    """The set that is named; or else "all", or the only one that a folder has.

    Raises:
        FileNotFoundError: there is no such set, or the folder has no known layout.
        ValueError: none is named, and the folder has several.
    """
    names = (
        shard_set_names(Path(root))
        or coco_set_names(Path(root))
        or openimages_sets(Path(root))
        or image_set_names(Path(root))
    )
    there = ", ".join(names) or "none"
    if image_set is None:
        if ALL not in names and len(names) != 1:
            raise ValueError(f"say with --image-set which set of {root} is meant; it has {there}")
        return ALL if ALL in names else names[0]
    if image_set not in names:
        raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {there}")
    return image_set


def openimages_sets(root: Path) -> list[str]:
    """The sets of Open Images' tables; none where the folder has VOC's lists, beside which a table is a note."""
    return [] if (root / "ImageSets").is_dir() else openimages_set_names(root)
