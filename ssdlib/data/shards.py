"""Shards: an image set in tar files of a thousand images each, for disks that are slow with a million small files.

The layout is that of WebDataset: two members for each image, `000000012.jpg` with the bytes of its file and
`000000012.json` with what is known of it, and any program for that layout reads them. Beside the tar files of a set
stands `NAME.shards.json` with the classes and the list of the files.

WebDataset's own reader is a stream: each worker reads whole shards and shuffles what it has in a buffer, so that the
order depends on the number of workers, and a run that goes on has to read again what it has seen. Here the place of
each image is looked up once, and images are taken in any order, like files: a run on shards has the batches of the run
on the files, with any number of workers, and goes on in the middle of an epoch.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from ssdlib.data.annotated import (
    AnnotatedDataset,
    Transform,
    Unknown,
    annotated_image,
    check_classes,
    labels_of,
    oriented,
)
from ssdlib.data.annotations import Box, Finding, Note, clean_edges
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.files import replaced, write_text
from ssdlib.data.images import read_file
from ssdlib.data.index import Contents, indexed
from ssdlib.data.names import check_file_name, check_name, counted, said, shown

DESCRIPTION = ".shards.json"
PER_SHARD = 1000
SUFFIXES = {"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "jp2", "avif", "heic"}
_MOST_IMAGE, _MOST_JSON = 2**28, 2**24  # bytes of a member


class Sample(NamedTuple):
    """The two members of an image in a shard: the place of the image, and the text of the other one."""

    key: str
    image: Path
    text: bytes


class Known(NamedTuple):
    """What is known of an image; `objects` are a box, not yet checked, a class, and whether it is difficult.

    `file` is the name of the file that it was made of, "" where the shard does not say.
    """

    image_id: str
    file: str
    size: tuple[int, int]
    objects: list[tuple[Any, str, bool]]


class Description(NamedTuple):
    """What `NAME.shards.json` says: the classes, whether difficult objects are crowds, and the tar files."""

    classes: tuple[str, ...]
    crowds: bool
    shards: list[Path]


class ShardDataset(AnnotatedDataset):
    """Images and their objects, read from tar files that :func:`write_shards` wrote.

    The interface, and the rules by which boxes are repaired or refused, are those of
    :class:`ssdlib.data.VOCDataset`; boxes are pixel edges. `image_path(i)` is a place in a tar file, such as
    `train-000000.tar/1536+20480/000000012.jpg` (bytes before it, and its own), which
    :func:`ssdlib.data.load_image` takes like a file.

    Args:
        root: folder with `<image_set>.shards.json` and the tar files that it names.
        image_set: such as "train".
        classes: names of the object classes; the label is the index + 1. If not given, those of the description.
        keep_difficult: keep objects marked difficult.
        keep_crowds: keep those that are boxes around many objects, as they are where the shards were made of COCO.
        unknown: "error" raises on an object whose class is not in `classes`; "ignore" refuses it, with a finding.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.

    Raises:
        FileNotFoundError: there is no such set, or a tar file is missing.
        ValueError: a tar file is not as long as it was written, or cannot be read; a member is no plain file, is too
            large or leads out; an image lacks one of its members; what is known of it is not readable; or a class is
            unknown. The message names the file and the value.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_set: str,
        classes: Sequence[str] | None = None,
        *,
        keep_difficult: bool = True,
        keep_crowds: bool = True,
        unknown: Unknown = "error",
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        names = shard_set_names(self.root)
        if image_set not in names:
            raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
        file = self.root / f"{image_set}{DESCRIPTION}"
        described = read_description(file)
        self.crowds = described.crowds
        labels = labels_of(described.classes if classes is None else check_classes(classes))

        def read() -> Contents:
            images = ImageTable.of(_images(described.shards, labels, unknown))
            return Contents(images, tuple(labels), [file, *described.shards])

        asked = {"layout": "shards", "classes": list(labels), "unknown": unknown}
        images, _ = indexed(self.root, image_set, asked, read)
        if not keep_difficult or (self.crowds and not keep_crowds):
            images = images.without_difficult()
        super().__init__(images, tuple(labels), transform=transform)
        self._warn_of_findings(f"{self.root}, set {image_set!r}")


def shard_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder with shards, sorted; none if it has no description of shards."""
    return sorted(path.name.removesuffix(DESCRIPTION) for path in root.glob(f"*{DESCRIPTION}"))


def write_shards(
    dataset: AnnotatedDataset,
    out: str | os.PathLike[str],
    image_set: str,
    per_shard: int = PER_SHARD,
    progress: bool = True,
) -> list[Path]:
    """Write the images of a data set, in their order, and their objects to tar files `<image_set>-000000.tar`.

    The bytes of the image files are taken as they are. The same data make the same bytes.

    Args:
        dataset: the images.
        out: folder for the tar files and `<image_set>.shards.json`, which is written last.
        image_set: name of the set.
        per_shard: the most images of a tar file.
        progress: show a bar on stderr.

    Returns:
        The tar files.

    Raises:
        FileExistsError: the folder has shards of that name.
        ValueError: there is no image, `per_shard` is below 1, or a file has no ending of an image, which is named then.
    """
    out = Path(out)
    check_file_name(image_set, "the image set")
    if (out / f"{image_set}{DESCRIPTION}").exists():
        raise FileExistsError(f"{out} has shards of {image_set!r} already")
    if per_shard < 1 or not len(dataset):
        raise ValueError(f"{counted(len(dataset), 'image')}, and {per_shard} in a shard: there is nothing to write")
    shards = []
    with tqdm(total=len(dataset), desc="sharding", unit="image", disable=not progress) as bar:
        for start in range(0, len(dataset), per_shard):
            path = out / f"{image_set}-{start // per_shard:06}.tar"
            with replaced(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
                for index in range(start, min(start + per_shard, len(dataset))):
                    for name, content in _members(dataset, index):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                    bar.update()
            shards.append(path)
    listed = [{"name": path.name, "bytes": path.stat().st_size} for path in shards]
    description = {"classes": dataset.classes, "crowds": dataset.crowds, "shards": listed}
    write_text(out / f"{image_set}{DESCRIPTION}", json.dumps(description, indent=1) + "\n")
    return shards


def _members(dataset: AnnotatedDataset, index: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is written of an image. The number is the key: an id may have dots, and end there."""
    image = dataset._images[index]
    ending = image.image_path.suffix.lower().removeprefix(".")
    if ending not in SUFFIXES:
        raise ValueError(f"{image.image_path} has not the ending of an image: {', '.join(sorted(SUFFIXES))}")
    known = {
        "id": image.image_id,
        "file": image.image_path.name,
        "width": image.size[0],
        "height": image.size[1],
        "boxes": image.boxes.tolist(),  # pixel edges x_min, y_min, x_max, y_max
        "labels": [dataset.classes[label - 1] for label in image.labels],
        "difficult": image.difficult.tolist(),
    }
    yield f"{index:09}.{ending}", read_file(image.image_path)
    yield f"{index:09}.json", json.dumps(known).encode()


def read_description(file: Path) -> Description:
    """Read a description, and make sure that its tar files are there, and as long as they were written.

    Raises:
        FileNotFoundError, ValueError: as :class:`ShardDataset`.
    """
    try:
        content = json.loads(file.read_bytes())
        classes, crowds = check_classes(content["classes"]), content["crowds"]
        if type(crowds) is not bool:
            raise ValueError(f"crowds must be true or false, got {shown(crowds)}")
        listed = [(check_file_name(shard["name"], "the shard"), shard["bytes"]) for shard in content["shards"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} is no description of shards: {type(error).__name__}: {said(error)}") from error
    shards = []
    for name, size in listed:
        shards.append(file.parent / name)
        if not shards[-1].is_file():
            raise FileNotFoundError(f"{file}: the shard {name} is missing")
        there = shards[-1].stat().st_size
        if there != size:
            raise ValueError(f"{shards[-1]} has {there} bytes, not {shown(size)} as {file.name} says")
    return Description(classes, crowds, shards)


def _images(shards: Sequence[Path], labels: Mapping[str, int], unknown: Unknown) -> Iterator[AnnotatedImage]:
    keys: set[str] = set()
    for shard in shards:
        for sample in samples(shard):
            if sample.key in keys:
                raise ValueError(f"{shard}: the key {sample.key} stands twice")
            keys.add(sample.key)
            yield shard_image(shard, sample, labels, unknown)


def samples(shard: Path) -> Iterator[Sample]:
    """The images of a tar file in the layout of WebDataset. Nothing is unpacked.

    Members of other kinds than images and .json are passed over.

    Raises:
        ValueError: as :class:`ShardDataset`.
    """
    key, image, text = "", None, None
    try:
        with tarfile.open(shard, "r:") as tar, shard.open("rb") as content:
            for member in tar:
                if member.isdir():
                    continue
                name = check_file_name(member.name, "the member")
                if not member.isreg() or member.issparse():
                    raise ValueError(f"{shown(name)} is no plain file")
                stem, _, ending = PurePosixPath(name).name.partition(".")
                folder, ending = name[: name.rfind("/") + 1], ending.lower()
                if folder + stem != key:
                    if key:
                        yield _whole(key, image, text)
                    key, image, text = folder + stem, None, None
                most = _MOST_JSON if ending == "json" else _MOST_IMAGE
                if member.size > most:
                    raise ValueError(f"{shown(name)} has {member.size} bytes, more than {most}")
                if ending == "json":
                    content.seek(member.offset_data)
                    text = content.read(member.size)
                elif ending in SUFFIXES and image is None:
                    image = shard / f"{member.offset_data}+{member.size}" / f"{stem}.{ending}"
            if key:
                yield _whole(key, image, text)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"{shard} is no shard that can be read: {said(error)}") from error


def _whole(key: str, image: Path | None, text: bytes | None) -> Sample:
    if image is None or text is None:
        raise ValueError(f"{shown(key)} has no {'image' if image is None else '.json'} beside it")
    return Sample(key, image, text)


def known_of(shard: Path, sample: Sample) -> Known:
    """Read what is known of an image.

    Raises:
        ValueError: it is not readable; the message names the shard and the member.
    """
    try:
        known = json.loads(sample.text)
        image_id = check_name(known["id"], "the id")
        declared = known["width"], known["height"]
        rows = list(zip(known["boxes"], known["labels"], known["difficult"], strict=True))
        for _, name, difficult in rows:
            check_name(name, "the class")
            if type(difficult) is not bool:
                raise ValueError(f"difficult must be true or false, got {shown(difficult)}")
        if {*map(type, declared)} != {int}:
            raise ValueError(f"the size must be whole numbers, got {shown(declared)}")
        file = check_file_name(known["file"], "the file") if "file" in known else ""
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {said(error)}"
        raise ValueError(f"{shard}: {sample.key}.json does not say what it should: {problem}") from error
    return Known(image_id, file, declared, rows)


def shard_image(shard: Path, sample: Sample, labels: Mapping[str, int], unknown: Unknown) -> AnnotatedImage:
    """Look at the image and clean its boxes; `labels` are those of the classes.

    Raises as :class:`ShardDataset` does.
    """
    file, known = f"{shard.name}/{sample.key}.json", known_of(shard, sample)
    size, upright, findings = oriented(file, sample.image, known.size, "the size")
    objects = []
    for index, (edges, name, difficult) in enumerate(known.objects):
        if name not in labels:
            if unknown == "error":
                where = f"{shard}: {sample.key}.json, object {index}"
                raise ValueError(f"{where}: class {name!r} is not among {list(labels)}")
            findings.append(Finding(file, index, "unknown class", "refused", name))
            continue
        box, notes = clean_written(edges, size)
        findings.extend(Finding(file, index, *note) for note in notes)
        if box is not None:
            objects.append((box, labels[name], difficult))
    return annotated_image(known.image_id, sample.image, size, upright, objects, findings)


def clean_written(edges: Any, size: tuple[int, int]) -> tuple[Box | None, list[Note]]:
    """Apply the rules of :func:`ssdlib.data.annotations.clean_box` to what should be four pixel edges."""
    if not isinstance(edges, list) or len(edges) != 4 or not {*map(type, edges)} <= {int, float}:
        return None, [Note("not a number", "refused", f"box {shown(edges)}")]
    return clean_edges(edges, size)
