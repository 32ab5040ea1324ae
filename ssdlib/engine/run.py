"""A run: `ssdlib.training.training_loop` with a folder, a log, states to resume from, and several processes."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ssdlib.data import DataWarning
from ssdlib.data.files import space_for
from ssdlib.engine import processes, run_folder
from ssdlib.engine.compiling import compiled
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.loading import (
    Batches,
    DetectionDataset,
    TrainingImages,
    endless,
    fingerprint,
    image_name,
    make_loader,
)
from ssdlib.engine.run_lock import locked
from ssdlib.model import SSD, build_model
from ssdlib.training import TrainState, training_loop
from ssdlib.zoo.checkpoint import load_model, not_finite, save_model
from ssdlib.zoo.imagenet import classifier_weights

_Batch = TypeVar("_Batch")


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

    In a process group (`ssdlib.engine.processes.process_group`) the processes share the images of each step, and the
    run is the same as that of one process within rounding. Rank 0 alone writes.

    Args:
        config: the run.
        dataset: the training images; its `classes` name the labels.
        out: folder for config.json, log.jsonl and, in the end, model.safetensors. While the run goes on, state.pt is
            there too. It must not hold a run already. A line of the log is for an epoch: epoch, step, learning_rate;
            localization, confidence and gradient_norm, the means over its steps; images_per_second; waiting, the
            fraction of the time in which no image was ready; seconds since the start; and what `after_epoch` gave.
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
    writes = processes.rank() == 0
    batches = Batches(len(dataset), config.batch_size, config.seed, processes.rank(), processes.world_size())
    described = {
        "config": asdict(config),
        "classes": list(dataset.classes),
        "images": len(dataset),
        "fingerprint": fingerprint(dataset),
    }
    with locked(out) if writes else nullcontext():
        if writes:
            run_folder.require_ready(out, described, resume)
        processes.barrier()
        if run_folder.finished(out):
            run_folder.end(out)
            return load_model(out / run_folder.MODEL)

        torch.manual_seed(config.seed)
        model = starting_model(config, dataset.classes, weights).to(device).to(memory_format=torch.channels_last)
        if writes:
            run_folder.begin(out, {**described, **(notes or {})})
        average = copy.deepcopy(model).eval()
        model = processes.with_shared_statistics(model, device)
        network = processes.shared(compiled(model, config) if config.compile else model, device)
        average.load_state_dict(model.state_dict())  # the weights of rank 0
        state = TrainState.start(model, config)
        state.average = average
        side = model.recipe.image_size
        lost = getattr(dataset, "smaller_than_a_pixel", lambda _: 0)(side)
        if lost and writes:
            warnings.warn(
                f"{lost} objects are smaller than a pixel at {side} x {side} and are left out", DataWarning, 2
            )
        on_device = config.augment_on == "device"
        images = TrainingImages(dataset, model.recipe.image_size, config.augmentation, config.seed, on_device)
        loader = make_loader(images, batches, workers, device)
        so_far = run_folder.load_state(out, state) if resume else run_folder.Progress()
        processes.barrier()  # nobody goes on to write before all have read
        epoch = state.step // len(batches)
        if writes:
            cut_short = state.step == config.iterations and state.step % len(batches) > 0  # the last epoch has its line
            run_folder.cut_log(out, epoch + cut_short)
        started = time.monotonic() - so_far.seconds

        with (
            tqdm(
                total=config.iterations,
                initial=state.step,
                desc="training",
                unit="step",
                disable=not (progress and writes),
            ) as bar,
            run_folder.stop_requests(processes.world_size() == 1) as stop_requested,
        ):
            stream = timed(endless(loader, batches, state.step), so_far.sums)
            steps = training_loop(state, stream, config, network=network, losses=processes.shared_losses)
            while state.step < config.iterations:
                try:
                    measured = next(steps)
                except FloatingPointError as error:
                    names = ", ".join(image_name(dataset, index) for index in batches.images(state.step % len(batches)))
                    raise FloatingPointError(
                        f"{error}; the images of this step (epoch {epoch + 1}): {names}"
                    ) from error
                so_far.add(measured, min(config.batch_size, len(dataset)))
                bar.update()
                so_far.seconds = time.monotonic() - started
                last = state.step == config.iterations
                ends_epoch = last or state.step % len(batches) == 0
                saves = last or (state.step % save_every == 0)
                stop = stop_requested()  # asked once: a signal that comes later waits for the next step
                if ends_epoch or saves or stop:
                    require_finite(state)
                if ends_epoch:
                    line = {"epoch": epoch + 1, "step": state.step, "learning_rate": measured["learning_rate"]}
                    line |= so_far.means()
                    bar.set_postfix({name: f"{line[name]:.3f}" for name in ("localization", "confidence")})
                    if after_epoch is not None:
                        line |= after_epoch(average, line)
                    line["seconds"] = round(so_far.seconds, 2)
                    if writes:
                        with space_for(out / run_folder.LOG):
                            run_folder.add_to_log(out, line)
                    epoch += 1
                    so_far.begin_epoch(time.monotonic() - started)
                if writes and (saves or stop):
                    run_folder.save_state(out, state, so_far)  # at the end, too: the model may find no space
                if stop and not last:
                    raise KeyboardInterrupt(f"stopped after step {state.step}; --resume goes on from there")
        if writes:
            save_model(average, out / run_folder.MODEL, training={**described, "seconds": round(so_far.seconds, 2)})
            run_folder.end(out)
        processes.barrier()
        return average.cpu()


def require_finite(state: TrainState) -> None:
    """Refuse weights or averages that are not finite: the update of a step can overflow though its gradient is finite.

    Raises:
        FloatingPointError: the message names the step and a tensor.
    """
    for module in (state.model, state.average):
        broken = not_finite(module.state_dict())
        if broken:
            raise FloatingPointError(
                f"after step {state.step} the weights are not finite, the first of them in {broken}; they are not "
                f"saved, and a lower learning rate may help"
            )


def starting_model(config: TrainConfig, classes: Sequence[str], weights: str | Path | None = None) -> SSD:
    """The model at the start of a run: random weights, or the backbone of a classifier if `config.pretrained`.

    With several processes only rank 0 loads the classifier; the others get its weights from there.

    Raises:
        ValueError, OSError: as `ssdlib.zoo.imagenet.classifier_weights`; or if `config.freeze` names no part.
    """
    state = None
    if config.pretrained and processes.rank() == 0:
        state = classifier_weights(config.architecture, weights)
    options = {} if state is None else {"classifier_weights": state}
    try:
        model = build_model(config.architecture, classes, **options)
    except KeyError as error:
        raise ValueError(f"{weights} lacks the tensor {error}: it is not the classifier that was asked for") from error
    if config.freeze:
        model.freeze(part.strip() for part in config.freeze.split(","))
    return model


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has circuits for bfloat16; where it only imitates it, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, the only ones that tell: where a version of PyTorch lacks them, the answer is no.
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


def timed(batches: Iterable[_Batch], sums: dict[str, float]) -> Iterator[_Batch]:
    """Pass the batches on, and add up the seconds spent "waiting" for them."""
    asked = time.monotonic()
    for batch in batches:
        sums["waiting"] += time.monotonic() - asked
        yield batch
        asked = time.monotonic()
