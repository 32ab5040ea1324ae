"""The health report of a data set: what is in it, what was repaired or refused, and what is missing."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdlib.data.annotated import check_classes, labels_of
from ssdlib.data.annotations import Annotation, read_annotation
from ssdlib.data.coco import coco_image, coco_set_names, instances_path, read_instances
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.images import load_image, read_file
from ssdlib.data.instances import Instances
from ssdlib.data.names import counted
from ssdlib.data.near_duplicates import groups_of, look
from ssdlib.data.opening import openimages_sets
from ssdlib.data.report import ClassSummary, Report
from ssdlib.data.shards import (
    DESCRIPTION,
    Description,
    known_of,
    read_description,
    samples,
    shard_image,
    shard_set_names,
)
from ssdlib.data.threads import in_threads
from ssdlib.data.voc import annotation_path, image_set_names, scan_image_set, voc_image

_SIDE = 300  # of SSD300's images, in pixels


def check_dataset(root: str | os.PathLike[str], classes: Sequence[str] | None = None, progress: bool = True) -> Report:
    """Check a folder: with shards by :func:`check_shards`, in the COCO layout by :func:`check_coco`, or as VOC.

    Which it is, is decided as in :func:`ssdlib.data.open_dataset`.

    Raises:
        FileNotFoundError, ValueError: as those; or the folder has tables of Open Images, which have to be converted.
    """
    by_files = {shard_set_names: check_shards, coco_set_names: check_coco}
    check = next((check for names, check in by_files.items() if names(Path(root))), check_voc)
    if check is check_voc and openimages_sets(Path(root)):
        raise ValueError(
            f"{root} has tables of Open Images: `ssd data convert {root} --out FOLDER` says what is wrong with them, "
            "and makes a folder that can be checked"
        )
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
        for number, (key, image) in enumerate(zip(sets[name], a.images, strict=True)):
            said = (key, image.size, [(a.categories[o.category_id], str(o.bbox), o.crowd) for o in image.objects])
            digest = hashlib.sha256(repr(said).encode(errors="surrogatepass")).digest()
            if digest in known:
                continue
            known.add(digest)
            read.append((key, partial(_coco_image, file, a, number, labels)))
    return _report(root, sets, names, read, errors, warnings, progress)


def _coco_image(file: Path, instances: Instances, number: int, labels: Mapping[str, int]) -> AnnotatedImage:
    """Look at an image, which is made only now: a set may have a hundred thousand."""
    return coco_image(file, instances.images[number], instances.categories, labels, "ignore")


def check_shards(root: str | os.PathLike[str], classes: Sequence[str] | None = None, progress: bool = True) -> Report:
    """Read every tar file of all sets that a folder has as shards, decode every image, and report.

    As :func:`check_voc`; ids are those that the shards have of their images. What is in several sets is read in each,
    and its objects are counted once.

    Raises:
        FileNotFoundError: `root` has no description of shards.
        ValueError: `classes` has duplicates, or a name that cannot be shown.
    """
    root = Path(root)
    errors: list[str] = []
    described: dict[str, Description] = {}
    for name in shard_set_names(root):
        try:
            described[name] = read_description(root / f"{name}{DESCRIPTION}")
        except (OSError, ValueError) as error:
            errors.append(str(error))
    if not described and not errors:
        raise FileNotFoundError(f"{root} has no shards: no file *{DESCRIPTION}")
    warnings = [
        f"{first} and {second} have different classes: {list(a.classes)} and {list(b.classes)}"
        for (first, a), (second, b) in combinations(described.items(), 2)
        if a.classes != b.classes
    ]
    found = tuple(dict.fromkeys(name for each in described.values() for name in each.classes))
    labels = labels_of(found if classes is None else check_classes(classes))
    sets: dict[str, list[str]] = {name: [] for name in described}
    read: list[tuple[str, Callable[[], AnnotatedImage]]] = []
    for name, each in described.items():
        keys: set[str] = set()
        for shard in each.shards:
            try:
                for sample in samples(shard):
                    if sample.key in keys:
                        errors.append(f"{shard}: the key {sample.key} stands twice")
                    keys.add(sample.key)
                    try:
                        image_id = known_of(shard, sample).image_id
                    except ValueError as error:
                        errors.append(str(error))
                        continue
                    sets[name].append(image_id)
                    read.append((image_id, partial(shard_image, shard, sample, labels, "ignore")))
            except (OSError, ValueError) as error:
                errors.append(str(error))
    return _report(root, sets, tuple(labels), read, errors, warnings, progress)


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
    known: set[tuple[object, ...]] = set()
    for found in in_threads(_read_whole, readers, "checking", progress):
        if isinstance(found, str):
            errors.append(found)
            continue
        image, digest = found
        by_content[digest].add(image.image_id)
        columns = (image.boxes, image.labels, image.difficult)
        content = (image.image_id, digest, *(column.tobytes() for column in columns))
        if content not in known:  # else it is in another set, too
            known.add(content)
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
        objects = f"{counted(small, 'object')} {'is' if small == 1 else 'are'}"
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
            yield f"{name} lists {counted(len(twice), 'id')} more than once: {_some(twice)}"
    for first, second in _sides(sets):
        shared = sorted(set(sets[first]) & set(sets[second]))
        if shared:
            yield f"{first} and {second} share {counted(len(shared), 'id')}: {_some(shared)}"


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


def _some(items: Sequence[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
