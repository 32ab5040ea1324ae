"""Training: the configuration of a run, the loop, and detection on a whole data set."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from ssdlib.checkpoint import save_model
from ssdlib.data.transforms import Augmentation, Target, model_input
from ssdlib.detection import Detection, detect
from ssdlib.files import write_text
from ssdlib.loss import multibox_loss
from ssdlib.model import SSD, build_model


class DetectionDataset(Protocol):
    """What training needs of a data set: images (3, H, W) uint8 with targets in pixels, and the classes' names."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, Target]: ...


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, besides the data.

    Attributes:
        architecture: a name of `ssdlib.model.ARCHITECTURES`.
        iterations: how many steps; with the batch size, how many images are seen, whatever the size of the data set.
        batch_size: images a step.
        optimizer: "sgd" or "adamw".
        learning_rate: the largest of the schedule.
        schedule: "cosine" falls to 0 along half a cosine; "steps" divides by 10 at 2/3 and at 5/6 of the run, as the
            paper does after 80k and 100k of 120k iterations.
        warmup: share of the run in which the rate rises from 0.
        momentum: of SGD.
        weight_decay: pulls weights, but no biases and normalisations, towards 0.
        bias_rate: factor of the learning rate for biases; 2 in the original code.
        clip_norm: largest norm of the gradient; None does not clip.
        average: decay of the running average of the weights that is evaluated and saved; 0 keeps the last weights.
        augmentation: how the images are varied; None shows them as they are.
        bfloat16: compute the network in bfloat16 (autocast) where that is safe.
        seed: of weights, order and augmentation. On a CPU the same seed gives the same run, whatever the number of
            workers.
    """

    architecture: str = "ssd_tiny"
    iterations: int = 2400
    batch_size: int = 8
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_rate: float = 1.0
    clip_norm: float | None = 10.0
    average: float = 0.99
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")
        if self.schedule not in ("cosine", "steps"):
            raise ValueError(f"schedule must be 'cosine' or 'steps', got {self.schedule!r}")
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f"iterations and batch_size must be at least 1, got {self.iterations}, {self.batch_size}")
        if not (0 <= self.warmup < 1 and 0 <= self.average < 1 and self.learning_rate > 0):
            raise ValueError("warmup and average must be in [0, 1), and learning_rate above 0")


# The names of --preset. Command, hardware, time and score of each are in benchmarks/README.md.
PRESETS = {
    # Thousands of images, such as drawn scenes: every image is seen a few times only, so flips are variation enough.
    "tiny": TrainConfig(
        iterations=2300, learning_rate=2e-3, augmentation=Augmentation(colour=False, zoom_out=1.0, crop=1.0)
    ),
    # Hundreds of photographs: without crops and zooms the network would learn them by heart.
    "tiny_few": TrainConfig(
        augmentation=Augmentation(colour=False, zoom_out=1.3, zoom_out_p=0.2, crop=0.7, crop_p=0.7)
    ),
}


def rate_factor(done: float, config: TrainConfig) -> float:
    """The learning rate as a factor of its largest value, when a share `done` (0..1) of the run is over."""
    if done < config.warmup:
        return done / config.warmup
    if config.schedule == "steps":
        return 1.0 if done < 2 / 3 else 0.1 if done < 5 / 6 else 0.01
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - config.warmup) / (1 - config.warmup))))


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW with two groups: weights, and vectors (biases, normalisations), which do not decay."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0, "lr": config.learning_rate * config.bias_rate},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


class ShuffledEpochs(Sampler[int]):
    """Indices for DataLoader, reshuffled for each epoch; index + epoch * length, so that a data set knows the epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        yield from (torch.randperm(self.length, generator=generator) + self.epoch * self.length).tolist()

    def __len__(self) -> int:
        return self.length


class _ForModel(Dataset[tuple[Tensor, Target]]):
    """A data set through the input transform; the augmentation follows from seed, epoch and index alone."""

    def __init__(self, dataset: DetectionDataset, size: int, augmentation: Augmentation | None, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, model_input(size, augmentation), seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, epoch_and_index: int) -> tuple[Tensor, Target]:
        index = epoch_and_index % len(self.dataset)
        image, target = self.dataset[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed, epoch_and_index))
            return self.transform(image, target)


def _collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    images, targets = zip(*batch, strict=True)
    return torch.stack(images), list(targets)


def _mix(seed: int, number: int) -> int:
    """One seed from two numbers, so that seed 0, image 1 and seed 1, image 0 differ."""
    return (seed * 1_000_003 + number) % 2**63


def train(
    config: TrainConfig,
    dataset: DetectionDataset,
    out: str | Path,
    *,
    workers: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = True,
    notes: dict[str, Any] | None = None,
) -> SSD:
    """Train a model from scratch and keep everything about the run in a folder.

    Args:
        config: the run.
        dataset: the training images; its `classes` name the labels.
        out: folder for config.json, log.jsonl (a line for each epoch: epoch, step, learning_rate, localization,
            confidence, seconds since the start) and, in the end, model.safetensors. It must not hold a run already.
        workers: processes that load images.
        device: where the network is computed.
        progress: show a bar on stderr.
        notes: further entries of config.json.

    Returns:
        The trained model (averaged weights, if the configuration says so), in evaluation mode, on the CPU.

    Raises:
        FileExistsError: if `out` holds a run.
        FloatingPointError: if the loss stops being finite; the message names the step.
        ValueError: if the data set is empty.
    """
    out = Path(out)
    if (out / "config.json").exists():
        raise FileExistsError(f"{out} already holds a run; choose another folder")
    if len(dataset) == 0:
        raise ValueError("no images to train on")
    out.mkdir(parents=True, exist_ok=True)
    described = {"config": asdict(config), "classes": list(dataset.classes), "images": len(dataset)}
    write_text(out / "config.json", json.dumps({**described, **(notes or {})}, indent=2) + "\n")

    torch.manual_seed(config.seed)
    model = build_model(config.architecture, dataset.classes).to(device)
    model = model.to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, avg_fn=_averaging(config.average), use_buffers=True)
    optimizer = make_optimizer(model, config)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(step / config.iterations, config))
    sampler = ShuffledEpochs(len(dataset), config.seed)
    loader = DataLoader(
        _ForModel(dataset, model.recipe.image_size, config.augmentation, config.seed),
        batch_size=config.batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate,
        drop_last=len(dataset) > config.batch_size,
    )
    started = time.monotonic()
    step = 0
    bar = tqdm(total=config.iterations, desc="training", unit="step", disable=not progress)
    while step < config.iterations:
        model.train()
        sums, steps = {"localization": 0.0, "confidence": 0.0}, 0
        for images, targets in loader:
            losses = train_step(model, images.to(device, memory_format=torch.channels_last), targets, optimizer, config)
            schedule.step()
            averaged.update_parameters(model)
            step, steps = step + 1, steps + 1
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"the {name} loss became {value} in step {step} (epoch {sampler.epoch + 1})"
                    )
                sums[name] += value
            bar.update()
            if step == config.iterations:
                break
        means = {name: value / steps for name, value in sums.items()}
        bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
        line = {"epoch": sampler.epoch + 1, "step": step, "learning_rate": schedule.get_last_lr()[0], **means}
        line["seconds"] = round(time.monotonic() - started, 2)
        with open(out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        sampler.epoch += 1
    bar.close()
    trained = cast(SSD, averaged.module if config.average else model).cpu().eval()
    save_model(trained, out / "model.safetensors", training={**described, "seconds": line["seconds"]})
    return trained


def train_step(
    model: SSD,
    images: Tensor,
    targets: Sequence[Target],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> dict[str, float]:
    """One step: predict, measure the loss, walk down its gradient.

    Args:
        model: in training mode.
        images: (N, 3, S, S), on the device of the model.
        targets: one dict an image, boxes fractional.
        optimizer: of the model's parameters.
        config: of it, `bfloat16` and `clip_norm` matter here.

    Returns:
        The two losses of the batch before the step. If their sum is not finite, the weights are left as they were.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.bfloat16):
        offsets, logits = model(images)
    losses = multibox_loss(offsets, logits, targets, model.priors)
    loss = losses["localization"] + losses["confidence"]
    if torch.isfinite(loss):
        optimizer.zero_grad()
        loss.backward()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has circuits for bfloat16; where it only imitates it, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, the only ones that tell: where a version of PyTorch lacks them, the answer is no.
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


def _averaging(decay: float) -> Any:
    """Running average whose first steps forget faster: the weights of the start are not worth remembering."""

    def average(old: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        if not old.is_floating_point():
            return new
        return torch.lerp(old, new.to(old.dtype), 1 - min(decay, (1 + float(steps)) / (10 + float(steps))))

    return average


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
    targets: list[Target] = []
    detections: list[Detection] = []
    loader = DataLoader(
        _WithSize(dataset, model.recipe.image_size),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
    )
    for batch in tqdm(loader, "detecting", leave=False, disable=not progress):
        images = torch.stack([image for image, _, _ in batch]).to(device)
        offsets, logits = model(images)
        found = detect(offsets, logits, model.priors, **options)
        for (_, target, size), detection in zip(batch, found, strict=True):
            detection = {key: value.cpu() for key, value in detection.items()}
            detection["boxes"] = detection["boxes"] * size
            detections.append(detection)
            targets.append(target)
    return detections, targets


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
