"""Sets for training, validation and test: no scene stands on two sides, and every class has its share in each."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.coco import coco_set_names, instances_path
from ssdlib.data.files import replaced
from ssdlib.data.names import counted, printable
from ssdlib.data.near_duplicates import ALIKE, THRESHOLD, groups_of, look
from ssdlib.data.opening import choose_set, open_dataset
from ssdlib.data.report import table
from ssdlib.data.shards import shard_set_names
from ssdlib.data.voc import image_set_names

SETS = ("train", "val", "test")
TRAINVAL = "trainval"
_SHOWN = 20  # groups in the report
_LARGE = 0.1  # of all images: a group beyond makes the shares uneven


@dataclass(frozen=True)
class Split:
    """What :func:`split_dataset` did.

    Attributes:
        folder, source: the data set, and the set that was divided.
        sets: ids of the images of train, val and test, in the order of the source.
        groups: ids of the groups of two images or more that stay together.
        counts: for each set and class, numbers of objects and of images that have them.
        written: files of sets that were written.
        notes: classes that a set lacks, and groups that are very large.
    """

    folder: Path
    source: str
    sets: dict[str, list[str]]
    groups: list[list[str]]
    counts: dict[str, dict[str, tuple[int, int]]]
    written: tuple[Path, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """The sets as a table, and the groups."""
        total = sum(map(len, self.sets.values()))
        rows = [["images", str(total), *(f"{len(ids)}, {len(ids) / total:.0%}" for ids in self.sets.values())]]
        for name in next(iter(self.counts.values())):
            each = [self.counts[part][name] for part in self.sets]
            objects, images = (sum(column) for column in zip(*each, strict=True))
            rows.append([name, f"{objects} in {images}", *(f"{a} in {b}" for a, b in each)])
        sizes = sorted(map(len, self.groups))
        what = f"{sum(sizes):,} images in groups of {sizes[0]} to {sizes[-1]}" if sizes else "none"
        return "\n".join(
            [
                f"{printable(self.folder)}: the images of {self.source!r}; of each class, objects and images with them",
                *table(["", self.source, *self.sets], rows),
                "",
                f"groups that stay together, of near-duplicates or by name: {what}",
                *(f"  {printable(', '.join(group))}" for group in self.groups[:_SHOWN]),
                *([f"  and {len(sizes) - _SHOWN} more"] if len(sizes) > _SHOWN else []),
                *(f"note: {printable(note)}" for note in self.notes),
                f"written: {', '.join(printable(path.relative_to(self.folder).as_posix()) for path in self.written)}",
            ]
        )


def assign(
    groups: Sequence[Sequence[int]], objects: npt.NDArray[np.int64], shares: Sequence[float], seed: int
) -> list[int]:
    """Choose a set for each group, so that each set gets its share of every class.

    The rarest class comes first: its groups, the largest first, go one by one to the set that lacks most of it; then
    the class that is rarest among what is left, and so on; images without objects come last. Of images with one object
    each, a set gets at most one group more of a class than its share.

    Args:
        groups: indices of images, each image in one.
        objects: (N, C) how many objects of each class an image has.
        shares: of the sets, with the sum 1.
        seed: decides what is equal otherwise.

    Returns:
        The index of a set for each group.

    Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data" (2011), for groups.
    """
    random = np.random.default_rng(seed)
    classes = objects.shape[1]
    content = np.array([[*objects[list(group)].sum(axis=0), len(group)] for group in groups], dtype=float)  # (G, C + 1)
    wanted = np.array(shares)[:, None] * content.sum(axis=0)  # (S, C + 1) what each set lacks
    chosen = np.full(len(groups), -1)
    while (chosen < 0).any():
        left = np.nonzero(chosen < 0)[0]
        remaining = content[left, :classes].sum(axis=0)
        there = np.nonzero(remaining)[0]
        column = int(there[np.argmin(remaining[there])]) if len(there) else classes
        mine = random.permutation(left[content[left, column] > 0])
        for group in mine[np.argsort(-content[mine, column], kind="stable")]:
            order = np.lexsort((random.random(len(wanted)), wanted[:, classes], np.round(wanted[:, column], 9)))
            chosen[group] = order[-1]
            wanted[order[-1]] -= content[group]
    return [int(index) for index in chosen]


def split_dataset(
    root: str | os.PathLike[str],
    *,
    val: float = 0.2,
    test: float = 0.1,
    seed: int = 0,
    image_set: str | None = None,
    threshold: int = THRESHOLD,
    by: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Split:
    """Divide the images of a folder into train, val and test, and write these sets and trainval; no image is moved.

    Near-duplicates (see :mod:`ssdlib.data.near_duplicates`) stay together, so that the test is on scenes that training
    has not seen. The shares hold as well as the groups let them.

    Args:
        root: folder in the VOC or COCO layout; of COCO's, the images must be in `images/`.
        val, test: shares of the images; 0 leaves the set out.
        seed: the same seed makes the same sets.
        image_set: the set to divide; by default "all", or the only one there is.
        threshold: bits of 64 in which the hashes of near-duplicates may differ; 0 to 64, and -1 joins equal files only.
        by: regular expression: images in whose names it finds the same (what its first group holds, if it has one) stay
            together, too, such as "^(.*)_frame" for the frames of a clip.
        overwrite: replace the sets of these names that are there.
        progress: show a bar on stderr.

    Raises:
        FileExistsError: one of the sets is there, and `overwrite` is not set.
        FileNotFoundError: the folder or the set is missing.
        ValueError: a share is out of range; it is not clear which set to divide; there are too few images or groups; or
            the folder holds shards.
    """
    root = Path(root)
    if shard_set_names(root):
        raise ValueError(
            f"{root} holds shards, whose images cannot be divided where they are: `ssd data convert {root} "
            "--out FOLDER` makes a folder that can be, and `ssd data shard FOLDER` makes shards of each set of it"
        )
    shares = {"train": 1 - val - test, "val": val, "test": test}
    if not all(0 <= share < 1 for share in (val, test)) or shares["train"] <= 0:
        raise ValueError(f"val {val:g} and test {test:g} must be at least 0, and leave something for training")
    if not -1 <= threshold <= 64:
        raise ValueError(f"threshold must be from -1 to 64, got {threshold}")
    shares = {name: share for name, share in shares.items() if share > 0}
    coco = bool(coco_set_names(root))
    if not coco:
        image_set_names(root)  # raises where the new sets would have no place
    source = choose_set(root, image_set)
    if coco:
        _require_images_found(root, source)
    names = [*shares, *([] if source == TRAINVAL and not test else [TRAINVAL])]
    _require_free(root, coco, source, names, overwrite)
    dataset = open_dataset(root, source, progress=False)
    first = {path: index for index, path in reversed(list(enumerate(map(dataset.image_path, range(len(dataset))))))}
    members = sorted(first.values())  # an image that a set names twice counts once
    together = [] if by is None else _texts([dataset.image_path(i).stem for i in members], by)
    seen = look([(dataset.image_path(i), dataset._images[i].upright) for i in members], progress)
    groups = groups_of(seen, max(threshold, 0), ALIKE if threshold >= 0 else math.inf, together)
    objects = _objects(dataset, members)
    if len(groups) < len(shares):
        there = f"{counted(len(members), 'image')} in {counted(len(groups), 'group')}"
        raise ValueError(f"too few for {len(shares)} sets: {there}")
    chosen = assign(groups, objects, list(shares.values()), seed)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for group, index in zip(groups, chosen, strict=True):
        parts[list(shares)[index]] += group
    for name, part in parts.items():
        part.sort()
        if not part:
            raise ValueError(
                f"too few, {counted(len(groups), 'group')}: nothing is left for {name}, of share {shares[name]:g}"
            )
    sets = {**parts, TRAINVAL: sorted(i for name, part in parts.items() if name != "test" for i in part)}
    written = _write(root, coco, source, {name: [members[i] for i in sets[name]] for name in names}, dataset)
    counts = {
        name: {
            c: (int(objects[part, label].sum()), int((objects[part, label] > 0).sum()))
            for label, c in enumerate(dataset.classes)
        }
        for name, part in parts.items()
    }
    ids = [dataset.ids[i] if not coco else dataset.image_path(i).name for i in members]
    several = [group for group in groups if len(group) > 1]
    return Split(
        root,
        source,
        {name: [ids[i] for i in part] for name, part in parts.items()},
        [[ids[i] for i in group] for group in several],
        counts,
        tuple(written),
        tuple(_notes(counts, several, len(members))),
    )


def _texts(names: Sequence[str], pattern: str) -> list[str | None]:
    """What a regular expression finds in each name.

    Raises:
        ValueError: it is none, or finds nothing in any name.
    """
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not any(found):
        raise ValueError(f"{pattern!r} finds nothing in any name, such as {names[0]!r}")
    return [None if match is None else match[min(1, len(match.groups()))] for match in found]


def _require_images_found(root: Path, source: str) -> None:
    """Refuse a COCO set with a folder of images of its own: the new sets would not look there."""
    if (root / source).is_dir():
        raise ValueError(
            f"the images of {source!r} are in {root / source}, where a set of another name does not look: "
            f"`ssd data convert {root} --link --out FOLDER` makes a folder that can be divided"
        )


def _set_path(root: Path, coco: bool, name: str) -> Path:
    return instances_path(root, name) if coco else root / "ImageSets" / "Main" / f"{name}.txt"


def _require_free(root: Path, coco: bool, source: str, names: Sequence[str], overwrite: bool) -> None:
    if source in names:
        raise ValueError(f"the set {source!r} would be replaced by a part of itself: name another with --image-set")
    there = [name for name in (*SETS, TRAINVAL) if name != source and _set_path(root, coco, name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"{root} has the sets {', '.join(there)} already; --force replaces them")


def _objects(dataset: AnnotatedDataset, members: Sequence[int]) -> npt.NDArray[np.int64]:
    """(N, C) how many objects of each class an image has."""
    counts = np.zeros((len(members), len(dataset.classes)), dtype=np.int64)
    for row, index in enumerate(members):
        np.add.at(counts[row], dataset._images[index].labels - 1, 1)
    return counts


def _write(
    root: Path, coco: bool, source: str, sets: Mapping[str, Sequence[int]], dataset: AnnotatedDataset
) -> list[Path]:
    """Write the sets; those of our names that this split does not have are removed.

    None is put into its place before all are written: a new train beside an old test would share images with it.
    """
    content: dict[str, Any] = json.loads(instances_path(root, source).read_bytes()) if coco else {}
    with ExitStack() as stack:
        for name, part in sets.items():
            if coco:
                images = [content["images"][i] for i in part]
                ids = {image["id"] for image in images}
                labels = [item for item in content["annotations"] if item["image_id"] in ids]
                text = json.dumps({**content, "images": images, "annotations": labels})
            else:
                text = "".join(f"{dataset.ids[i]}\n" for i in part)
            aside = stack.enter_context(replaced(_set_path(root, coco, name)))
            aside.write_text(text, encoding="utf-8", newline="\n")
    for name in (*SETS, TRAINVAL):
        if name not in sets and name != source:
            _set_path(root, coco, name).unlink(missing_ok=True)
    return [_set_path(root, coco, name) for name in sets]


def _notes(
    counts: Mapping[str, Mapping[str, tuple[int, int]]], groups: Sequence[Sequence[int]], images: int
) -> list[str]:
    notes = []
    for name, of_class in counts.items():
        without = [c for c, (objects, _) in of_class.items() if not objects]
        if without:
            notes.append(f"{name} has no object of {', '.join(without)}")
    largest = max(map(len, groups), default=0)
    if largest > _LARGE * images:
        notes.append(
            f"one group has {largest} of {images} images: look at it (`ssd data show`); --threshold says how alike "
            f"near-duplicates are"
        )
    return notes
