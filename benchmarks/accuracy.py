"""Train our SSD and one of torchvision's from random weights, by the same loop on the same images, and compare.

    python benchmarks/accuracy.py --data data/BCCD
    python benchmarks/accuracy.py --data data/BCCD --name accuracy_ssd300 --preset scratch \
        --architecture ssd300_vgg16_bn --peer ssd300_vgg16 --device cuda --bfloat16 \
        --set iterations=6000 --set batch_size=32

prints a table and writes ssdlib/engine/records/NAME.json: command, commit, date, hardware, versions, configuration, and
for each network mAP, AP of each class, parameters, seconds, images a second, and the losses of each epoch.

Data, seed, order, augmentation, batch size, optimizer, schedule, averaging and the measure are the same for all. Each
network has its own input size, initialisation, priors, matching, loss, thresholds and NMS: those of its library.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torchvision
import typer
from record import RESULTS, circumstances, write_record
from torch import Tensor, nn
from tqdm import tqdm

from ssdlib.data import AnnotatedDataset, open_dataset
from ssdlib.data.transforms import model_input
from ssdlib.detection import detect
from ssdlib.engine.config import TrainConfig, with_settings
from ssdlib.engine.loading import Batches, TrainingImages, endless, make_loader
from ssdlib.engine.presets import PRESETS
from ssdlib.loss import multibox_loss
from ssdlib.metrics import evaluate
from ssdlib.model import SSD, build_model
from ssdlib.training import TrainState, training_loop

Target = dict[str, Tensor]
PARTS = {"bbox_regression": "localization", "classification": "confidence"}  # torchvision's names of the losses


class Ours(nn.Module):
    """Our network with torchvision's manners: targets in, losses out; or images in, detections out."""

    def __init__(self, ssd: SSD) -> None:
        super().__init__()
        self.ssd, self.size = ssd, ssd.recipe.image_size

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        offsets, logits = self.ssd(images)
        if targets is None:
            return detect(offsets, logits, self.ssd.priors)
        return multibox_loss(offsets, logits, targets, self.ssd.priors)


class Theirs(nn.Module):
    """A detector of torchvision: the same, but for boxes in pixels of its input instead of fractions."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        self.detector = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
        self.size = self.detector.transform.fixed_size[0]

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        if targets is None:
            return [{**found, "boxes": found["boxes"] / self.size} for found in self.detector(list(images))]
        in_pixels = [
            {"boxes": (target["boxes"] * self.size).to(images.device), "labels": target["labels"].to(images.device)}
            for target in targets
        ]
        return {PARTS[name]: loss for name, loss in self.detector(list(images), in_pixels).items()}


def build(name: str, classes: Sequence[str]) -> Ours | Theirs:
    """One of our architectures by its name, or one of torchvision's detectors by "torchvision:NAME"."""
    kind, _, theirs = name.partition(":")
    return Theirs(theirs, len(classes) + 1) if kind == "torchvision" else Ours(build_model(name, classes))


def fit(
    name: str, dataset: AnnotatedDataset, config: TrainConfig, device: torch.device, workers: int = 0
) -> tuple[Ours | Theirs, list[dict[str, float]]]:
    """The loop of `ssd train` for either network: the trained network, and a line of the log for each epoch."""
    torch.manual_seed(config.seed)
    network = build(name, dataset.classes).to(device).to(memory_format=torch.channels_last)
    state = TrainState.start(network, config)
    batches = Batches(len(dataset), config.batch_size, config.seed)
    images = TrainingImages(dataset, network.size, config.augmentation, config.seed)
    stream = endless(make_loader(images, batches, workers, device), batches, 0)
    log: list[dict[str, float]] = []
    epoch: list[dict[str, float]] = []  # what each of its steps measured
    started = time.monotonic()
    steps = training_loop(state, stream, config, losses=lambda network, *batch: network(*batch))
    with tqdm(steps, name, config.iterations, unit="step") as bar:
        for measured in bar:
            epoch.append(measured)
            if measured["step"] % len(batches) == 0 or measured["step"] == config.iterations:
                means = {part: sum(step[part] for step in epoch) / len(epoch) for part in PARTS.values()}
                seconds = round(time.monotonic() - started, 2)
                log.append({"epoch": len(log) + 1, "step": state.step, **means, "seconds": seconds})
                bar.set_postfix({part: f"{value:.3f}" for part, value in means.items()})
                epoch.clear()
    return state.average, log  # type: ignore[return-value]


@torch.no_grad()
def measure(network: Ours | Theirs, dataset: AnnotatedDataset, device: torch.device, rule: str) -> dict[str, Any]:
    """Figures of a network on an image set; images a second are those of reading, network and NMS together."""
    transform, found, targets = model_input(network.size), [], []
    started = time.monotonic()
    for start in range(0, len(dataset), 16):
        pairs = [dataset[i] for i in range(start, min(start + 16, len(dataset)))]
        batch = torch.stack([transform(image, target)[0] for image, target in pairs]).to(device)  # (N, 3, S, S)
        for detection, (image, target) in zip(network(batch), pairs, strict=True):
            height, width = image.shape[-2:]
            detection = {key: value.cpu() for key, value in detection.items()}
            detection["boxes"] = detection["boxes"] * torch.tensor([width, height, width, height])
            found.append(detection)
            targets.append(target)
    seconds = time.monotonic() - started
    result = evaluate(found, targets, len(dataset.classes) + 1, ap=rule)  # type: ignore[arg-type]
    return {
        "mAP": result.mean,
        "AP": {dataset.classes[label - 1]: value for label, value in result.per_class.items()},
        "detected_per_second": round(len(dataset) / seconds, 1),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text."""
    width = max(len(row["network"]) for row in rows)
    lines = [f"{'network':<{width}}  mAP    input  parameters  training  trained/s  detected/s"]
    lines += [
        f"{row['network']:<{width}}  {row['mAP']:.3f}  {row['image_size']:5d}  {row['parameters'] / 1e6:8.2f} M"
        f"  {row['seconds']:6.0f} s  {row['trained_per_second']:9.1f}  {row['detected_per_second']:10.1f}"
        for row in rows
    ]
    return "\n".join(lines)


def main(
    data: Annotated[Path, typer.Option(help="Folder with images and annotations.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "accuracy",
    preset: Annotated[str, typer.Option(help="As of `ssd train`.")] = "tiny_few",
    architecture: Annotated[list[str], typer.Option(help="Ours; several are rows of the same table.")] = ["ssd_tiny"],  # noqa: B006
    peer: Annotated[str, typer.Option(help="Torchvision's.")] = "ssdlite320_mobilenet_v3_large",
    settings: Annotated[list[str], typer.Option("--set", help="As of `ssd train`: name=value.")] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    train_set: Annotated[str, typer.Option(help="Image set that is learned.")] = "trainval",
    test_set: Annotated[str, typer.Option(help="Image set that is measured.")] = "test",
    ap: Annotated[str, typer.Option(help="area or 11point.")] = "area",
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute the networks in bfloat16.")] = False,
    device: Annotated[str, typer.Option(help='"cpu" or "cuda".')] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that load images.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to PyTorch.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Train all networks, measure, print a table, record."""
    if threads:
        torch.set_num_threads(threads)
    config = with_settings(
        replace(PRESETS[preset], seed=seed, precision="bfloat16" if bfloat16 else "float32"), settings
    )
    train_images, rows = open_dataset(data, train_set), []
    test_images = open_dataset(data, test_set, train_images.classes)
    where = torch.device(device)
    options = [f"--set {setting}" for setting in settings] + ["--bfloat16"] * bfloat16
    options += [f"--architecture {each}" for each in architecture]
    command = f"python benchmarks/accuracy.py --data data/{data.name} --name {name} --preset {preset} --peer {peer}"
    record = {
        # The folder is named as a reader would: that of this machine means nothing elsewhere.
        "command": " ".join([command, *options, f"--seed {seed} --device {device} --ap {ap}"]),
        **circumstances(where),
        "threads": torch.get_num_threads(),
        "config": {key: value for key, value in asdict(config).items() if key != "architecture"},
        "images": {train_set: len(train_images), test_set: len(test_images)},
        "ap": ap,
        "iou_threshold": 0.5,
        "networks": rows,
    }
    for network in (*architecture, f"torchvision:{peer}"):
        model, log = fit(network, train_images, config, where, workers)
        seconds = log[-1]["seconds"]
        rows.append(
            {
                "network": network,
                "image_size": model.size,
                "parameters": sum(p.numel() for p in model.parameters()),
                **measure(model, test_images, where, ap),
                "seconds": seconds,
                "trained_per_second": round(config.iterations * min(config.batch_size, len(train_images)) / seconds, 1),
                "log": log,
            }
        )
        print(table(rows), flush=True)
        write_record(record, name, results)  # after each network: the next one may fail


if __name__ == "__main__":
    sys.exit(typer.run(main))
