"""Data sets in the VOC layout: `Annotations/`, `JPEGImages/` and `ImageSets/Main/`."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .annotations import Annotation, Finding, Note, clean_box, read_annotation, summarize
from .images import load_image, read_header

Target = dict[str, Tensor]
Transform = Callable[[Tensor, Target], tuple[Any, Any]]
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class DataWarning(UserWarning):
    """Objects of a data set were repaired or refused."""


class Record(NamedTuple):
    """One image and its cleaned objects. Arrays, not tensors: they travel to worker processes by value."""

    image_id: str
    image_path: Path
    size: tuple[int, int]  # (width, height) of the image as it is returned
    upright: bool  # the EXIF rotation is applied
    boxes: npt.NDArray[np.float32]  # (M, 4) pixel edges
    labels: npt.NDArray[np.int64]  # (M,)
    difficult: npt.NDArray[np.bool_]  # (M,)
    findings: tuple[Finding, ...]


class VOCDataset(Dataset[Any]):
    """Images and their objects, read from a folder in the VOC layout.

    `dataset[i]` is `(image, target)`: a uint8 RGB tensor (3, H, W), and `{"boxes": (M, 4) float32 xyxy in
    pixels, "labels": (M,) int64, "difficult": (M,) bool}`; M = 0 is legal. Annotations are parsed once, here;
    images are decoded when asked for.

    Coordinates. VOC counts pixels from 1 and includes the last one, so a box is returned with the continuous
    edges (xmin - 1, ymin - 1, xmax, ymax): the first pixel of the image spans 0..1, an object as large as the
    image spans (0, 0, W, H), and a width xmax - (xmin - 1) equals the devkit's xmax - xmin + 1. Set
    `one_based=False` for files whose coordinates are such edges already.

    Boxes that are swapped, partly or wholly outside, without area or not numbers are repaired or refused by the
    rules of :func:`ssdlib.data.annotations.clean_box`. Each case is a :class:`Finding` in `findings`, and one
    `DataWarning` counts them.

    Image files are `JPEGImages/<filename>` if that is named after the id, else `<id>` with .jpg, .jpeg or
    .png, else `<filename>`. An image with EXIF rotation is turned upright unless its `<size>` says that the
    stored, unturned pixels were annotated. Where `<size>` fits neither, the image's own size counts and a
    finding is recorded.

    Args:
        root: folder that holds Annotations, JPEGImages and ImageSets.
        image_set: name of a file in ImageSets/Main, without `.txt`. A line is an id, or an id and -1, 0 or 1.
        classes: names of the object classes; the label is the index + 1. If not given, the sorted names in the
            annotations of *all* image sets, so that the sets of one folder agree.
        keep_difficult: keep objects marked difficult; a missing mark means not difficult.
        one_based: see above.
        unknown: "error" raises on a class that is not in `classes`; "ignore" refuses such objects, with a finding.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.

    Raises:
        FileNotFoundError: the folder, the image set, an annotation or an image is missing.
        ValueError: an annotation or an image header cannot be read, an id leaves the folder, the class list has
            duplicates, or a class is unknown. The message names the file and the value.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_set: str,
        classes: Sequence[str] | None = None,
        *,
        keep_difficult: bool = True,
        one_based: bool = True,
        unknown: Literal["error", "ignore"] = "error",
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        self.keep_difficult = keep_difficult
        self.transform = transform
        ids = read_image_set(self.root, image_set)
        annotations = {i: read_annotation(annotation_path(self.root, i)) for i in dict.fromkeys(ids)}
        self.classes = find_classes(self.root, annotations) if classes is None else check_classes(classes)
        self._records = [read_record(self.root, i, annotations[i], self.classes, one_based, unknown) for i in ids]
        self.findings = tuple(f for record in self._records for f in record.findings)
        if self.findings:
            message = f"{self.root}, set {image_set!r}: {summarize(self.findings)}; see dataset.findings"
            warnings.warn(message, DataWarning, stacklevel=2)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        record = self._records[index]
        image, target = load_image(record.image_path, record.upright), self.target(index)
        return (image, target) if self.transform is None else self.transform(image, target)

    @property
    def ids(self) -> list[str]:
        """Ids of the images, in the order of the image set."""
        return [record.image_id for record in self._records]

    def image_path(self, index: int) -> Path:
        """File of an image."""
        return self._records[index].image_path

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of an image in pixels, without decoding it."""
        return self._records[index].size

    def target(self, index: int) -> Target:
        """Target of an image in pixels, before the transform and without decoding the image."""
        record = self._records[index]
        keep = slice(None) if self.keep_difficult else ~record.difficult
        return {
            "boxes": torch.from_numpy(record.boxes[keep].copy()),
            "labels": torch.from_numpy(record.labels[keep].copy()),
            "difficult": torch.from_numpy(record.difficult[keep].copy()),
        }


def annotation_path(root: Path, image_id: str) -> Path:
    """Annotation file of an image."""
    return root / "Annotations" / f"{image_id}.xml"


def image_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder, sorted. Raises FileNotFoundError if it is not in the VOC layout."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (root / part).is_dir():
            inside = sorted(p.parent.name for p in root.glob("*/Annotations"))
            hint = f"; did you mean {root / inside[0]}?" if inside else ""
            raise FileNotFoundError(f"{root} is not in the VOC layout: no folder {part}{hint}")
    return sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))


def read_image_set(root: Path, image_set: str) -> list[str]:
    """Ids in an image set, in its order. Raises FileNotFoundError or ValueError, naming file and line."""
    names = image_set_names(root)
    if image_set not in names:
        raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
    path = root / "ImageSets" / "Main" / f"{image_set}.txt"
    ids = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        image_id = line.strip()
        # The sets of single classes mark each id with -1, 0 or 1; an id may also end in such a word.
        marked = re.fullmatch(r"(.*\S)\s+(-1|0|1)", image_id)
        if marked and not annotation_path(root, image_id).exists():
            image_id = marked[1]
        if not image_id:
            continue
        if PurePath(image_id).is_absolute() or ".." in PurePath(image_id).parts:
            raise ValueError(f"{path}, line {number}: the id {image_id!r} leads out of the data set")
        ids.append(image_id)
    return ids


def find_classes(root: Path, known: Mapping[str, Annotation] | None = None) -> tuple[str, ...]:
    """Sorted class names in the annotations of all image sets; files that are missing are passed over.

    `known` holds annotations that were read before, by id.
    """
    known = known or {}
    names: set[str] = set()
    for image_id in {i for image_set in image_set_names(root) for i in read_image_set(root, image_set)}:
        if image_id in known:
            annotation = known[image_id]
        elif annotation_path(root, image_id).exists():
            annotation = read_annotation(annotation_path(root, image_id))
        else:
            continue
        names.update(item.name for item in annotation.objects)
    return tuple(sorted(names))


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as a tuple. Raises ValueError on duplicates or on one string in place of a list."""
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, got the string {classes!r}")
    duplicates = sorted({name for name in classes if list(classes).count(name) > 1})
    if duplicates:
        raise ValueError(f"classes has duplicates: {', '.join(duplicates)}")
    return tuple(classes)


def read_record(
    root: Path,
    image_id: str,
    annotation: Annotation,
    classes: Sequence[str],
    one_based: bool,
    unknown: Literal["error", "ignore"],
) -> Record:
    """Find the image of an annotation and clean its boxes. Raises as :class:`VOCDataset` does."""
    path = annotation_path(root, image_id)
    file = path.relative_to(root).as_posix()
    image_path = _image_path(root, image_id, annotation)
    size, upright, findings = _oriented(file, image_path, annotation.size)
    boxes, labels, difficult = [], [], []
    for index, item in enumerate(annotation.objects):
        if item.name not in classes:
            if unknown == "error":
                raise ValueError(f"{path}, object {index}: class {item.name!r} is not among {list(classes)}")
            findings.append(Finding(file, index, "unknown class", "refused", item.name))
            continue
        box, notes = clean_box(item.corners, size, one_based)
        findings.extend(Finding(file, index, *note) for note in notes)
        if box is not None:
            boxes.append(box)
            labels.append(classes.index(item.name) + 1)
            difficult.append(item.difficult)
    return Record(
        image_id,
        image_path,
        size,
        upright,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
        np.array(difficult, dtype=np.bool_),
        tuple(findings),
    )


def _image_path(root: Path, image_id: str, annotation: Annotation) -> Path:
    folder = root / "JPEGImages"
    # Only the last part of <filename> counts: it may hold a path of the annotator's machine.
    name = re.split(r"[/\\]", annotation.filename or "")[-1]
    named = [folder / name] if name and name not in (".", "..") else []
    by_id = [folder / f"{image_id}{suffix}" for suffix in _SUFFIXES]
    candidates = named + by_id if PurePath(name).stem == image_id else by_id + named
    for path in candidates:
        if path.is_file():
            return path
    tried = f"{image_id}.jpg, .jpeg or .png" + (f", nor {name}" if name else "")
    raise FileNotFoundError(f"{annotation_path(root, image_id)}: no image in {folder}: neither {tried}")


def _oriented(
    file: str, image_path: Path, declared: tuple[int, int] | None
) -> tuple[tuple[int, int], bool, list[Finding]]:
    """Decide by <size> whether the image is turned upright; return its size then, the decision, and findings."""
    header = read_header(image_path)
    upright = header.rotated and not (declared == header.stored != header.upright)
    size = header.upright if upright else header.stored
    if declared is None or declared == size:
        return size, upright, []
    detail = f"<size> is {declared[0]} x {declared[1]}, {image_path.name} is {size[0]} x {size[1]}"
    return size, upright, [Finding(file, None, *Note("wrong size", "repaired", detail))]
