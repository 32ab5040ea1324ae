"""Data sets in the VOC layout: `Annotations/`, `JPEGImages/` and `ImageSets/Main/`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from ssdlib.data.annotated import (
    AnnotatedDataset,
    Transform,
    Unknown,
    annotated_image,
    check_classes,
    labels_of,
    oriented,
)
from ssdlib.data.annotations import Annotation, Finding, clean_box, read_annotation
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.index import Contents, indexed
from ssdlib.data.names import check_file_name

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class VOCDataset(AnnotatedDataset):
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
        unknown: Unknown = "error",
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        given = None if classes is None else check_classes(classes)

        def read() -> Contents:
            ids = read_image_set(self.root, image_set)
            annotations = {i: read_annotation(annotation_path(self.root, i)) for i in dict.fromkeys(ids)}
            labels = labels_of(find_classes(self.root, annotations) if given is None else given)
            images = ImageTable.of(voc_image(self.root, i, annotations[i], labels, one_based, unknown) for i in ids)
            sets = [image_set] if given is not None else image_set_names(self.root)
            return Contents(images, tuple(labels), list(_sources(self.root, sets)))

        asked = {"layout": "voc", "classes": given, "one_based": one_based, "unknown": unknown}
        images, names = indexed(self.root, image_set, asked, read)
        images = images if keep_difficult else images.without_difficult()
        super().__init__(images, names, transform=transform)
        self._warn_of_findings(f"{self.root}, set {image_set!r}")


def annotation_path(root: Path, image_id: str) -> Path:
    """Annotation file of an image."""
    return root / "Annotations" / f"{image_id}.xml"


def image_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder, sorted. Raises FileNotFoundError if it is not in the VOC layout."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (root / part).is_dir():
            inside = sorted(p.parent.name for p in root.glob("*/Annotations"))
            hint = f"; did you mean {root / inside[0]}?" if inside else ""
            raise FileNotFoundError(
                f"{root} is not in the VOC layout: no folder {part}{hint}; "
                "nor is it in the COCO layout: no file annotations/instances_*.json"
            )
    return sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))


def read_image_set(root: Path, image_set: str) -> list[str]:
    """Ids in an image set, in its order. Raises FileNotFoundError or ValueError, naming file and line."""
    ids, problems = scan_image_set(root, image_set)
    if problems:
        raise ValueError(problems[0])
    return ids


def scan_image_set(root: Path, image_set: str) -> tuple[list[str], list[str]]:
    """Ids in an image set, in its order, and a message for each line that could not be taken, with file and line.

    Raises:
        FileNotFoundError: there is no such set.
        ValueError: the file is not UTF-8 text.
    """
    names = image_set_names(root)
    if image_set not in names:
        raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
    path = root / "ImageSets" / "Main" / f"{image_set}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    ids, problems = [], []
    for number, line in enumerate(lines, start=1):
        image_id = line.replace("\t", " ").strip()
        # The sets of single classes mark each id with -1, 0 or 1; an id may also end in such a word.
        marked = re.fullmatch(r"(.*\S)\s+(-1|0|1)", image_id)
        try:
            if image_id:
                check_file_name(image_id, "the id")
                ids.append(marked[1] if marked and not annotation_path(root, image_id).exists() else image_id)
        except (OSError, ValueError) as error:
            problems.append(f"{path}, line {number}: {error}")
    return ids, problems


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


def _sources(root: Path, sets: Sequence[str]) -> Iterator[Path]:
    """Files that decide what some image sets of a folder are, and the folders in which others would.

    The images are not among them.
    """
    ids = {image_id for image_set in sets for image_id in read_image_set(root, image_set)}
    annotations = {annotation_path(root, image_id) for image_id in ids}
    yield from (path for path in annotations if path.exists())
    yield from (root / "ImageSets" / "Main" / f"{image_set}.txt" for image_set in sets)
    yield from {root / "ImageSets" / "Main", *(path.parent for path in annotations if path.parent.is_dir())}
    folders = {(root / "JPEGImages" / image_id).parent for image_id in ids}
    yield from {root / "JPEGImages", *(folder for folder in folders if folder.is_dir())}


def voc_image(
    root: Path,
    image_id: str,
    annotation: Annotation,
    labels: Mapping[str, int],
    one_based: bool,
    unknown: Unknown,
) -> AnnotatedImage:
    """Find the image of an annotation and clean its boxes; `labels` are those of the classes.

    Raises as :class:`VOCDataset` does.
    """
    path = annotation_path(root, image_id)
    file = path.relative_to(root).as_posix()
    image_path = _image_path(root, image_id, annotation)
    size, upright, findings = oriented(file, image_path, annotation.size, "<size>")
    objects = []
    for index, item in enumerate(annotation.objects):
        if item.name not in labels:
            if unknown == "error":
                raise ValueError(f"{path}, object {index}: class {item.name!r} is not among {list(labels)}")
            findings.append(Finding(file, index, "unknown class", "refused", item.name))
            continue
        box, notes = clean_box(item.corners, size, one_based)
        findings.extend(Finding(file, index, *note) for note in notes)
        if box is not None:
            objects.append((box, labels[item.name], item.difficult))
    return annotated_image(image_id, image_path, size, upright, objects, findings)


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
