"""What the data sets of all layouts share: images with their cleaned objects, and access to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ssdlib.data.annotations import Finding, Note, summarize
from ssdlib.data.columns import AnnotatedImage, ImageTable
from ssdlib.data.images import load_image, read_header
from ssdlib.data.names import check_name
from ssdlib.data.threads import in_threads

Target = dict[str, Tensor]
Transform = Callable[[Tensor, Target], tuple[Any, Any]]
Unknown = Literal["error", "ignore"]
ALL = "all"  # the set of all images, of which the others are parts


class DataWarning(UserWarning):
    """Objects of a data set were repaired or refused."""


class AnnotatedDataset(Dataset[Any]):
    """Images and their objects; the data sets of the single layouts are made from files by its subclasses.

    `dataset[i]` is `(image, target)`: a uint8 RGB tensor (3, H, W), and `{"boxes": (M, 4) float32 xyxy in
    pixels, "labels": (M,) int64, "difficult": (M,) bool}`; M = 0 is legal. Images are decoded when asked for.

    Args:
        images: the images, in order.
        classes: names of the object classes; the label is the index + 1.
        transform: called as `transform(image, target)`, returns what `dataset[i]` returns.
    """

    crowds = False  # whether its difficult objects are boxes around many objects, which are nothing to learn

    def __init__(
        self, images: Sequence[AnnotatedImage], classes: tuple[str, ...], *, transform: Transform | None = None
    ) -> None:
        self._images = ImageTable.of(images)
        self.classes = classes
        self.transform = transform
        self._pixels: Tensor | None = None  # of all decoded images, once they are cached
        self.findings = tuple(
            finding for image in sorted(self._images.findings) for finding in self._images.findings[image]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        known = self._images[index]
        image = load_image(known.image_path, known.upright) if self._pixels is None else self._cached(index).clone()
        target = self.target(index)
        return (image, target) if self.transform is None else self.transform(image, target)

    @property
    def ids(self) -> list[str]:
        """Ids of the images, in order."""
        return list(self._images.ids)

    def image_path(self, index: int) -> Path:
        """File of an image."""
        return Path(self._images.paths[index])

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of an image in pixels, without decoding it."""
        return self._images.size(index)

    def target(self, index: int) -> Target:
        """Target of an image in pixels, before the transform and without decoding the image."""
        image = self._images[index]
        return {
            "boxes": torch.from_numpy(image.boxes.copy()),
            "labels": torch.from_numpy(image.labels.copy()),
            "difficult": torch.from_numpy(image.difficult.copy()),
        }

    def smaller_than_a_pixel(self, side: int) -> int:
        """How many objects are narrower or lower than a pixel once their image is resized to `side` x `side` pixels.

        :func:`ssdlib.data.transforms.model_input` leaves them out.
        """
        return self._images.smaller_than_a_pixel(side)

    @property
    def decoded_bytes(self) -> int:
        """Memory that all images take when they are decoded: a byte for each colour of each pixel."""
        return int(3 * self._images.sizes.astype(np.int64).prod(axis=1).sum())

    def cache_images(self, progress: bool = True) -> None:
        """Decode all images now and keep them in memory, `decoded_bytes` of it; samples stay the same.

        The workers of a DataLoader share this memory with the process that starts them. Raises as `dataset[i]` does.
        """
        # One tensor for all: a process that is not forked gets each tensor through a file descriptor of its own.
        self._pixels = torch.empty(self.decoded_bytes, dtype=torch.uint8)
        self._starts = [0, *np.cumsum(3 * self._images.sizes.astype(np.int64).prod(axis=1)).tolist()]

        def decode(index: int) -> None:
            image = self._images[index]
            self._cached(index).copy_(load_image(image.image_path, image.upright))

        size = tqdm.format_sizeof(self.decoded_bytes, "B")
        try:
            for _ in in_threads(decode, range(len(self)), f"decoding into {size} of memory", progress):
                pass
        except BaseException:
            self._pixels = None
            raise

    def _cached(self, index: int) -> Tensor:
        """View (3, H, W) of an image in the cache."""
        index = range(len(self))[index]
        width, height = self._images.size(index)
        assert self._pixels is not None
        return self._pixels[self._starts[index] : self._starts[index + 1]].view(3, height, width)

    def _warn_of_findings(self, name: str) -> None:
        """One warning for all findings, at the line that made the data set."""
        if self.findings:
            warnings.warn(f"{name}: {summarize(self.findings)}; see dataset.findings", DataWarning, stacklevel=3)


def annotated_image(
    image_id: str,
    image_path: Path,
    size: tuple[int, int],
    upright: bool,
    objects: Sequence[tuple[tuple[float, float, float, float], int, bool]],
    findings: Sequence[Finding],
) -> AnnotatedImage:
    """An image with its objects (box in pixel edges, label, difficult)."""
    boxes, labels, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return AnnotatedImage(
        image_id,
        image_path,
        size,
        upright,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels, dtype=np.int64),
        np.array(difficult, dtype=np.bool_),
        tuple(findings),
    )


def oriented(
    file: str, image_path: Path, declared: tuple[int, int] | None, source: str
) -> tuple[tuple[int, int], bool, list[Finding]]:
    """Decide by the declared size whether an image is turned upright; return its size then, the decision, and findings.

    `source` says in a finding where the size was declared, such as `<size>`.
    """
    header = read_header(image_path)
    upright = header.rotated and not (declared == header.stored != header.upright)
    size = header.upright if upright else header.stored
    if declared is None or declared == size:
        return size, upright, []
    detail = f"{source} is {declared[0]} x {declared[1]}, {image_path.name} is {size[0]} x {size[1]}"
    return size, upright, [Finding(file, None, *Note("wrong size", "repaired", detail))]


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as a tuple.

    Raises:
        ValueError: on duplicates, on one string in place of a list, or on a name that
            :func:`ssdlib.data.names.check_name` refuses.
    """
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, got the string {classes!r}")
    for name in classes:
        check_name(name, "the class")
    duplicates = sorted({name for name in classes if list(classes).count(name) > 1})
    if duplicates:
        raise ValueError(f"classes has duplicates: {', '.join(duplicates)}")
    return tuple(classes)


def labels_of(classes: Sequence[str]) -> dict[str, int]:
    """The label of each class, from 1: 0 is the background."""
    return {name: label for label, name in enumerate(classes, start=1)}
