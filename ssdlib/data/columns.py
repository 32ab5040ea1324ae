"""Images and their objects in columns, which take a hundredth of the objects that Python would make of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ssdlib.data.annotations import Finding


class AnnotatedImage(NamedTuple):
    """One image and its cleaned objects. Arrays, not tensors: they travel to worker processes by value."""

    image_id: str
    image_path: Path
    size: tuple[int, int]  # (width, height) of the image as it is returned
    upright: bool  # the EXIF rotation is applied
    boxes: npt.NDArray[np.float32]  # (M, 4) pixel edges
    labels: npt.NDArray[np.int64]  # (M,)
    difficult: npt.NDArray[np.bool_]  # (M,)
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ImageTable(Sequence[AnnotatedImage]):
    """N images with M objects in all; `table[i]` is made when it is asked for, and must not be written to.

    Attributes:
        ids, paths: N texts.
        sizes: (N, 2) width and height of each image as it is returned.
        upright: (N,) whether the EXIF rotation is applied.
        starts: (N + 1,) where the objects of each image begin, and the last ones end.
        boxes, labels, difficult: (M, 4), (M,), (M,).
        findings: by the number of the image.
    """

    ids: list[str]
    paths: list[str]
    sizes: npt.NDArray[np.int32]
    upright: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]
    findings: Mapping[int, tuple[Finding, ...]]

    @staticmethod
    def of(images: Iterable[AnnotatedImage]) -> ImageTable:
        """The table of images, which are asked for one by one and not kept."""
        if isinstance(images, ImageTable):
            return images
        ids: list[str] = []
        paths: list[str] = []
        findings: dict[int, tuple[Finding, ...]] = {}
        sizes, upright, counts = array("i"), bytearray(), array("i")
        boxes, labels, difficult = bytearray(), bytearray(), bytearray()
        for image in images:
            if image.findings:
                findings[len(ids)] = image.findings
            ids.append(image.image_id)
            paths.append(str(image.image_path))
            sizes.extend(image.size)
            upright.append(image.upright)
            counts.append(len(image.labels))
            boxes += image.boxes.tobytes()
            labels += image.labels.tobytes()
            difficult += image.difficult.tobytes()
        return ImageTable(
            ids,
            paths,
            np.array(sizes, dtype=np.int32).reshape(-1, 2),
            np.frombuffer(bytes(upright), dtype=np.bool_),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            np.frombuffer(bytes(boxes), dtype=np.float32).reshape(-1, 4),
            np.frombuffer(bytes(labels), dtype=np.int64),
            np.frombuffer(bytes(difficult), dtype=np.bool_),
            findings,
        )

    @staticmethod
    def joined(tables: Sequence[ImageTable]) -> ImageTable:
        """The images of several tables, one after another."""
        counts = np.concatenate([np.diff(table.starts) for table in tables])
        findings: dict[int, tuple[Finding, ...]] = {}
        first = 0  # the number of a table's first image
        for table in tables:
            findings.update((first + number, found) for number, found in table.findings.items())
            first += len(table)
        columns = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in ("sizes", "upright", "boxes", "labels", "difficult")
        }
        return ImageTable(
            ids=[image_id for table in tables for image_id in table.ids],
            paths=[path for table in tables for path in table.paths],
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            findings=findings,
            **columns,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, index: slice) -> ImageTable: ...
    def __getitem__(self, index: int | slice) -> AnnotatedImage | ImageTable:
        if isinstance(index, slice):
            return ImageTable.of(self[i] for i in range(len(self))[index])
        index = range(len(self))[index]  # counts from the end if it is negative, and raises IndexError
        part = slice(self.starts[index], self.starts[index + 1])
        return AnnotatedImage(
            self.ids[index],
            Path(self.paths[index]),
            self.size(index),
            bool(self.upright[index]),
            self.boxes[part],
            self.labels[part],
            self.difficult[part],
            self.findings.get(index, ()),
        )

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of an image."""
        width, height = self.sizes[index].tolist()
        return width, height

    def without_difficult(self) -> ImageTable:
        """The same images without their difficult objects."""
        keep = ~self.difficult
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])  # how many of the first m are kept
        return replace(
            self,
            starts=before[self.starts].astype(np.int64),
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            difficult=self.difficult[keep],
        )

    def smaller_than_a_pixel(self, side: int) -> int:
        """How many objects are narrower or lower than a pixel once their image is resized to `side` x `side`."""
        sizes = np.repeat(self.sizes, np.diff(self.starts), axis=0)  # (M, 2) of the image of each object
        extent = (self.boxes[:, 2:] - self.boxes[:, :2]) * (side / sizes)
        return int((extent < 1).any(axis=1).sum())
