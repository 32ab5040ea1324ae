"""Part d: can the loader keep up? By workers, from files and from memory, augmented there and on the device."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peer_data
import peer_networks
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import io

from gpu_parts.work import Asked, Figures, Photographs, Target, seconds_of, steps_of_a_run, train_on
from ssdlib.data import load_image
from ssdlib.data.transforms import Augmentation
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.loading import DetectionDataset, collate
from ssdlib.engine.presets import PRESETS
from ssdlib.engine.run import timed as timed_batches
from ssdlib.engine.run_folder import Progress

WORKERS = (16, 8, 4, 2, 1)
OURS, THEIRS = "ssdlib", "torchvision"
TARGETS = {"waiting": "about 0: the share of the time in which no image was ready"}


class TheirImages:
    """The same images through torchvision's own augmentation."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset, self.transform = dataset, peer_data.reference_augmentation()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.dataset[index % len(self.dataset)]
        boxes = peer_data.tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=tuple(image.shape[-2:]))
        image, varied = self.transform(peer_data.tv_tensors.Image(image), {"boxes": boxes, "labels": target["labels"]})
        return image, varied


def in_pixels(batch: Any) -> Any:
    """A batch of torchvision's augmentation, whose boxes are plain tensors in pixels of the input."""
    images, targets = collate(batch)
    return images, [{**each, "boxes": each["boxes"].as_subclass(Tensor)} for each in targets]


def their_steps(
    name: str, dataset: Any, config: TrainConfig, device: torch.device, workers: int
) -> tuple[Iterator[float], Progress]:
    """The steps of torchvision's reference training, endless."""
    model = copy.deepcopy(peer_networks.detector(21, name)).train().to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    loader = DataLoader(
        TheirImages(dataset),  # type: ignore[arg-type]
        min(config.batch_size, len(dataset)),
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=in_pixels,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    waited = Progress()

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    def steps() -> Iterator[float]:
        for pixels, targets in timed_batches(endless(), waited):
            images = list(pixels.to(device, non_blocking=True))
            targets = [{"boxes": t["boxes"].to(device), "labels": t["labels"].to(device)} for t in targets]
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    return steps(), waited


def wanted(small: bool, most: int) -> list[dict[str, Any]]:
    """Torchvision's rows are in the middle: its step waits for the device, whatever the loader does."""
    workers = [0] if small else [count for count in WORKERS if count <= most]
    ours = [
        {"side": OURS, "precision": "bfloat16", "source": source, "augmented": place, "workers": count}
        for count in workers
        for source in ("JPEG files", "memory")
        for place in ("device", "loader")
    ]
    theirs = [
        {"side": THEIRS, "precision": precision, "source": "memory", "augmented": "loader", "workers": workers[0]}
        for precision in ("bfloat16", "float32")
    ]
    if small:  # where bfloat16 is only imitated it takes ten times as long, and a test learns nothing from that
        return [{**row, "precision": "float32"} for row in (*ours, theirs[0])]
    return ours[:4] + theirs + ours[4:]


def decoding(files: Sequence[Path], device: torch.device, repeats: int) -> dict[str, Any]:
    """Images a second that one core decodes, and that the device decodes in one call, and how far the two differ.

    The device's is torchvision's decoder. Runs have no option for it: torchvision says since 0.29 that it will go, for
    that of TorchCodec. What is measured here says whether that is worth another package.
    """
    contents = [torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8) for file in files]

    def on_device() -> list[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            decoded: list[Tensor] = io.decode_jpeg(contents, mode=io.ImageReadMode.RGB, device=device)
        return decoded

    processor = len(files) / seconds_of(lambda: [load_image(file) for file in files], torch.device("cpu"), repeats)
    measured: dict[str, Any] = {"images": len(files), "processor_images_per_second": round(processor, 1)}
    try:
        pairs = zip(on_device(), map(load_image, files), strict=True)
        apart = max(int((ours.cpu().int() - wanted.int()).abs().max()) for ours, wanted in pairs)
        seconds = seconds_of(on_device, device, repeats)
    except (RuntimeError, AttributeError) as error:  # not there, or not for this device
        return {**measured, "error": str(error).splitlines()[0]}
    return {**measured, "device_images_per_second": round(len(files) / seconds, 1), "levels_apart": apart}


def loading(asked: Asked) -> Figures:
    """SSD300 on VGG-16 at batch 32, by the steps of a run."""
    steps, seconds, warm_up = (2, 0.0, 1) if asked.small else (150, 10.0, 15)
    batch = 2 if asked.small else 32
    figures = Figures(asked, "loader", TARGETS, {"steps": steps, "seconds": seconds, "batch": batch})
    config = replace(PRESETS["tiny" if asked.small else "paper"], iterations=10**6, batch_size=batch)
    config = replace(config, augmentation=Augmentation(), pretrained=False, learning_rate=1e-5)
    name = "ssdlite320_mobilenet_v3_large" if asked.small else "ssd300_vgg16"
    with tempfile.TemporaryDirectory() as folder:
        files = Photographs(Path(folder), *((4, 1) if asked.small else (512, 8)))
        memory = copy.copy(files)
        memory.cache_images()
        if "decoding" not in figures.record:
            figures.record["decoding"] = decoding(files.files[:batch], asked.device, 2 if asked.small else 20)
            figures.write()

        def step(side: str, precision: str, source: str, augmented: str, workers: int) -> dict[str, Any]:
            dataset = memory if source == "memory" else files
            chosen = replace(config, precision=precision, augment_on=augmented)
            if side == OURS:
                loop, waited = steps_of_a_run(chosen, dataset, asked.device, workers)
            else:
                loop, waited = their_steps(name, dataset, chosen, asked.device, workers)
            return train_on(loop, waited, min(batch, len(dataset)), asked.device, (steps, seconds), warm_up)

        figures.measure(wanted(asked.small, max(1, asked.workers)), step)
    return figures
