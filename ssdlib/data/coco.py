"""Data sets in the COCO layout: `annotations/instances_<image set>.json` and a folder of images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdlib.data.annotated import (
    AnnotatedDataset,
    Transform,
    Unknown,
    annotated_image,
    check_classes,
    labels_of,
    oriented,
)
from ssdlib.data.annotations import Box, Finding, Note, clean_box, plainly_inside
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.index import Contents, indexed
from ssdlib.data.instances import NUMBERS, CocoImage, Instances, parse_instances
from ssdlib.data.names import check_file_name, shown


class CocoDataset(AnnotatedDataset):
    """Images and their objects, read from a folder in the COCO layout.

    The interface, and the rules by which boxes are repaired or refused, are those of
    :class:`ssdlib.data.VOCDataset`. What differs:

    - A `bbox` is [x, y, width, height] in continuous pixel edges from 0, so nothing is subtracted.
    - Category ids may have gaps; labels 1..C follow the order of the ids.
    - `iscrowd` marks a box around many objects. It becomes `difficult`: for evaluation it neither has to be found nor
      makes a detection wrong. It is no object to learn: leave such boxes out of training with `keep_difficult=False`.
    - Images without annotations belong to the set; `ids` are the image ids as text, in the order of the file.
    - The index of a finding counts the file's list of annotations, from 0.

    Args:
        root: folder that holds `annotations/instances_<image_set>.json`, and the images in `<image_set>/` or, if there
            is no such folder, in `images/`.
        image_set: such as "val2017".
        classes: names of the object classes; the label is the index + 1. If not given, those of the file.
        keep_difficult: keep crowds.
        unknown: "error" raises on an object whose class is not in `classes`; "ignore" refuses it, with a finding.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.

    Raises:
        FileNotFoundError: the file of annotations, the folder of images, or an image is missing.
        ValueError: the file is not readable as JSON or lacks a list; an id is missing, stands twice or is unknown; a
            file name leads out of the folder; a name is empty or has a control character; an image header cannot be
            read; the class list has duplicates; or a class is unknown. The message names the file and the value.
    """

    crowds = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_set: str,
        classes: Sequence[str] | None = None,
        *,
        keep_difficult: bool = True,
        unknown: Unknown = "error",
        transform: Transform | None = None,
    ) -> None:
        self.root = Path(root)
        self.image_set = image_set
        file, folder = instances_path(self.root, image_set), _image_folder(self.root, image_set)
        given = None if classes is None else check_classes(classes)

        def read() -> Contents:
            found = read_instances(self.root, image_set)
            if found.problems:
                more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
                raise ValueError(f"{found.problems[0]}{more}")
            labels = labels_of(tuple(found.categories.values()) if given is None else given)
            images = ImageTable.of(coco_image(file, image, found.categories, labels, unknown) for image in found.images)
            return Contents(images, tuple(labels), [file])

        asked = {"layout": "coco", "folder": folder and folder.name, "classes": given, "unknown": unknown}
        images, names = indexed(self.root, image_set, asked, read)
        images = images if keep_difficult else images.without_difficult()
        super().__init__(images, names, transform=transform)
        self._warn_of_findings(f"{self.root}, set {image_set!r}")


def coco_set_names(root: Path) -> list[str]:
    """Names of the image sets of a folder, sorted; none if it is not in the COCO layout."""
    return sorted(p.stem.removeprefix("instances_") for p in (root / "annotations").glob("instances_*.json"))


def instances_path(root: Path, image_set: str) -> Path:
    """File of annotations of an image set."""
    return root / "annotations" / f"instances_{image_set}.json"


def read_instances(root: Path, image_set: str) -> Instances:
    """Parse a file of annotations; what is wrong with single entries is collected in `problems`.

    Raises:
        FileNotFoundError: the file or the folder of images is missing.
        ValueError: the file is not readable as JSON, or lacks one of its lists.
    """
    names = coco_set_names(root)
    if image_set not in names:
        raise FileNotFoundError(f"{root} has no image set {image_set!r}; it has {', '.join(names) or 'none'}")
    file = instances_path(root, image_set)
    folder = _image_folder(root, image_set)
    if folder is None:
        raise FileNotFoundError(f"{file}: no folder of images: neither {root / image_set} nor {root / 'images'}")
    return parse_instances(file, lambda name: folder / check_file_name(name, "the file name"))


def _image_folder(root: Path, image_set: str) -> Path | None:
    return next((root / name for name in (image_set, "images") if (root / name).is_dir()), None)


def coco_image(
    file: Path, image: CocoImage, categories: Mapping[int, str], labels: Mapping[str, int], unknown: Unknown
) -> AnnotatedImage:
    """Look at the image and clean its boxes; `labels` are those of the classes. Raises as :class:`CocoDataset` does."""
    short = f"{file.parent.name}/{file.name}"
    source = f"the size of the image {image.image_id!r}"
    try:
        size, upright, findings = oriented(short, image.path, image.size, source)
    except (FileNotFoundError, ValueError) as error:
        if image.path.is_file():
            raise
        missing = f"{file}: the image with the id {image.image_id!r} is missing: {image.path}"
        raise FileNotFoundError(missing) from error
    objects = []
    for item in image.objects:
        name = categories[item.category_id]
        if name not in labels:
            if unknown == "error":
                raise ValueError(f"{file}, annotations[{item.position}]: class {name!r} is not among {list(labels)}")
            findings.append(Finding(short, item.position, "unknown class", "refused", name))
            continue
        box, notes = clean_bbox(item.bbox, size)
        findings.extend(Finding(short, item.position, *note) for note in notes)
        if box is not None:
            objects.append((box, labels[name], item.crowd))
    return annotated_image(str(image.image_id), image.path, size, upright, objects, findings)


def clean_bbox(bbox: Any, size: tuple[int, int]) -> tuple[Box | None, list[Note]]:
    """Apply the rules of :func:`ssdlib.data.annotations.clean_box` to [x, y, width, height] in pixel edges.

    A width or height below 0 counts as swapped corners. Returns the box in corners, or None, and the notes.
    """
    if bbox is None or bbox == []:
        return None, [Note("no box", "refused", f"bbox {shown(bbox)}")]
    if not isinstance(bbox, list) or len(bbox) != 4 or not {*map(type, bbox)} <= NUMBERS:
        return None, [Note("not a number", "refused", f"bbox {shown(bbox)}")]
    x, y, width, height = bbox
    if 0 <= x <= size[0] and 0 <= y <= size[1] and 0 < width <= size[0] and 0 < height <= size[1]:
        box = plainly_inside(x, y, x + width, y + height, size)
        if box is not None:
            return box, []
    x, y, width, height = (float(str(value)) for value in bbox)  # by way of text: a huge whole number is infinite
    corners = (str(x), str(y), str(x + width), str(y + height))
    return clean_box(corners, size, one_based=False)
