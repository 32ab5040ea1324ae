"""TensorBoard: the course of a run as curves, and images with what the model finds in them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torchvision.transforms.v2 import functional as TF

from ssdlib.data.files import space_for
from ssdlib.engine.loading import DetectionDataset
from ssdlib.model import SSD
from ssdlib.plotting import draw_on_image

LOSSES = ("localization", "confidence", "val_localization", "val_confidence")
NO_CURVE = ("epoch", "step", "seconds")


def tensorboard_log(
    folder: str | Path, dataset: DetectionDataset, *, images: int = 4, every: int = 1, min_score: float = 0.3
) -> Callable[[SSD, Mapping[str, float]], None]:
    """Make a function that adds a line of a run's log to TensorBoard; `ssdlib.engine.train` can call it after each.

    Each entry of a line becomes a point of the curve of its name, the losses under "loss/". Detections are drawn on
    some images, under "detections/". A run that is resumed replaces the points after its last state.

    Args:
        folder: where the events go; look at them with `tensorboard --logdir FOLDER`.
        dataset: where the images come from, at equal distances.
        images: how many.
        every: smallest number of steps between two drawings.
        min_score: detections below it are not drawn.

    Raises:
        ValueError: if the package tensorboard is not installed.
        OSError: from the function, if there is no space; the message names the folder.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("this needs the package tensorboard: pip install 'ssdlib[tensorboard]'")
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and not everybody has it

    count = min(images, len(dataset))
    chosen = [dataset[i * len(dataset) // count][0] for i in range(count)]
    writer: SummaryWriter | None = None
    drawn: int | None = None

    def add(model: SSD, line: Mapping[str, float]) -> None:
        with space_for(folder):
            write(model, line)

    def write(model: SSD, line: Mapping[str, float]) -> None:
        nonlocal writer, drawn
        step = int(line["step"])
        if writer is None:
            writer = SummaryWriter(str(folder), purge_step=step)
        for name, value in line.items():
            if name not in NO_CURVE:
                writer.add_scalar(f"loss/{name}" if name in LOSSES else name, value, step)
        if drawn is None or step - drawn >= every:
            drawn = step
            for i, (image, found) in enumerate(zip(chosen, model.predict(chosen, min_score=min_score), strict=True)):
                picture = draw_on_image(TF.to_pil_image(image), found, model.classes, min_score=min_score)
                writer.add_image(f"detections/{i}", np.asarray(picture), step, dataformats="HWC")
        writer.flush()

    return add
