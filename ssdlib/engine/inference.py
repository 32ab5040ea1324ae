"""Inference: detection on a whole data set, by one process or by several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ssdlib.data.transforms import Target, model_input
from ssdlib.detection import Detection, detect
from ssdlib.engine import processes
from ssdlib.engine.loading import DetectionDataset
from ssdlib.model import SSD


@torch.no_grad()
def detect_dataset(
    model: SSD,
    dataset: DetectionDataset,
    *,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = True,
    **options: Any,
) -> tuple[list[Detection], list[Target]]:
    """Detect objects in every image of a data set.

    Under `torchrun` each process takes its share of the images, and all of them get the whole result.

    Args:
        model: on any device; it is put into evaluation mode.
        dataset: images with targets in pixels.
        batch_size: images at a time.
        workers: processes that load images.
        progress: show a bar on stderr.
        options: those of `ssdlib.detection.detect`.

    Returns:
        Detections and targets, one dict an image, both on the CPU and in pixels: what `ssdlib.metrics.evaluate` takes.
    """
    model.eval()
    device = model.priors.device
    results: list[tuple[Detection, Target]] = []
    loader = DataLoader(
        _WithSize(dataset, model.recipe.image_size),
        batch_size=batch_size,
        sampler=processes.share_of(len(dataset)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        collate_fn=list,
    )
    for batch in tqdm(loader, "detecting", leave=False, disable=not progress or processes.rank() > 0):
        images = torch.stack([image for image, _, _ in batch]).to(device)
        offsets, logits = model(images)
        found = detect(offsets, logits, model.priors, **options)
        for (_, target, size), detection in zip(batch, found, strict=True):
            detection = {key: value.cpu() for key, value in detection.items()}
            detection["boxes"] = detection["boxes"] * size
            results.append((detection, target))
    results = processes.gather(results, len(dataset))
    return [detection for detection, _ in results], [target for _, target in results]


class _WithSize(Dataset[tuple[Tensor, Target, Tensor]]):
    """Network input, untouched target in pixels, and (w, h, w, h) of the image."""

    def __init__(self, dataset: DetectionDataset, size: int) -> None:
        self.dataset, self.transform = dataset, model_input(size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target, Tensor]:
        image, target = self.dataset[index]
        height, width = image.shape[-2:]
        return self.transform(image, target)[0], target, torch.tensor([width, height, width, height])
