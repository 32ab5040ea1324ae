"""VOC's and COCO's labels as other tools write them: beside the images, or in folders of any name; and our shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import ElementTree

from ssdlib.data.annotations import Box, Note, clean_box, read_annotation
from ssdlib.data.coco import clean_bbox
from ssdlib.data.formats.collecting import Cleaner, Collector, ImageFiles, LabelledObject, Size, Source, files_below
from ssdlib.data.images import read_file
from ssdlib.data.instances import parse_instances
from ssdlib.data.names import counted, said
from ssdlib.data.shards import DESCRIPTION, clean_written, known_of, read_description, samples
from ssdlib.data.voc import read_image_set


def read_voc(root: Path, images: ImageFiles, one_based: bool = True) -> Source:
    """Read a folder of XML files and images; the sets are those of ImageSets/Main, where there are any.

    Args:
        root: the folder.
        images: its images.
        one_based: the first pixel is 1 and the last one belongs to the box, as in VOC; False for tools that write edges
            from 0 under the same names.
    """
    found = Collector("voc", root)
    by_id, from_zero = {}, 0
    for path in files_below(root, "*.xml"):
        if not is_voc(path):
            continue
        try:
            annotation = read_annotation(path)
        except (OSError, ValueError) as error:
            found.lose(path, "unreadable labels", str(error))
            continue
        try:
            image = _image_of(annotation.filename or "", path, images)
        except LookupError as error:
            found.lose(path, "no image", str(error), len(annotation.objects))
            continue
        by_id[path.stem] = image
        from_zero += sum(c is not None and "0" in (c[0], c[1]) for c in (item.corners for item in annotation.objects))
        objects = [LabelledObject(o.name, _corners(o.corners, one_based), o.difficult) for o in annotation.objects]
        found.add(path, image, annotation.size, objects)
    source = found.finish()
    index = {image.image_path: number for number, image in enumerate(source.images)}
    source.sets.update(_sets(root, {name: index[image] for name, image in by_id.items() if image in index}))
    unlabelled = len(images.paths) - len(set(by_id.values()))
    if unlabelled > 0:
        images_without = counted(unlabelled, "image")
        source.notes.append(f"{images_without} without an XML file of labels, left out as not labelled yet")
    if from_zero and one_based:
        source.notes.append(
            f"{counted(from_zero, 'box', 'boxes')} with a corner at 0, though VOC counts pixels from 1: "
            "if the tool that wrote them counts from 0, take --zero-based"
        )
    return source


def is_voc(path: Path) -> bool:
    """Whether an XML file is a VOC annotation."""
    return root_of(path) == "annotation"


def root_of(path: Path) -> str | None:
    """The name of the first element of an XML file; None if it is none."""
    try:
        with path.open("rb") as file:
            for _, element in ElementTree.iterparse(file, events=("start",)):
                return str(element.tag)
    except (ParseError, ValueError, LookupError, OSError):
        return None
    return None


def _image_of(filename: str, path: Path, images: ImageFiles) -> Path:
    """The image of an annotation: <filename>, unless another image is named after the annotation file."""
    if Path(filename.replace("\\", "/")).stem != path.stem:
        try:
            return images.find(path.stem, path.parent)
        except LookupError:
            pass
    return images.find(filename, path.parent)


def _corners(corners: tuple[str, str, str, str] | None, one_based: bool) -> Cleaner:
    return lambda size: clean_box(corners, size, one_based)


def _sets(root: Path, index: dict[str, int]) -> dict[str, list[int]]:
    folder = root / "ImageSets" / "Main"
    names = sorted(path.stem for path in folder.glob("*.txt"))
    sets = {}
    for name in names:
        if any(name.endswith(f"_{other}") for other in names):
            continue  # "cat_train": the same images, for one class
        try:
            sets[name] = [index[i] for i in dict.fromkeys(read_image_set(root, name)) if i in index]
        except (OSError, ValueError):  # no complete VOC folder: its lists are no sets
            continue
    return sets


def read_coco(files: Sequence[Path], root: Path, images: ImageFiles) -> Source:
    """Read JSON files of instances; each is a set, if there are several.

    Raises:
        ValueError: a file is not readable as JSON, or lacks one of COCO's lists.
    """
    found = Collector("coco", root, crowds=True)
    for path in files:
        parsed = parse_instances(path, lambda name, path=path: _found(images, name, path))  # type: ignore[misc]
        for problem in parsed.problems:
            found.lose(path, "entry", problem.removeprefix(f"{path}, "), int(", annotations[" in problem))
        names = parsed.categories
        found.declare(path, names.values())
        for image in parsed.images:
            if not image.path.is_file():
                found.lose(path, "no image", f"no image {image.path.name!r} in {images.root}", len(image.objects))
                continue
            objects = [LabelledObject(names[o.category_id], _bbox(o.bbox), o.crowd) for o in image.objects]
            found.add(path, image.path, image.size, objects, _set_name(path, len(files)))
    return found.finish()


def _found(images: ImageFiles, name: str, path: Path) -> Path:
    try:
        return images.find(name, path.parent)
    except LookupError:
        return images.root / "-" / name.replace("\\", "/").rpartition("/")[2]


def read_shards(files: Sequence[Path], root: Path) -> Source:
    """Read image sets in tar files, by their descriptions; what is in several of them comes over once.

    Raises:
        FileNotFoundError, ValueError: a description cannot be read, or a tar file is missing or not as long as it says.
    """
    described = {file: read_description(file) for file in files}
    found = Collector("shards", root, crowds=any(each.crowds for each in described.values()))
    places: dict[tuple[str, bytes], Path] = {}  # of images, by their ids and bytes
    for file, each in described.items():
        found.declare(file, each.classes)
        for shard in each.shards:
            try:
                for sample in samples(shard):
                    try:
                        known = known_of(shard, sample)
                    except ValueError as error:
                        found.lose(shard, "entry", said(error))
                        continue
                    named = Path(known.file).suffix.lower() == sample.image.suffix.lower()
                    place = sample.image.with_name(Path(known.file).name) if named else sample.image
                    place = places.setdefault((known.image_id, hashlib.sha256(read_file(place)).digest()), place)
                    objects = [LabelledObject(name, _edges(edges), hard) for edges, name, hard in known.objects]
                    text = shard / f"{sample.key}.json"
                    found.add(text, place, known.size, objects, file.name.removesuffix(DESCRIPTION))
            except ValueError as error:
                found.lose(shard, "unreadable labels", said(error))
    return found.finish()


def _edges(corners: object) -> Cleaner:
    def clean(size: Size) -> tuple[Box | None, list[Note]]:
        return clean_written(corners, size)

    return clean


def _bbox(bbox: object) -> Cleaner:
    def clean(size: Size) -> tuple[Box | None, list[Note]]:
        return clean_bbox(bbox, size)

    return clean


def _set_name(path: Path, files: int) -> str | None:
    """instances_train2017.json is of "train2017", train/_annotations.coco.json of "train"."""
    name = path.stem.removeprefix("instances_")
    if name == path.stem and path.stem.startswith("_"):
        return path.parent.name
    return name if name != path.stem or files > 1 else None
