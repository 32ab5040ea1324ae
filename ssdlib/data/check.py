"""The health report of a data set: what is in it, what was repaired or refused, and what is missing."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdlib.data.annotated import check_classes, labels_of
from ssdlib.data.annotations import Annotation, Finding, read_annotation, summarize
from ssdlib.data.coco import coco_image, coco_set_names, instances_path, read_instances
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.images import load_image, read_file
from ssdlib.data.names import printable
from ssdlib.data.near_duplicates import groups_of, look
from ssdlib.data.threads import in_threads
from ssdlib.data.voc import annotation_path, image_set_names, scan_image_set, voc_image

_SIDE = 300  # of SSD300's images, in pixels


@dataclass(frozen=True)
class ClassSummary:
    """Objects of one class, and their size: the square root of box area over image area."""

    name: str
    objects: int
    difficult: int
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class Report:
    """What :func:`check_dataset` found.

    Attributes:
        sets: number of images in each image set.
        images: number of different ids; in the COCO layout an id is the file of the image here.
        width_range, height_range: smallest and largest in pixels.
        classes: one summary for each class, sorted by name.
        empty: ids of images without objects.
        findings: objects that were repaired or refused.
        errors: files that are missing or unreadable, one message each.
        warnings: the same image in two sets, or twice in one; near-duplicates in two sets; sets with different
            categories; no object at all; objects that are smaller than a pixel where the image is resized for SSD300,
            and so are nothing to learn.
    """

    root: Path
    sets: dict[str, int]
    images: int
    width_range: tuple[int, int]
    height_range: tuple[int, int]
    classes: tuple[ClassSummary, ...]
    empty: tuple[str, ...]
    findings: tuple[Finding, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """False when an object was refused or a file is missing or unreadable."""
        return not self.errors and all(finding.action != "refused" for finding in self.findings)

    def text(self) -> str:
        """Return the report as plain text, one table for the sets and one for the classes."""
        sets = table(["image set", "images"], [[name, str(n)] for name, n in self.sets.items()])
        rows = [
            [c.name, str(c.objects), str(c.difficult), *(f"{x:.3f}" for x in (c.smallest, c.median, c.largest))]
            for c in self.classes
        ]
        classes = table(["class", "objects", "difficult", "smallest", "median", "largest"], rows)
        total = sum(c.objects for c in self.classes)
        lines = [
            printable(self.root),
            *sets,
            "",
            f"{self.images} images, {_span(self.width_range)} wide and {_span(self.height_range)} high, in pixels",
            f"{total} objects of {len(self.classes)} classes; {_count(self.empty, 'image')} without objects",
            *classes,
            "(sizes: square root of box area / image area)",
            "",
            f"objects and files set right or left out: {summarize(self.findings) or 'none'}",
            *(f"  {finding}" for finding in self.findings),
            *_list("missing or unreadable", self.errors),
            *_list("warnings", self.warnings),
            "",
            "ok" if self.ok else "not ok: something was refused, missing or unreadable",
        ]
        return "\n".join(lines)


def check_dataset(root: str | os.PathLike[str], classes: Sequence[str] | None = None, progress: bool = True) -> Report:
    """Check a folder: :func:`check_coco` if it has files `annotations/instances_*.json`, else :func:`check_voc`."""
    check = check_coco if coco_set_names(Path(root)) else check_voc
    return check(root, classes, progress=progress)


def check_voc(
    root: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    one_based: bool = True,
    progress: bool = True,
) -> Report:
    """Read every annotation and decode every image of all image sets, and report what is there.

    Nothing in single files raises: it is collected, so that one run shows everything. The parameters are those of
    :class:`ssdlib.data.VOCDataset`; a class that is not among `classes` is a refused object here.

    Two image sets that share an id are a warning, unless one is a part of the other by its name, as train and val
    are of trainval, or belongs to a single class (`cat_train`). So are two ids with byte for byte the same image.

    Raises:
        FileNotFoundError: `root` is not in the VOC layout, or has no image set.
        ValueError: `classes` has duplicates, or a name that cannot be shown.
    """
    root = Path(root)
    set_names = image_set_names(root)
    if not set_names:
        raise FileNotFoundError(f"{root / 'ImageSets' / 'Main'} has no image set (*.txt)")
    errors: list[str] = []
    sets: dict[str, list[str]] = {}
    for name in set_names:
        try:
            sets[name], problems = scan_image_set(root, name)
            errors.extend(problems)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    annotations: dict[str, Annotation] = {}
    for image_id in sorted({image_id for members in sets.values() for image_id in members}):
        try:
            annotations[image_id] = read_annotation(annotation_path(root, image_id))
        except (OSError, ValueError) as error:
            errors.append(str(error))
    found = sorted({item.name for annotation in annotations.values() for item in annotation.objects})
    names = tuple(found) if classes is None else check_classes(classes)
    labels = labels_of(names)
    read = [(i, partial(voc_image, root, i, item, labels, one_based, "ignore")) for i, item in annotations.items()]
    return _report(root, sets, names, read, errors, [], progress)


def check_coco(root: str | os.PathLike[str], classes: Sequence[str] | None = None, progress: bool = True) -> Report:
    """Read every annotation and decode every image of all files `annotations/instances_*.json`, and report.

    As :func:`check_voc`; ids are the files of the images here, relative to `root`. An image that is in several files
    of annotations is read, and its objects are counted, for each that says something else of it.

    Raises:
        FileNotFoundError: `root` is not in the COCO layout.
        ValueError: `classes` has duplicates, or a name that cannot be shown.
    """
    root = Path(root)
    errors: list[str] = []
    warnings: list[str] = []
    instances = {}
    for name in coco_set_names(root):
        try:
            instances[name] = read_instances(root, name)
        except (OSError, ValueError) as error:
            errors.append(str(error))
            continue
        errors.extend(instances[name].problems)
    if not instances and not errors:
        raise FileNotFoundError(f"{root} is not in the COCO layout: no file annotations/instances_*.json")
    for (first, a), (second, b) in combinations(instances.items(), 2):
        if a.categories != b.categories:
            warnings.append(f"{first} and {second} have different categories: {a.categories} and {b.categories}")
    found = tuple(dict.fromkeys(name for a in instances.values() for name in a.categories.values()))
    names = found if classes is None else check_classes(classes)
    labels = labels_of(names)
    sets, read, known = {}, [], set()
    for name, a in instances.items():
        sets[name] = [image.path.relative_to(root).as_posix() for image in a.images]
        file = instances_path(root, name)
        for key, image in zip(sets[name], a.images, strict=True):
            said = (key, image.size, tuple((a.categories[o.category_id], str(o.bbox), o.crowd) for o in image.objects))
            if said in known:
                continue
            known.add(said)
            read.append((key, partial(coco_image, file, image, a.categories, labels, "ignore")))
    return _report(root, sets, names, read, errors, warnings, progress)


def _report(
    root: Path,
    sets: Mapping[str, Sequence[str]],
    names: tuple[str, ...],
    readers: Sequence[tuple[str, Callable[[], AnnotatedImage]]],
    errors: list[str],
    warnings: list[str],
    progress: bool,
) -> Report:
    """Read and decode images, given by id and a function that reads what is known of it, and sum up."""
    images: list[AnnotatedImage] = []
    by_content: dict[bytes, set[str]] = defaultdict(set)
    for found in in_threads(_read_whole, readers, "checking", progress):
        if isinstance(found, str):
            errors.append(found)
            continue
        image, digest = found
        by_content[digest].add(image.image_id)
        images.append(image)

    widths, heights = ([image.size[axis] for image in images] or [0] for axis in (0, 1))
    return Report(
        root=root,
        sets={name: len(members) for name, members in sets.items()},
        images=len({image_id for members in sets.values() for image_id in members}),
        width_range=(min(widths), max(widths)),
        height_range=(min(heights), max(heights)),
        classes=tuple(_class_summaries(images, names)),
        empty=tuple(image.image_id for image in images if not len(image.boxes)),
        findings=tuple(finding for image in images for finding in image.findings),
        errors=tuple(errors),
        warnings=(
            *warnings,
            *_objects_missing(images),
            *_overlaps(sets),
            *_copies(map(sorted, by_content.values()), sets),
            *_scenes_on_two_sides(images, sets, progress),
        ),
    )


def _read_whole(item: tuple[str, Callable[[], AnnotatedImage]]) -> tuple[AnnotatedImage, bytes] | str:
    """Read and decode one image: what is known of it, and the checksum of its file; or what is wrong with it."""
    image_id, read = item
    try:
        image = read()
        load_image(image.image_path, image.upright)
        digest = hashlib.sha256(read_file(image.image_path)).digest()
    except (OSError, ValueError) as error:
        return str(error)
    return image._replace(image_id=image_id), digest


def _objects_missing(images: Sequence[AnnotatedImage]) -> Iterator[str]:
    """Messages where there is nothing to learn from: no object at all, or objects that vanish at SSD300's size."""
    if not any(len(image.boxes) for image in images):
        yield "no object is annotated at all"
    small = ImageTable.of(images).smaller_than_a_pixel(_SIDE)
    if small:
        objects = "1 object is" if small == 1 else f"{small} objects are"
        yield f"{objects} smaller than a pixel in images of {_SIDE} x {_SIDE}: training at that size leaves them out"


def _class_summaries(images: Sequence[AnnotatedImage], names: Sequence[str]) -> Iterator[ClassSummary]:
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(image.labels for image in images)])
    difficult = np.concatenate([np.zeros(0, dtype=np.bool_), *(image.difficult for image in images)])
    sides = np.concatenate([np.zeros(0), *(_relative_sides(image) for image in images)])
    for label, name in enumerate(names, start=1):
        mine = labels == label
        quantiles = np.quantile(sides[mine], [0, 0.5, 1]) if mine.any() else [math.nan] * 3
        smallest, median, largest = (float(q) for q in quantiles)
        yield ClassSummary(name, int(mine.sum()), int(difficult[mine].sum()), smallest, median, largest)


def _relative_sides(image: AnnotatedImage) -> npt.NDArray[np.float64]:
    extent = (image.boxes[:, 2:] - image.boxes[:, :2]).astype(np.float64)
    return np.sqrt(extent.prod(axis=1) / (image.size[0] * image.size[1]))


def _overlaps(sets: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Messages on ids that stand twice in one set, or in two sets that should share none."""
    for name, members in sets.items():
        twice = [image_id for image_id, n in Counter(members).items() if n > 1]
        if twice:
            yield f"{name} lists {_count(twice, 'id')} more than once: {_some(twice)}"
    for first, second in _sides(sets):
        shared = sorted(set(sets[first]) & set(sets[second]))
        if shared:
            yield f"{first} and {second} share {_count(shared, 'id')}: {_some(shared)}"


def _sides(sets: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of sets that should share nothing: none of them is a part of the other, by its name."""
    # "cat_train" is the set "train", seen from one class, and "all" is what the others are parts of.
    whole = [name for name in sets if name != "all" and not any(name.endswith(f"_{other}") for other in sets)]
    return (pair for pair in combinations(whole, 2) if pair[0] not in pair[1] and pair[1] not in pair[0])


def _scenes_on_two_sides(
    images: Sequence[AnnotatedImage], sets: Mapping[str, Sequence[str]], progress: bool
) -> Iterator[str]:
    """Messages on near-duplicates of which one set has some, and another set others: what it tests, was learned."""
    pairs = list(_sides(sets))
    if not pairs:
        return
    seen = look([(image.image_path, image.upright) for image in images], progress)
    members = {name: frozenset(ids) for name, ids in sets.items()}
    for group in groups_of(seen):
        ids = {images[i].image_id for i in group}
        if len({seen.digests[i] for i in group}) == 1:
            continue  # the same file: said already, or alone
        for first, second in pairs:
            here, there = ids & members[first], ids & members[second]
            if here - there and there - here:
                few = [f"{_some(sorted(part), 3)} ({name})" for name, part in ((first, here), (second, there))]
                yield f"{first} and {second} have near-duplicates of one scene: {' and '.join(few)}"


def _copies(groups: Iterable[Sequence[str]], sets: Mapping[str, Sequence[str]]) -> Iterator[str]:
    members = {name: frozenset(ids) for name, ids in sets.items()}
    for group in groups:
        if len(group) > 1:
            where = (f"{i} ({', '.join(name for name in members if i in members[name])})" for i in group)
            yield f"the same image under {len(group)} ids: {_some(list(where))}"


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}" if len(items) == 1 else f"{len(items)} {noun}s"


def _some(items: Sequence[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")


def _span(bounds: tuple[int, int]) -> str:
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]} to {bounds[1]}"


def _list(title: str, messages: Sequence[str]) -> list[str]:
    return ["", f"{title}: {len(messages)}", *(f"  {printable(message)}" for message in messages)] if messages else []


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out text in columns: the first flush left, the others flush right."""
    header, rows = list(header), [[printable(cell[:60]) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    lines = []
    for row in (header, ["-" * w for w in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
