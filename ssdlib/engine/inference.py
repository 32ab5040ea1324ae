"""Inference: detection on a whole data set, by one process or by several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssdlib.data.transforms import Target, model_input
from ssdlib.detection import Detection, detect
from ssdlib.engine import processes
from ssdlib.engine.device_detection import detect_later
from ssdlib.engine.loading import DetectionDataset, Targets
from ssdlib.engine.transfers import sent
from ssdlib.model import SSD, require_finite


class DatasetDetections(NamedTuple):
    """What is found in a data set and what is there, one dict an image, on the CPU and in pixels."""

    detections: list[Detection]
    targets: list[Target]


class _Sized(NamedTuple):
    """Images as the network takes them, their untouched targets in pixels, and their (w, h, w, h): one, or a batch."""

    image: Tensor
    target: Any
    size: Tensor
    learned: Any  # the target as the input transform gives it, fractional


class _Result(NamedTuple):
    """What is found in one image, and what is there."""

    detection: Detection
    target: Target


@torch.no_grad()
def detect_dataset(
    model: SSD,
    dataset: DetectionDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = True,
    each_batch: Callable[[Tensor, Tensor, list[Target]], None] | None = None,
    **options: Any,
) -> DatasetDetections:
    """Detect objects in every image of a data set.

    Under `torchrun` each process takes its share of the images, and all of them get the whole result.

    Args:
        model: on any device; it is put into evaluation mode.
        dataset: images with targets in pixels.
        batch_size: images at a time.
        workers: processes that load images.
        progress: show a bar on stderr.
        each_batch: is called with the offsets and logits of a batch, and its targets as in training, on the CPU.
        options: those of `ssdlib.detection.detect`.

    Returns:
        Detections and targets: what `ssdlib.metrics.evaluate` takes.

    Raises:
        FloatingPointError: if the network's predictions are not finite.
    """
    model.eval()
    device = model.priors.device
    results: list[_Result] = []
    loader = DataLoader(
        _WithSize(dataset, model.recipe.image_size),
        batch_size=batch_size,
        sampler=processes.share_of(len(dataset)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        collate_fn=_batch_of,
    )

    def collect(batch: _Sized, detections: Callable[[], list[Detection]]) -> None:
        for target, size, detection in zip(batch.target, batch.size, detections(), strict=True):
            detection = {key: value.cpu() for key, value in detection.items()}
            detection["boxes"] = detection["boxes"] * size
            results.append(_Result(detection, target))

    begun: tuple[_Sized, Callable[[], list[Detection]]] | None = None
    for batch in tqdm(loader, "detecting", leave=False, disable=not progress or processes.rank() > 0):
        offsets, logits = model(batch.image.to(device, non_blocking=True))
        detections = _begin(model, offsets, logits, **options)
        if each_batch is not None:
            each_batch(offsets, logits, batch.learned)
        if begun is not None:  # a GPU has the next batch by now
            collect(*begun)
        begun = batch, detections
    if begun is not None:
        collect(*begun)
    results = processes.gather(results, len(dataset))
    return DatasetDetections([result.detection for result in results], [result.target for result in results])


def _begin(model: SSD, offsets: Tensor, logits: Tensor, **options: Any) -> Callable[[], list[Detection]]:
    """Detect; or, on a GPU, begin to, and look at the result when the function that comes back is called.

    Raises:
        FloatingPointError: if the predictions are not finite; on a GPU the function raises it.
    """
    options = {"activation": model.activation, **options}
    if offsets.device.type not in processes.ON_DEVICE:
        require_finite(offsets, logits)
        found = detect(offsets, logits, model.priors, **options)
        return lambda: found
    detections = detect_later(offsets, logits, model.priors, **options)
    # Not finite if one of them is not: 0 times a NaN or an infinite number is NaN. So the message is the same.
    health = sent(*((0 * each.float()).sum() for each in (offsets, logits)))

    def checked() -> list[Detection]:
        offsets_sum, logits_sum = health()
        require_finite(offsets_sum, logits_sum)
        return detections()

    return checked


def _batch_of(images: list[_Sized]) -> _Sized:
    pixels, targets, sizes, learned = zip(*images, strict=True)
    return _Sized(torch.stack(pixels), Targets(targets), torch.stack(sizes), Targets(learned))


class _WithSize(Dataset[_Sized]):
    """The images of a data set as `_Sized`."""

    def __init__(self, dataset: DetectionDataset, size: int) -> None:
        self.dataset, self.transform = dataset, model_input(size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Sized:
        image, target = self.dataset[index]
        height, width = image.shape[-2:]
        resized, learned = self.transform(image, target)
        return _Sized(resized, target, torch.tensor([width, height, width, height]), learned)
