"""A run: `ssdlib.training.training_loop` with a folder, a log, states to resume from, and several processes."""

from __future__ import annotations

import copy
import sys
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
from ssdlib.data.names import counted
from ssdlib.engine import processes, run_folder
from ssdlib.engine.compiling import compiled, compiled_losses, steps_marked
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.device_training import device_training_loop
from ssdlib.engine.loading import (
    Batches,
    DetectionDataset,
    TrainingImages,
    endless,
    fingerprint,
    image_name,
    make_loader,
)
from ssdlib.engine.precision import fastest_convolutions, with_choices
from ssdlib.engine.run_lock import locked
from ssdlib.engine.validation import Validation
from ssdlib.model import SSD, build_model
from ssdlib.priors import PriorRecipe
from ssdlib.training import TrainState, in_memory, training_loop
from ssdlib.zoo.checkpoint import load_model, not_finite, save_model
from ssdlib.zoo.imagenet import classifier_weights
from ssdlib.zoo.transfer import EARLY, early_parts, same_priors, take_over

SHOW_EVERY, LINE_EVERY = 10, 100  # steps between two losses beside the bar, and between two lines of the log
LOSSES = ("localization", "confidence")

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
    init: SSD | None = None,
    recipe: PriorRecipe | None = None,
    validation: Validation | None = None,
    after_epoch: Callable[[SSD, dict[str, float]], dict[str, float]] | None = None,
    after_line: Callable[[SSD, dict[str, float]], None] | None = None,
) -> SSD:
    """Train a model and keep everything about the run in a folder.

    In a process group (`ssdlib.engine.processes.process_group`) the processes share the images of each step, and the
    run is the same as that of one process within rounding. Rank 0 alone writes.

    Args:
        config: the run. A precision or memory format "auto" is what is fastest on the device.
        dataset: the training images; its `classes` name the labels.
        out: folder for config.json, log.jsonl and, in the end, model.safetensors. While the run goes on, state.pt is
            there too. It must not hold a run already. A line of the log is for an epoch: epoch, step, learning_rate;
            localization, confidence and gradient_norm, the means over its steps; images_per_second; waiting, the
            fraction of the time in which no image was ready; seconds since the start; what the validation measured and
            `after_epoch` gave; and, in float16, how many steps were skipped, if any. Within an epoch every 100 steps
            add a line without "epoch", of means over the steps since the line before.
        workers: processes that load images.
        device: where the network is computed.
        progress: show a bar on stderr.
        notes: further entries of config.json.
        resume: go on with the run in `out`, from the last state that it saved. On a CPU it ends with the same weights
            as a run that was never stopped, bit for bit.
        save_every: steps between two states. Ctrl-C saves one, too.
        weights: file with the classifier's weights, for `config.pretrained`; without it torchvision downloads them.
        init: a detector to start from, of the same architecture, whatever its classes; the model takes over its priors
            and its normalisation of images, too. See `ssdlib.zoo.transfer.take_over`.
        recipe: priors, in place of the architecture's or of those of `init`, whose heads are new then.
        validation: images to measure the model on, as it would be saved. The weights of the best mAP are kept as
            best.safetensors.
        after_epoch: is called after each epoch, in every process, with the model as it would be saved (in evaluation
            mode) and the line of the log; returns further entries of the line.
        after_line: is called after each line of the log, in rank 0, with that model and the line.

    Returns:
        The trained model (averaged weights, if the configuration says so), in evaluation mode, on the CPU.

    Raises:
        FileExistsError: if `out` holds a run and `resume` is not set.
        FloatingPointError: if a loss or the gradient stops being finite; the message names the step and the images.
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
        ValueError: if the data set is empty, the batch cannot be shared by the processes, the settings contradict each
            other, or the run in `out` is not the one to be resumed.
    """
    out, device = Path(out), torch.device(device)
    if len(dataset) == 0:
        raise ValueError("no images to train on")
    if config.patience and validation is None:
        raise ValueError("patience needs validation images, on which to see that nothing gets better")
    writes = processes.rank() == 0
    batches = Batches(len(dataset), config.batch_size, config.seed, processes.rank(), processes.world_size())
    if resume:
        config = run_folder.with_its_choices(config, out)
    described = {
        "config": asdict(config),
        "classes": list(dataset.classes),
        "images": len(dataset),
        "fingerprint": fingerprint(dataset),
        "priors": None if recipe is None else recipe.to_dict(),
        "val_fingerprint": None if validation is None else fingerprint(validation.dataset),
    }
    with locked(out) if writes else nullcontext(), fastest_convolutions(device):
        if writes:
            run_folder.require_ready(out, described, resume)
        processes.barrier()
        if run_folder.finished(out):
            run_folder.end(out)
            return load_model(out / run_folder.MODEL)

        torch.manual_seed(config.seed)
        model = starting_model(config, dataset.classes, weights, init, recipe, progress and writes)
        config, tried = with_choices(config, model, device, progress and writes)
        described["config"] = asdict(config)
        if writes:
            run_folder.begin(out, {**described, **({"step_seconds": tried} if tried else {}), **(notes or {})})
        model = model.to(device).to(memory_format=in_memory(config.memory_format))
        average = copy.deepcopy(model).eval()
        model = processes.with_shared_statistics(model, device)
        network = processes.shared(compiled(model, config) if config.compile else model, device)
        losses = compiled_losses(model, config) if config.compile else processes.shared_losses
        average.load_state_dict(model.state_dict())  # the weights of rank 0
        state = TrainState.start(model, config)
        state.average = average
        side = model.recipe.image_size
        lost = getattr(dataset, "smaller_than_a_pixel", lambda _: 0)(side)
        if lost and writes:
            warnings.warn(
                f"{counted(lost, 'object')} smaller than a pixel at {side} x {side}, left out", DataWarning, 2
            )
        on_device = config.augment_on == "device"
        images = TrainingImages(dataset, model.recipe.image_size, config.augmentation, config.seed, on_device)
        loader = make_loader(images, batches, workers, device)
        so_far = run_folder.load_state(out, state) if resume else run_folder.Progress()
        processes.barrier()  # nobody goes on to write before all have read
        if writes:
            run_folder.cut_log(out, state.step)
        started = time.monotonic() - so_far.seconds

        def ended() -> bool:
            impatient = 0 < config.patience <= so_far.best["since"]
            return state.step >= config.iterations or impatient

        def add_line(line: dict[str, float], sums: dict[str, float]) -> None:
            """Add a line to the log, and begin its sums anew."""
            line["seconds"] = round(so_far.seconds, 2)
            if writes:
                with space_for(out / run_folder.LOG):
                    run_folder.add_to_log(out, line)
                if after_line is not None:
                    after_line(average, line)
            so_far.begin(sums, time.monotonic() - started)

        def validate(line: dict[str, float], validation: Validation) -> None:
            """Measure, put it into the line, and keep the weights if they are the best."""
            try:
                line |= validation.measure(average, workers)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}, in the validation after step {state.step}") from error
            if so_far.is_best(line.get("mAP", 0.0), state.step) and writes:
                noted = {**described, **so_far.best, "seconds": round(so_far.seconds, 2)}
                save_model(average, out / run_folder.BEST, training=noted)

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
            stream = steps_marked(timed(endless(loader, batches, state.step), so_far), config)
            loop = device_training_loop if device.type in processes.ON_DEVICE else training_loop
            steps = loop(state, stream, config, network=network, losses=losses)
            while not ended():
                place, epoch = state.step % len(batches), state.step // len(batches) + 1
                try:
                    measured = next(steps)
                except FloatingPointError as error:
                    batches.order.epoch = epoch - 1  # where the next epoch was begun
                    names = ", ".join(image_name(dataset, index) for index in batches.images(place))
                    raise FloatingPointError(f"{error}; the images of this step (epoch {epoch}): {names}") from error
                so_far.add(measured, min(config.batch_size, len(dataset)))
                bar.update()
                so_far.seconds = time.monotonic() - started
                last = state.step == config.iterations
                ends_epoch = last or place + 1 == len(batches)
                saves = last or (state.step % save_every == 0)
                stop = stop_requested()  # asked once: a signal that comes later waits for the next step
                if ends_epoch or saves or stop:
                    require_finite(state)
                if ends_epoch or state.step % SHOW_EVERY == 0:
                    means = so_far.means(so_far.line)
                    bar.set_postfix({name: f"{means[name]:.3f}" for name in LOSSES}, refresh=False)
                line = {"step": state.step, "learning_rate": measured["learning_rate"]}
                if ends_epoch:
                    line = {"epoch": epoch, **line, **so_far.means(so_far.epoch)}
                    if validation is not None and (last or epoch % validation.every == 0):
                        validate(line, validation)
                    if after_epoch is not None:
                        line |= after_epoch(average, line)
                    so_far.begin(so_far.line, time.monotonic() - started)
                    add_line(line, so_far.epoch)
                elif (place + 1) % LINE_EVERY == 0:
                    add_line(line | so_far.means(so_far.line), so_far.line)
                if writes and (saves or stop or ended()):
                    run_folder.save_state(out, state, so_far)  # at the end, too: the model may find no space
                if stop and not ended():
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


def starting_model(
    config: TrainConfig,
    classes: Sequence[str],
    weights: str | Path | None = None,
    init: SSD | None = None,
    recipe: PriorRecipe | None = None,
    say: bool = False,
) -> SSD:
    """The model at the start of a run: random weights, the backbone of a classifier if `config.pretrained`, or `init`.

    With several processes only rank 0 loads the classifier; the others get its weights from there. `say` tells on
    stderr what was taken over from `init`.

    Raises:
        ValueError, OSError: as `ssdlib.zoo.imagenet.classifier_weights` and `ssdlib.zoo.transfer.take_over`; if
            `config.freeze` names no part; if the recipe is for another network; or if the start is to be a classifier
            and a detector.
    """
    if recipe is not None:
        require_fitting(config.architecture, recipe)
    options: dict[str, Any] = {}
    if init is not None:
        if config.pretrained:
            raise ValueError("a run starts from a detector or from a classifier (pretrained), not from both")
        if config.architecture != init.architecture:
            raise ValueError(f"{config.architecture} cannot start from {init.architecture}: it is another network")
        options = {"recipe": init.recipe, "activation": init.activation}
        options |= {"mean": init.mean.flatten().tolist(), "std": init.std.flatten().tolist()}
    elif config.pretrained and processes.rank() == 0:
        options = {"classifier_weights": classifier_weights(config.architecture, weights)}
    if recipe is not None:
        options["recipe"] = recipe
    try:
        model = build_model(config.architecture, classes, **options)
    except KeyError as error:
        raise ValueError(f"{weights} lacks the tensor {error}: it is not the classifier that was asked for") from error
    if init is not None:
        done = take_over(model, init, heads=same_priors(model, init))
        if say:
            tqdm.write(f"start: {done}", file=sys.stderr)
    if config.freeze:
        parts = [part.strip() for part in config.freeze.split(",")]
        try:
            model.freeze(name for part in parts for name in (early_parts(model) if part == EARLY else (part,)))
        except ValueError as error:
            raise ValueError(f"freeze {config.freeze!r}: {error}; {EARLY!r} stands for the first layers") from None
    return model


def require_fitting(architecture: str, recipe: PriorRecipe) -> None:
    """Refuse priors for maps that a network does not have.

    Raises:
        ValueError: the message names the recipe and the sizes of the maps.
    """
    with torch.device("meta"):  # shapes without numbers
        side = recipe.image_size
        build_model(architecture, ["object"], recipe=recipe).eval()(torch.zeros(1, 3, side, side))


def timed(batches: Iterable[_Batch], progress: run_folder.Progress) -> Iterator[_Batch]:
    """Pass the batches on, and add up the seconds spent waiting for them."""
    asked = time.monotonic()
    for batch in batches:
        progress.waited(time.monotonic() - asked)
        yield batch
        asked = time.monotonic()
