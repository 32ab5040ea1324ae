"""The command line: `ssd data | train | evaluate | detect | export`; every --help shows an example that runs."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer

from ssdlib import plotting
from ssdlib.checkpoint import export_model, load_model
from ssdlib.data import DataWarning, VOCDataset, check_voc, load_image, make_toy_voc
from ssdlib.metrics import Evaluation, evaluate
from ssdlib.training import PRESETS, detect_dataset, has_bfloat16, train

app = typer.Typer(help="Single Shot MultiBox Detector: make data, train, evaluate, detect.", no_args_is_help=True)
data_app = typer.Typer(help="Make and check data sets in the VOC layout.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]
APRuleOption = Enum("APRuleOption", {"area": "area", "11point": "11point"}, type=str)

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint (.safetensors).")]
DeviceOption = Annotated[str, typer.Option(help='"cpu", "cuda", "cuda:1", "mps"; "auto" takes a GPU if there is one.')]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that load images; by default 0 on a CPU, which is busy, and else 4."),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0 leaves the choice to PyTorch.")]


def _example(*commands: str) -> str:
    return "Example:\n\n" + "\n\n".join(f"    {command}" for command in commands)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Problems with files, data and arguments are messages for the user, not stack traces; other errors are bugs.

    What a data set repaired or refused is a line on stderr, without the line of source that a warning has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            usual = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, DataWarning):
                    typer.secho(
                        f"warning: {str(message).split(';')[0]}; `ssd data check` lists them", fg="yellow", err=True
                    )
                else:
                    usual(message, category, *where, **more)

            warnings.showwarning = show
            yield
    except (OSError, ValueError, FloatingPointError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


@data_app.command(epilog=_example("ssd data toy data/toy", "ssd data toy data/other --train 500 --seed 1"))
def toy(
    root: Annotated[Path, typer.Argument(help="Folder to make; it must not hold anything else.")],
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 2500,
    val: Annotated[int, typer.Option(min=0, help="Validation images.")] = 100,
    test: Annotated[int, typer.Option(min=0, help="Test images.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw a synthetic data set: six kinds of objects among clutter, in the VOC layout, without any download."""
    with _clear_errors():
        made = make_toy_voc(root, train=train, val=val, test=test, seed=seed)
    typer.echo(f"{train} training, {val} validation and {test} test images in {made}")


@data_app.command(epilog=_example("ssd data check data/toy"))
def check(root: Annotated[Path, typer.Argument(help="Folder in the VOC layout.")]) -> None:
    """Read every annotation and every image; report sizes, classes and all that is wrong.

    The exit status is 1 when an object was refused, or a file is missing or unreadable.
    """
    with _clear_errors():
        report = check_voc(root)
    typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(1)


@app.command(
    "train", epilog=_example("ssd data toy data/toy", "ssd train --preset tiny --data data/toy --out runs/toy")
)
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
    with _clear_errors():
        if bfloat16 is None:
            overrides["bfloat16"] = has_bfloat16(_device(device))
        given = {name: value for name, value in overrides.items() if value is not None}
        config = replace(PRESETS[preset.value], **given)
        dataset = VOCDataset(data, image_set)
        notes = {"data": str(data.resolve()), "image_set": image_set}
        typer.echo(f"{len(dataset)} images of {image_set!r}, classes: {', '.join(dataset.classes)}")
        train(config, dataset, out, workers=_workers(workers, device), device=_device(device), notes=notes)
    typer.echo(f"model: {out / 'model.safetensors'}")


@app.command("evaluate", epilog=_example("ssd evaluate runs/toy", "ssd evaluate runs/toy --ap 11point --json ap.json"))
def evaluate_command(
    run: RunArgument,
    data: Annotated[Path | None, typer.Option(help="Folder in the VOC layout; by default that of the run.")] = None,
    image_set: Annotated[str, typer.Option(help="Name of a file in ImageSets/Main.")] = "test",
    ap: Annotated[APRuleOption, typer.Option(help="Area under the curve (VOC 2010) or 11 points (VOC 2007).")] = (
        APRuleOption.area  # type: ignore[assignment]
    ),
    iou: Annotated[float, typer.Option(help="Overlap from which on an object counts as found.")] = 0.5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the precision-recall curves to this file.")] = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure average precision (AP) of every class, and their mean (mAP), on an image set."""
    with _clear_errors():
        model = load_model(_checkpoint(run)).to(_device(device))
        dataset = VOCDataset(data or _data_of(run), image_set, model.classes)
        detections, targets = detect_dataset(model, dataset, workers=_workers(workers, device))
        result = evaluate(detections, targets, model.num_classes, iou, ap.value)
        typer.echo(_table(result, dataset))
        if json_file is not None:
            figures = {
                "mAP": result.mean,
                "AP": {model.classes[label - 1]: value for label, value in result.per_class.items()},
                "iou_threshold": iou,
                "ap": ap.value,
                "image_set": image_set,
                "images": len(dataset),
            }
            _write(json_file, json.dumps(figures, indent=2) + "\n")
        if plot is not None:
            plotting.use_book_style()
            figure = plt.figure(figsize=(5.2, 4.0))
            plotting.plot_precision_recall(result, model.classes, figure.add_subplot())
            figure.savefig(plot)


@app.command("detect", epilog=_example("ssd detect runs/toy photo.jpg --out found.png --min-score 0.4"))
def detect_command(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write; a folder for several images.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that is reported.")] = 0.5,
    device: DeviceOption = "auto",
) -> None:
    """Find objects in images: a line for each on the screen, as JSON, and pictures with boxes if OUT is given."""
    with _clear_errors():
        if out is not None and len(images) > 1:
            out.mkdir(parents=True, exist_ok=True)
        model = load_model(_checkpoint(run)).to(_device(device))
        for path in images:
            image = load_image(path)
            (found,) = model.predict([image], min_score=min_score)
            for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
                line = {"file": str(path), "class": model.classes[label - 1], "score": round(score, 4)}
                typer.echo(json.dumps({**line, "box": [round(edge, 1) for edge in box]}))
            if out is not None:
                picture = plotting.draw_on_image(plotting.to_pil(image), found, model.classes, min_score=min_score)
                picture.save(out / f"{path.stem}.png" if len(images) > 1 else out)


@app.command("export", epilog=_example("ssd export runs/toy --out toy.pt2"))
def export_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="File to write, by custom with the ending .pt2.")],
) -> None:
    """Write the network as a program that PyTorch runs without this package.

    `torch.export.load("toy.pt2").module()` takes images (N, 3, S, S) of floats in 0..1 and gives boxes (N, P, 4) xyxy
    in fractions of the image and scores (N, P, C) after the softmax, class 0 being background: what NMS needs.
    """
    with _clear_errors():
        export_model(load_model(_checkpoint(run)), out)
    typer.echo(f"program: {out}")


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a name can be right and the device not there
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def _workers(given: int | None, device: str) -> int:
    return given if given is not None else 0 if _device(device).type == "cpu" else 4


def _checkpoint(run: Path) -> Path:
    return run / "model.safetensors" if run.is_dir() else run


def _data_of(run: Path) -> Path:
    """The data set that a run was trained on, from its config.json."""
    config = run / "config.json"
    if not config.is_file():
        raise ValueError(f"{run} does not say which data it is for: name it with --data")
    return Path(json.loads(config.read_text())["data"])


def _table(result: Evaluation, dataset: VOCDataset) -> str:
    width = max(5, *(len(name) for name in dataset.classes))
    rows = [f"{'class':<{width}}  objects     AP"]
    for label, value in result.per_class.items():
        rows.append(f"{dataset.classes[label - 1]:<{width}}  {result.curves[label].num_objects:7d}  {value:.3f}")
    how = f"(IoU {result.iou_threshold:g}, {result.ap}, {len(dataset)} images)"
    mean = f"{'mAP':<{width}}  {'':7}  {result.mean:.3f}   {how}"
    return "\n".join([*rows, mean])


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text)
    os.replace(aside, path)
