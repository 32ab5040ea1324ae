"""`ssd train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ssdlib.cli.common import (
    DeviceOption,
    ThreadsOption,
    WorkersOption,
    clear_errors,
    example,
    model_of,
    torch_device,
    weights_note,
    worker_count,
)
from ssdlib.cli.outputs import some_path
from ssdlib.data import open_dataset
from ssdlib.data.names import counted
from ssdlib.engine import processes, run_folder, train
from ssdlib.engine.config import TrainConfig, with_settings
from ssdlib.engine.loading import DetectionDataset
from ssdlib.engine.presets import PRESET_NOTES, PRESETS, schedule_advice, tunes
from ssdlib.engine.run import require_fitting
from ssdlib.engine.tensorboard import tensorboard_log
from ssdlib.engine.validation import Validation, require_apart
from ssdlib.model import SSD
from ssdlib.training import PRECISIONS
from ssdlib.zoo.description import read_recipe, recipe_of

app = typer.Typer()

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]
Precision = Enum("Precision", {name: name for name in PRECISIONS}, type=str)  # type: ignore[misc]


def list_presets(wanted: bool) -> None:
    """Say what each preset is for, and end."""
    if wanted:
        for name, note in PRESET_NOTES.items():
            typer.echo(f"{name}: {note.purpose}\n    {note.command}")
            typer.echo(f"    hardware: {note.hardware}\n    time: {note.time}\n    score: {note.score}\n")
        raise typer.Exit


@app.command(
    "train",
    epilog=example(
        "ssd data toy data/toy",
        "ssd train --preset tiny --data data/toy --out runs/toy",
        "ssd train --preset tiny --data data/toy --out runs/more --set momentum=0.95 --set augmentation.crop=0.5",
        "ssd train --out runs/more --resume",
        "ssd train --preset tiny_few --init runs/toy --data my_images --image-set train --val-set val --out runs/mine",
        "ssd train --preset tiny_few --priors priors.json --data my_images --out runs/fitted",
        "torchrun --nproc-per-node 8 -m ssdlib train --preset paper --data data/VOC2007 --data data/VOC2012 "
        "--out runs/ssd300",
    ),
)
def train_command(
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the run; it must not hold one already, unless --resume.", metavar="PATH", parser=some_path
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with images and annotations (VOC or COCO); several are taken as one.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    preset: Annotated[Preset | None, typer.Option(help="Configuration to start from; by default tiny.")] = None,
    _list: Annotated[
        bool,
        typer.Option(
            "--list", callback=list_presets, is_eager=True, help="Show what each preset is for, its time and score."
        ),
    ] = False,
    image_set: Annotated[str | None, typer.Option(help="Name of the set to train on; by default trainval.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Steps, instead of the preset's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step, of all GPUs together, instead of the preset's.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest rate, instead of the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same run on a CPU.")] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Number format of the network; by default auto, what is fastest on this device."),
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Let torch.compile make the network faster.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from this file of a classifier's weights, instead of those torchvision downloads.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from this detector, of whatever classes: a run, a checkpoint, torchvision:ssd300_vgg16.",
            metavar="RUN",
            parser=some_path,
        ),
    ] = None,
    priors: Annotated[
        Path | None,
        typer.Option(
            help="Recipe of priors, as `ssd priors fit --out` writes it; heads of --init that were trained with others "
            "begin anew.",
            metavar="FILE",
            parser=some_path,
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            help='Parts that do not learn, such as "early" (the first layers), "backbone" or '
            '"backbone.stages.0,backbone.stages.1"; "" for none.'
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="name=value: any other field of TrainConfig. Can be repeated."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Go on with the run in OUT; what is not given is taken from there. If there is none, begin."),
    ] = False,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between two states that --resume can go on from.")
    ] = 500,
    val_data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with validation images, on which losses and mAP are measured in the course; the best weights "
            "are kept. By default the folders of --data, if there is --val-set.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    val_set: Annotated[
        str | None, typer.Option(help="Name of the validation set; by default val, if there is --val-data.")
    ] = None,
    val_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between two validations; by default about 20 in the run.")
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option(help="Curves and detections for TensorBoard, in OUT/events.")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Decode all images once, and keep them in memory.")] = False,
    workers: WorkersOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train a detector, with progress on the screen and in OUT/log.jsonl; the result is OUT/model.safetensors.

    Ctrl-C saves the state of the run; the same command with --resume goes on from there, also after a crash.
    """
    if threads:
        torch.set_num_threads(threads)
    given = {
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision.value if precision else None,
        "compile": compile_,
        "pretrained": True if weights is not None else None,
        "freeze": freeze,
    }
    with clear_errors(), processes.process_group(torch_device(device)) as place:
        recorded, notes = (
            run_folder.recorded_config(out) if resume and (out / run_folder.CONFIG).exists() else (None, {})
        )
        folders = absolute(data) or notes.get("data")
        if not folders:
            raise ValueError("say with --data on which images to train")
        if init is not None and weights is not None:
            raise ValueError("--init starts from a detector and --weights from a classifier: give one of them")
        start_name = name_of(init) if init else notes.get("init")
        if recorded is not None and start_name != notes.get("init"):
            raise ValueError(f"the run in {out} is another one: it started from {notes.get('init')}, not {start_name}")
        start = model_of(Path(start_name), torch.device("cpu")) if start_name else None
        recipe = read_recipe(priors) if priors else None
        if recipe is None and notes.get("priors"):
            recipe = recipe_of(notes["priors"], str(out / run_folder.CONFIG))
        config = _config(preset.value if preset else None, recorded, given, settings or [], start)
        if priors is not None and recipe is not None:
            try:
                require_fitting(config.architecture, recipe)
            except ValueError as error:
                raise ValueError(f"{priors} does not fit {config.architecture}: {error}") from None
        val_folders = absolute(val_data) or notes.get("val_data")
        notes = {
            "data": folders,
            "image_set": image_set or notes.get("image_set", "trainval"),
            "weights": str(weights.resolve()) if weights else notes.get("weights"),
            "init": start_name,
            "val_data": val_folders,
            "val_set": val_set or notes.get("val_set") or ("val" if val_folders else None),
            "val_every": val_every or notes.get("val_every"),
            "tensorboard": notes.get("tensorboard", False) if tensorboard is None else tensorboard,
        }
        dataset = processes.in_turn(lambda: open_dataset(folders, notes["image_set"], keep_crowds=False, cache=cache))
        notes["val_every"] = notes["val_every"] or _twenty_times(config, len(dataset))
        validation = None
        if notes["val_set"]:
            images = processes.in_turn(lambda: open_dataset(val_folders or folders, notes["val_set"], dataset.classes))
            validation = Validation(images, notes["val_every"])
            require_apart(dataset, images)
        count = worker_count(workers, device)
        if processes.rank() == 0:
            typer.echo(
                f"{counted(len(dataset), 'image')} of {notes['image_set']!r}, classes: {', '.join(dataset.classes)}"
            )
            if validation is not None:
                every = f"every {validation.every} epochs" if validation.every > 1 else "after each epoch"
                typer.echo(
                    f"{counted(len(validation.dataset), 'validation image')} of {notes['val_set']!r}, measured {every}"
                )
            if config.precision != "auto":
                typer.echo(f"precision: {config.precision}")
            tuned = start is not None or tunes(config)
            advice = "" if recorded else schedule_advice(config, len(dataset), tuned=tuned)
            if advice:
                typer.echo(advice)
            if recipe is not None:
                typer.echo(f"priors: {recipe.name}, {recipe.num_priors} of them")
            if resume and run_folder.finished(out):
                typer.echo(f"the run in {out} is finished")
        events = out / "events" if notes["tensorboard"] and processes.rank() == 0 else None
        try:
            train(
                config,
                dataset,
                out,
                workers=count,
                device=place,
                notes=notes,
                resume=resume,
                save_every=save_every,
                weights=notes["weights"],
                init=start,
                recipe=recipe,
                validation=validation,
                after_line=_curves(config, validation.dataset if validation else dataset, events),
            )
        except KeyboardInterrupt as stopped:
            typer.echo(f"{stopped or 'stopped'}\ngo on with: ssd train --out {out} --resume", err=True)
            raise typer.Exit(130) from None
        if processes.rank() == 0:
            typer.echo(f"model: {out / run_folder.MODEL}")
            if (out / run_folder.BEST).exists():
                typer.echo(weights_note(out).replace("weights", "best", 1))


def _config(
    preset: str | None,
    recorded: TrainConfig | None,
    given: dict[str, Any],
    settings: Sequence[str],
    start: SSD | None,
) -> TrainConfig:
    """The preset, or the configuration of the run that goes on, with the changes that the user asked for."""
    base = recorded
    if base is None or preset is not None:
        base = replace(PRESETS[preset or "tiny"], precision="auto", memory_format="auto")
    if start is not None:
        base = replace(base, architecture=str(start.architecture), pretrained=False)
    changes = {name: value for name, value in given.items() if value is not None}
    return with_settings(replace(base, **changes), settings)


def absolute(folders: Sequence[Path] | None) -> list[str] | None:
    """The folders by names that hold from any place, as config.json keeps them."""
    return [str(folder.resolve()) for folder in folders] if folders else None


def name_of(detector: Path) -> str:
    """A detector by a name that holds from any place."""
    of_zoo = ":" in str(detector) and not detector.exists()
    return str(detector) if of_zoo else str(detector.resolve())


def device_name(device: torch.device) -> str:
    """What a device is, in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"this {device.type}"


def _twenty_times(config: TrainConfig, images: int) -> int:
    """Epochs between two of about twenty validations."""
    epochs = config.iterations / max(1, images // config.batch_size)
    return max(1, round(epochs / 20))


def _curves(
    config: TrainConfig, dataset: DetectionDataset, events: Path | None
) -> Callable[[SSD, dict[str, float]], None] | None:
    """What draws the log in TensorBoard."""
    if events is None:
        return None
    return tensorboard_log(events, dataset, every=max(1, config.iterations // 20))
