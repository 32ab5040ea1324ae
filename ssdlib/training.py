"""Training: optimizer and schedule, one step, and the loop around it.

The run that is wanted is a `TrainConfig` (`ssdlib.presets`); images come from `ssdlib.loading`; `ssdlib.runs` keeps
the folder, and `ssdlib.distributed` is what several processes need.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from ssdlib import distributed, runs
from ssdlib.checkpoint import load_model, save_model
from ssdlib.data.transforms import Target
from ssdlib.inference import detect_dataset as detect_dataset
from ssdlib.loading import Batches, DetectionDataset, TrainingImages, fingerprint, image_name, make_loader
from ssdlib.loading import ShuffledEpochs as ShuffledEpochs
from ssdlib.loss import multibox_loss
from ssdlib.model import SSD, build_model
from ssdlib.presets import PRESETS as PRESETS
from ssdlib.presets import TrainConfig
from ssdlib.pretrained import classifier_weights

_Batch = TypeVar("_Batch")


def rate_factor(done: float, config: TrainConfig) -> float:
    """The learning rate as a factor of its largest value, when a share `done` (0..1) of the run is over."""
    if done < config.warmup:
        return done / config.warmup
    if config.schedule == "steps":
        return 1.0 if done < 2 / 3 else 0.1 if done < 5 / 6 else 0.01
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - config.warmup) / (1 - config.warmup))))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
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


def train(
    config: TrainConfig,
    dataset: DetectionDataset,
    out: str | Path,
    *,
    workers: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = True,
    notes: dict[str, Any] | None = None,
    resume: bool = False,
    save_every: int = 500,
    weights: str | Path | None = None,
    after_epoch: Callable[[SSD, dict[str, float]], dict[str, float]] | None = None,
) -> SSD:
    """Train a model and keep everything about the run in a folder.

    In a process group (`ssdlib.distributed.process_group`) the processes share the images of each step, and the run is
    the same as that of one process within rounding. Rank 0 alone writes.

    Args:
        config: the run.
        dataset: the training images; its `classes` name the labels.
        out: folder for config.json, log.jsonl and, in the end, model.safetensors. While the run goes on, state.pt is
            there too. It must not hold a run already. A line of the log is for an epoch: epoch, step, learning_rate;
            localization, confidence and gradient_norm, the means over its steps; images_per_second; waiting, the share
            of the time in which no image was ready; seconds since the start; and what `after_epoch` gave.
        workers: processes that load images.
        device: where the network is computed.
        progress: show a bar on stderr.
        notes: further entries of config.json.
        resume: go on with the run in `out`, from the last state that it saved. On a CPU it ends with the same weights
            as a run that was never stopped, bit for bit.
        save_every: steps between two states. Ctrl-C saves one, too.
        weights: file with the classifier's weights, for `config.pretrained`; without it torchvision downloads them.
        after_epoch: is called after each epoch, in every process, with the model as it would be saved (in evaluation
            mode) and the line of the log; returns further entries of the line.

    Returns:
        The trained model (averaged weights, if the configuration says so), in evaluation mode, on the CPU.

    Raises:
        FileExistsError: if `out` holds a run and `resume` is not set.
        FloatingPointError: if a loss or the gradient stops being finite; the message names the step and the images.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
        ValueError: if the data set is empty, the batch cannot be shared by the processes, or the run in `out` is not
            the one to be resumed.
    """
    out, device = Path(out), torch.device(device)
    if len(dataset) == 0:
        raise ValueError("no images to train on")
    batches = Batches(len(dataset), config.batch_size, config.seed, distributed.rank(), distributed.world_size())
    described = {
        "config": asdict(config),
        "classes": list(dataset.classes),
        "images": len(dataset),
        "fingerprint": fingerprint(dataset),
    }
    if distributed.rank() == 0:
        runs.check(out, described, resume)
    distributed.barrier()
    if runs.finished(out):
        runs.end(out)
        return load_model(out / runs.MODEL)

    torch.manual_seed(config.seed)
    model = starting_model(config, dataset.classes, weights).to(device).to(memory_format=torch.channels_last)
    if distributed.rank() == 0:
        runs.begin(out, {**described, **(notes or {})})
    average = copy.deepcopy(model).eval()
    model = distributed.with_shared_statistics(model, device)
    network = distributed.shared(compiled(model, config) if config.compile else model, device)
    average.load_state_dict(model.state_dict())
    optimizer = make_optimizer(model, config)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(step / config.iterations, config))
    on_device = config.augment_on == "device"
    images = TrainingImages(dataset, model.recipe.image_size, config.augmentation, config.seed, on_device)
    loader = make_loader(images, batches, workers, device)
    parts: dict[str, runs.Stateful] = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    place = runs.load_state(out, parts) if resume else runs.Place()
    distributed.barrier()  # nobody goes on to write before all have read
    if distributed.rank() == 0:
        runs.cut_log(out, place.epoch)
    started = time.monotonic() - place.seconds

    hidden = not progress or distributed.rank() > 0
    with (
        tqdm(total=config.iterations, initial=place.step, desc="training", unit="step", disable=hidden) as bar,
        runs.stop_requests(distributed.world_size() == 1) as stop_requested,
    ):
        while place.step < config.iterations:
            batches.order.epoch, batches.start = place.epoch, place.batch
            network.train()
            for pixels, targets in _timed(loader, place.sums):
                pixels = pixels.to(device, memory_format=torch.channels_last, non_blocking=True)
                measured = train_step(network, pixels, targets, optimizer, config)
                _require_finite(measured, place, dataset, batches)
                schedule.step()
                update_average(average, model, place.step, config.average)
                place.step, place.batch = place.step + 1, place.batch + 1
                for name, value in {**measured, "steps": 1, "images": min(config.batch_size, len(dataset))}.items():
                    place.sums[name] += value
                bar.update()
                if place.step == config.iterations:
                    break
                if stop_requested() or (place.step % save_every == 0 and distributed.rank() == 0):
                    place.seconds = time.monotonic() - started
                    runs.save_state(out, place, parts)
                if stop_requested():
                    raise KeyboardInterrupt(f"stopped after step {place.step}; --resume goes on from there")
            place.seconds = time.monotonic() - started
            line: dict[str, Any] = {"epoch": place.epoch + 1, "step": place.step}
            line |= {"learning_rate": schedule.get_last_lr()[0], **_means(place)}
            bar.set_postfix({name: f"{line[name]:.3f}" for name in ("localization", "confidence")})
            if after_epoch is not None:
                line |= after_epoch(average, line)
            line["seconds"] = round(place.seconds, 2)
            if distributed.rank() == 0:
                runs.add_to_log(out, line)
            place = runs.Place(
                place.step, place.epoch + 1, seconds=place.seconds, epoch_began=time.monotonic() - started
            )
    trained = average.cpu()
    if distributed.rank() == 0:
        save_model(trained, out / runs.MODEL, training={**described, "seconds": line["seconds"]})
        runs.end(out)
    distributed.barrier()
    return trained


def train_step(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Target],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
) -> dict[str, float]:
    """One step: predict, measure the loss, walk down its gradient.

    Args:
        model: an SSD in training mode; with several processes, wrapped by `ssdlib.distributed.shared`.
        images: (N, 3, S, S), on the device of the model.
        targets: one dict an image, boxes fractional.
        optimizer: of the model's parameters.
        config: of it, `bfloat16` and `clip_norm` matter here.

    Returns:
        The two losses of the batch before the step, over all processes, and "gradient_norm", the length of the
        gradient before clipping. If one of them is not finite, the weights are left as they were.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.bfloat16):
        offsets, logits = model(images)
    # Each process divides by the positives of all, so that the sum over the processes is the loss of the whole batch.
    priors = distributed.bare(model).priors
    losses = multibox_loss(offsets, logits, targets, priors, total_positives=distributed.total)
    loss = losses["localization"] + losses["confidence"]
    optimizer.zero_grad()
    (loss * distributed.world_size()).backward()  # the processes' gradients are averaged, and a sum is wanted
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if config.clip_norm is None else config.clip_norm)
    summed = distributed.total(torch.stack([value.detach() for value in losses.values()]))
    measured = dict(zip((*losses, "gradient_norm"), torch.cat((summed, norm.reshape(1))).tolist(), strict=True))
    if all(math.isfinite(value) for value in measured.values()):
        optimizer.step()
    return measured


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the running average of weights and statistics towards those of the model.

    Args:
        average: is changed in place.
        model: of the same architecture.
        step: updates before this one. The first takes the weights whole, and the next ones forget faster than `decay`
            says: the weights of the start are not worth remembering.
        decay: 0 keeps the last weights.
    """
    share = 1 - min(decay, (1 + step) / (10 + step)) if step else 1.0
    for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, share)
        else:
            old.copy_(new)


def starting_model(config: TrainConfig, classes: Sequence[str], weights: str | Path | None = None) -> SSD:
    """The model at the start of a run: random weights, or the backbone of a classifier if `config.pretrained`.

    With several processes only rank 0 loads the classifier; the others get its weights from there.

    Raises:
        ValueError, OSError: as `ssdlib.pretrained.classifier_weights`.
    """
    if not config.pretrained or distributed.rank() > 0:
        return build_model(config.architecture, classes)
    state = classifier_weights(config.architecture, weights)
    try:
        return build_model(config.architecture, classes, classifier_weights=state)
    except KeyError as error:
        raise ValueError(f"{weights} lacks the tensor {error}: it is not the classifier that was asked for") from error


def compiled(model: SSD, config: TrainConfig) -> nn.Module:
    """The model through torch.compile; where that does not work, the model itself, and a warning that says why.

    One batch of black images is tried at once, so that a failure comes now and not in the first step.
    """
    before = copy.deepcopy(model.state_dict())
    device, size = model.priors.device, model.recipe.image_size
    images = torch.zeros(max(1, config.batch_size // distributed.world_size()), 3, size, size, device=device)
    network: nn.Module = model.train()
    try:
        network = torch.compile(model)  # type: ignore[assignment]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            offsets, logits = network(images.to(memory_format=torch.channels_last))
        (offsets.sum() + logits.sum()).backward()
    except Exception as error:  # whatever a compiler can raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"torch.compile does not work here ({reason}); the run goes on without it", stacklevel=2)
        network = model
    model.load_state_dict(before)
    model.zero_grad()
    return network


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has circuits for bfloat16; where it only imitates it, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, the only ones that tell: where a version of PyTorch lacks them, the answer is no.
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


def _timed(batches: Iterable[_Batch], sums: dict[str, float]) -> Iterator[_Batch]:
    """Pass the batches on, and add up the seconds spent "waiting" for them."""
    asked = time.monotonic()
    for batch in batches:
        sums["waiting"] += time.monotonic() - asked
        yield batch
        asked = time.monotonic()


def _means(place: runs.Place) -> dict[str, float]:
    """The entries of a line of the log that are means over an epoch."""
    sums, seconds = place.sums, max(place.seconds - place.epoch_began, 1e-9)
    means = {name: sums[name] / sums["steps"] for name in ("localization", "confidence", "gradient_norm")}
    rates = {"images_per_second": round(sums["images"] / seconds, 1), "waiting": round(sums["waiting"] / seconds, 3)}
    return means | rates


def _require_finite(measured: dict[str, float], place: runs.Place, dataset: DetectionDataset, batches: Batches) -> None:
    for name, value in measured.items():
        if not math.isfinite(value):
            what = "norm of the gradient" if name == "gradient_norm" else f"{name} loss"
            images = ", ".join(image_name(dataset, index) for index in batches.images(place.batch))
            raise FloatingPointError(
                f"the {what} became {value} in step {place.step + 1} (epoch {place.epoch + 1}), and the weights were "
                f"left as they were; the images of this step: {images}"
            )
