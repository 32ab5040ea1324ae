"""`ssd train`."""

from __future__ import annotations

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
from ssdlib.data import VOCDataset
from ssdlib.training import PRESETS, has_bfloat16, train

app = typer.Typer()

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]


@app.command("train", epilog=example("ssd data toy data/toy", "ssd train --preset tiny --data data/toy --out runs/toy"))
def train_command(
    data: Annotated[Path, typer.Option(help="Folder in the VOC layout.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; it must not hold one already.")],
    preset: Annotated[Preset, typer.Option(help="Configuration to start from.")] = Preset.tiny,  # type: ignore[attr-defined]
    image_set: Annotated[str, typer.Option(help="Name of a file in ImageSets/Main.")] = "trainval",
    iterations: Annotated[int | None, typer.Option(min=1, help="Steps, instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step, instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest rate, instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same run on a CPU.")] = 0,
    bfloat16: Annotated[
        bool | None,
        typer.Option(help="Compute the network in bfloat16; by default where the processor is made for it."),
    ] = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train a detector, with progress on the screen and in OUT/log.jsonl; the result is OUT/model.safetensors."""
    overrides: dict[str, Any] = {
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "bfloat16": bfloat16,
        "seed": seed,
    }
    if threads:
        torch.set_num_threads(threads)
    with clear_errors():
        if bfloat16 is None:
            overrides["bfloat16"] = has_bfloat16(torch_device(device))
        given = {name: value for name, value in overrides.items() if value is not None}
        config = replace(PRESETS[preset.value], **given)
        dataset = VOCDataset(data, image_set)
        notes = {"data": str(data.resolve()), "image_set": image_set}
        typer.echo(f"{len(dataset)} images of {image_set!r}, classes: {', '.join(dataset.classes)}")
        train(config, dataset, out, workers=worker_count(workers, device), device=torch_device(device), notes=notes)
    typer.echo(f"model: {out / 'model.safetensors'}")
