"""The detector as a product uses it: an image in any form in, boxes in pixels with names of classes out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssdlib.deploy.found import Found, labels_of
from ssdlib.deploy.inputs import images_in, pixels_of
from ssdlib.deploy.tiling import crops, merged, whole_objects
from ssdlib.detection import Detection
from ssdlib.model import SSD
from ssdlib.zoo import open_model


class Result(NamedTuple):
    """What came of one image of many: its pixels and what was found, or the error that names it."""

    source: Any
    pixels: Tensor | None  # uint8 (3, H, W), upright
    found: Found | None
    error: Exception | None


class Detector:
    """A trained detector, ready to be called.

    Args:
        source: folder of a run, a checkpoint, a name of `ssd models`, or an SSD.
        device: where the network computes; None leaves an SSD where it is, and else takes a GPU if there is one.
        min_score: the least score that is reported.
        max_overlap: two objects of one class overlap by at most this IoU.
        top_k: at most so many objects an image, after the classes were chosen.
        classes: the classes that are reported; by default all.
        without: classes that are not.
        tiles: side in pixels of overlapping windows, which are looked at besides the whole image: for small objects.

    Raises:
        FileNotFoundError, ValueError: as `open_model`; or a threshold is out of range, or there is no such class.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | SSD,
        *,
        device: str | torch.device | None = None,
        min_score: float = 0.5,
        max_overlap: float = 0.45,
        top_k: int = 200,
        classes: Collection[str] | None = None,
        without: Collection[str] = (),
        tiles: int | None = None,
    ) -> None:
        if not (0 <= min_score <= 1 and 0 <= max_overlap <= 1 and top_k >= 1 and (tiles is None or tiles >= 16)):
            raise ValueError(
                "min_score and max_overlap must be in 0..1, top_k at least 1, and tiles at least 16 pixels; "
                f"got {min_score}, {max_overlap}, {top_k}, {tiles}"
            )
        if isinstance(source, SSD):
            self.model = source if device is None else source.to(device)
        else:
            self.model = open_model(source).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.min_score, self.max_overlap, self.top_k, self.tiles = min_score, max_overlap, top_k, tiles
        all_labels = set(range(1, self.model.num_classes))
        chosen = all_labels if classes is None else labels_of(classes, self.model.classes)
        self._labels = torch.tensor(sorted(chosen - labels_of(without, self.model.classes)), dtype=torch.int64)
        # The best of the classes that were chosen, not of all: so the others go out first.
        self._candidates = top_k if len(self._labels) == len(all_labels) else max(top_k, len(self.model.priors))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 1, 2, ..."""
        return self.model.classes

    def __call__(self, images: Any, batch_size: int = 8) -> Any:
        """Detect objects.

        Args:
            images: one image in any form that `ssdlib.deploy.inputs.pixels_of` takes, or a batch: a list of such, an
                array (N, H, W, 3), or a tensor (N, 3, H, W).
            batch_size: images that the network is given at a time.

        Returns:
            A `Found`, or for a batch a list of them.

        Raises:
            FileNotFoundError, ValueError: if one is no image; `each` goes on with the others.
            FloatingPointError: if the network's predictions are not finite.
        """
        batch = images_in(images)
        results = []
        for result in self.each([images] if batch is None else batch, batch_size):
            if result.error is not None:
                raise result.error
            results.append(result.found)
        return results[0] if batch is None else results

    def each(self, images: Iterable[Any], batch_size: int = 8) -> Iterator[Result]:
        """Detect objects in many images, one after the other, and go on after one that cannot be read.

        Args:
            images: as for a call; as few as a batch are held in memory at a time.
            batch_size: images that the network is given at a time.

        Yields:
            A `Result` an image, in order.
        """
        waiting: list[Result] = []
        for source in images:
            try:
                waiting.append(Result(source, pixels_of(source), None, None))
            except (OSError, ValueError) as error:
                waiting.append(Result(source, None, None, error))
            if len(waiting) == batch_size:
                yield from self._judged(waiting)
                waiting = []
        yield from self._judged(waiting)

    def _judged(self, batch: list[Result]) -> Iterator[Result]:
        images = [result.pixels for result in batch if result.pixels is not None]
        found = iter(self._plain(images) if self.tiles is None else [self._tiled(image) for image in images])
        for result in batch:
            yield result if result.pixels is None else result._replace(found=next(found))

    def _plain(self, images: list[Tensor]) -> list[Found]:
        return [self._found(image, found) for image, found in zip(images, self._predict(images), strict=True)]

    def _tiled(self, image: Tensor, batch_size: int = 8) -> Found:
        assert self.tiles is not None
        size = (image.shape[2], image.shape[1])
        places, views = crops(image, self.tiles)
        parts = []
        for start in range(0, len(views), batch_size):
            found = self._predict(views[start : start + batch_size])
            parts += [whole_objects(each, place, size) for each, place in zip(found, places[start:], strict=False)]
        return self._found(image, merged(parts, self.max_overlap, self._candidates))

    def _predict(self, images: list[Tensor]) -> list[Detection]:
        options: dict[str, Any] = {"max_overlap": self.max_overlap, "top_k": self._candidates}
        return self.model.predict(images, min_score=self.min_score, **options)

    def _found(self, image: Tensor, detection: Detection) -> Found:
        found = Found(**detection, classes=self.model.classes, size=(image.shape[2], image.shape[1]))
        return found.keep(torch.isin(found.labels, self._labels)).keep(slice(self.top_k))
