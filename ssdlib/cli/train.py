"""`ssd train`."""

from __future__ import annotations

import math
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
    torch_device,
    worker_count,
)
from ssdlib.cli.outputs import some_path
from ssdlib.data import open_dataset
from ssdlib.engine import detect_dataset, processes, run_folder, train
from ssdlib.engine.config import TrainConfig, with_settings
from ssdlib.engine.loading import DetectionDataset
from ssdlib.engine.presets import PRESET_NOTES, PRESETS
from ssdlib.engine.run import has_bfloat16
from ssdlib.engine.tensorboard import tensorboard_log
from ssdlib.metrics import evaluate
from ssdlib.model import SSD

app = typer.Typer()

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]


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
    bfloat16: Annotated[
        bool | None,
        typer.Option(help="Compute the network in bfloat16; by default where the processor is made for it."),
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
    val_set: Annotated[
        str | None, typer.Option(help="Measure the mAP (area, IoU 0.5) of this set of the same data in the course.")
    ] = None,
    val_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between two such measurements; by default 10.")
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
        "bfloat16": bfloat16,
        "compile": compile_,
        "pretrained": True if weights is not None else None,
    }
    with clear_errors(), processes.process_group(torch_device(device)) as place:
        recorded, notes = (
            run_folder.recorded_config(out) if resume and (out / run_folder.CONFIG).exists() else (None, {})
        )
        folders = [str(folder.resolve()) for folder in data] if data else notes.get("data")
        if not folders:
            raise ValueError("say with --data on which images to train")
        config = _config(preset.value if preset else None, recorded, given, settings or [], place)
        notes = {
            "data": folders,
            "image_set": image_set or notes.get("image_set", "trainval"),
            "weights": str(weights.resolve()) if weights else notes.get("weights"),
            "val_set": val_set or notes.get("val_set"),
            "val_every": val_every or notes.get("val_every", 10),
            "tensorboard": notes.get("tensorboard", False) if tensorboard is None else tensorboard,
        }
        dataset = open_dataset(folders, notes["image_set"], keep_crowds=False, cache=cache)
        validation = open_dataset(folders, notes["val_set"], dataset.classes) if notes["val_set"] else None
        count = worker_count(workers, device)
        if processes.rank() == 0:
            typer.echo(f"{len(dataset)} images of {notes['image_set']!r}, classes: {', '.join(dataset.classes)}")
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
                after_epoch=_after_epoch(config, dataset, validation, notes["val_every"], events, count),
            )
        except KeyboardInterrupt as stopped:
            typer.echo(f"{stopped or 'stopped'}\ngo on with: ssd train --out {out} --resume", err=True)
            raise typer.Exit(130) from None
        if processes.rank() == 0:
            typer.echo(f"model: {out / run_folder.MODEL}")


def _config(
    preset: str | None,
    recorded: TrainConfig | None,
    given: dict[str, Any],
    settings: Sequence[str],
    device: torch.device,
) -> TrainConfig:
    """The preset, or the configuration of the run that goes on, with the changes that the user asked for."""
    if recorded is not None:
        base = recorded if preset is None else replace(PRESETS[preset], bfloat16=recorded.bfloat16)
    else:
        base = replace(PRESETS[preset or "tiny"], bfloat16=has_bfloat16(device))
    changes = {name: value for name, value in given.items() if value is not None}
    return with_settings(replace(base, **changes), settings)


def _after_epoch(
    config: TrainConfig,
    dataset: DetectionDataset,
    validation: DetectionDataset | None,
    every: int,
    events: Path | None,
    workers: int,
) -> Callable[[SSD, dict[str, float]], dict[str, float]]:
    """What is measured and shown after an epoch: the mAP of the validation images, and TensorBoard."""
    log = None
    if events is not None:
        log = tensorboard_log(events, validation or dataset, every=max(1, config.iterations // 20))

    def after_epoch(model: SSD, line: dict[str, float]) -> dict[str, float]:
        extra: dict[str, float] = {}
        if validation is not None and (line["epoch"] % every == 0 or line["step"] == config.iterations):
            detections, targets = detect_dataset(model, validation, workers=workers, progress=False)
            mean = evaluate(detections, targets, model.num_classes).mean
            if math.isfinite(mean):  # it is nan where no object counts
                extra["mAP"] = mean
        if log is not None:
            log(model, {**line, **extra})
        return extra

    return after_epoch
