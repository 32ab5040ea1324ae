"""`ssd evaluate`."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from ssdlib import plotting
from ssdlib.cli.analysis_pictures import confusion_figure
from ssdlib.cli.common import (
    BatchSizeOption,
    DataOption,
    DeviceOption,
    ImageSetOption,
    MaxOverlapOption,
    MinScoreOption,
    ModelArgument,
    TopKOption,
    WorkersOption,
    checkpoint_of,
    clear_errors,
    data_of,
    example,
    model_of,
    provenance,
    torch_device,
    weights_note,
    worker_count,
)
from ssdlib.cli.outputs import require_ending, require_outside, require_writable, some_path
from ssdlib.data import open_dataset
from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.files import replaced, write_text
from ssdlib.data.names import counted
from ssdlib.engine import detect_dataset
from ssdlib.engine.coco_figures import evaluate_coco
from ssdlib.engine.processes import process_group, rank
from ssdlib.metrics import APRule, ConfusionMatrix, Evaluation, Images, confusion_matrix, evaluate
from ssdlib.model import SSD

app = typer.Typer()

CONFUSION_SCORE = 0.3
"""What is taken for what is counted at one score, as in use: AP's least score would count thousands of guesses."""

APRuleOption = Enum("APRuleOption", {"area": "area", "11point": "11point", "coco": "coco"}, type=str)


@app.command(
    "evaluate",
    epilog=example(
        "ssd evaluate runs/toy",
        "ssd evaluate runs/toy --ap 11point --json ap.json --plot curves.png --confusion mistakes.png",
        "ssd evaluate runs/ssd300 --data data/VOC2007 --ap 11point --json voc07.json",
    ),
)
def evaluate_command(
    run: ModelArgument,
    data: DataOption = None,
    image_set: ImageSetOption = "test",
    ap: Annotated[
        APRuleOption,
        typer.Option(help="Area under the curve (VOC 2010), 11 points (VOC 2007), or COCO's mean over 10 overlaps."),
    ] = APRuleOption.area,  # type: ignore[attr-defined]
    iou: Annotated[float, typer.Option(help="Overlap from which on an object counts as found; not for COCO.")] = 0.5,
    inclusive: Annotated[
        bool, typer.Option("--inclusive", hidden=True, help="Refused: boxes are read as edges already.")
    ] = False,
    min_score: MinScoreOption = 0.01,
    max_overlap: MaxOverlapOption = 0.45,
    top_k: TopKOption = 200,
    batch_size: BatchSizeOption = 16,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures to this file too.", metavar="PATH", parser=some_path),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the precision-recall curves to this file.", metavar="PATH", parser=some_path),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(help="Draw the confusion matrix to this file.", metavar="PATH", parser=some_path),
    ] = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure average precision (AP) of every class, and their mean (mAP), on an image set.

    Of a run with validation images these are its best weights, also while it goes on; of another one its last.

    Objects marked difficult need not be found, and a detection of one does not count. Images a second are those of
    reading, network and NMS together. Under torchrun the processes share the images.
    """
    with clear_errors(), process_group(torch_device(device)) as own_device:
        asked = Asked(
            run=run,
            folders=data or data_of(run),
            image_set=image_set,
            ap=ap.value,
            iou=iou,
            detection={"min_score": min_score, "max_overlap": max_overlap, "top_k": top_k},
            json_file=json_file,
            plot=plot,
            confusion=confusion,
        )
        validate(asked)
        if inclusive:
            raise ValueError(
                "--inclusive would count the last pixel of each box twice: the boxes of VOC and COCO folders are read "
                "as edges, with that pixel inside. Without it the overlaps are those of VOC's own program"
            )
        note = weights_note(run)
        model = model_of(run, own_device)
        dataset = open_dataset(asked.folders, image_set, model.classes)
        require_inputs_kept(asked, dataset)
        measured = measure(asked, model, dataset, batch_size, worker_count(workers, device))
        if rank() == 0:
            if note:
                typer.echo(note)
            show(asked, measured, model)
            if json_file is not None:
                write_text(json_file, json.dumps(record(asked, measured, model), indent=2, allow_nan=False) + "\n")
            if plot is not None:
                draw(plot, curves_figure(measured, model))
            if confusion is not None:
                draw(confusion, confusion_figure(measured.confusion, model.classes)[0])


class Asked(NamedTuple):
    """What is to be measured, how, and where the results go."""

    run: Path
    folders: Sequence[Path]
    image_set: str
    ap: str  # "area", "11point" or "coco"
    iou: float
    detection: dict[str, Any]  # options of `ssdlib.detection.detect`
    json_file: Path | None
    plot: Path | None
    confusion: Path | None

    @property
    def outputs(self) -> list[Path]:
        """The files that are written."""
        return [path for path in (self.json_file, self.plot, self.confusion) if path is not None]

    @property
    def thresholds(self) -> str | float:
        """The overlaps at which an object counts as found."""
        return "0.5:0.95" if self.ap == "coco" else self.iou


class Measured(NamedTuple):
    """The figures of a detector on an image set."""

    mean: float  # mAP
    per_class: dict[str, float]  # AP
    coco: dict[str, float] | None  # COCO's figures, where they were asked for
    curves: Evaluation
    confusion: ConfusionMatrix  # of the detections from `CONFUSION_SCORE` on
    objects: dict[str, int]  # of each class, those that count
    difficult: int
    images: int
    seconds: float  # of reading, network and NMS


class Objects(NamedTuple):
    """How many objects of each class count, and how many are difficult and do not."""

    counts: dict[str, int]
    difficult: int


def validate(asked: Asked) -> None:
    """Refuse what could only fail when all is measured.

    Raises:
        ValueError: options do not fit each other or are out of range, or a file cannot be written as it is named.
        OSError: a file cannot be written.
    """
    if asked.ap == "coco":
        if asked.iou != 0.5:
            raise ValueError("--ap coco has its own overlaps: leave out --iou")
        if importlib.util.find_spec("pycocotools") is None:
            raise ValueError("COCO's figures need pycocotools: pip install pycocotools")
    if not 0 < asked.iou <= 1:
        raise ValueError(f"--iou must be above 0 and at most 1, got {asked.iou:g}")
    for picture in (asked.plot, asked.confusion):
        if picture is not None:
            require_ending(picture, [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()])
    for output in asked.outputs:
        require_writable(output, [checkpoint_of(asked.run)])
        require_outside(output, asked.folders)
    names = [os.path.realpath(output) for output in asked.outputs]
    if twice := [output for output, name in zip(asked.outputs, names, strict=True) if names.count(name) > 1]:
        raise ValueError(f"two of --json, --plot and --confusion are the same file, {twice[-1]}")


def require_inputs_kept(asked: Asked, dataset: AnnotatedDataset) -> None:
    """Refuse outputs that would replace an image of the data set. Raises ValueError."""
    for output in asked.outputs:
        require_writable(output, map(dataset.image_path, range(len(dataset))))


def measure(asked: Asked, model: SSD, dataset: AnnotatedDataset, batch_size: int, workers: int) -> Measured:
    """Detect objects in all images, and compare with those that are there."""
    started = time.perf_counter()
    found, targets = detect_dataset(model, dataset, batch_size=batch_size, workers=workers, **asked.detection)
    seconds = time.perf_counter() - started
    rule: APRule = "11point" if asked.ap == "11point" else "area"
    curves = evaluate(found, targets, model.num_classes, asked.iou, rule)
    mean, per_class, figures = curves.mean, curves.per_class, None
    if asked.ap == "coco":
        coco = evaluate_coco(found, targets, model.num_classes)
        mean, per_class, figures = coco.figures["AP"], coco.per_class, coco.figures
    named = {model.classes[label - 1]: value for label, value in per_class.items()}
    nearly = min(0.1, asked.iou / 2)  # overlap of a badly placed box: it has to be below that of a right one
    confusion = confusion_matrix(found, targets, model.num_classes, CONFUSION_SCORE, asked.iou, nearly)
    objects = count_objects(targets, model.classes)
    return Measured(mean, named, figures, curves, confusion, *objects, len(dataset), seconds)


def show(asked: Asked, measured: Measured, model: SSD) -> None:
    """Print the figures."""
    thresholds = asked.thresholds if isinstance(asked.thresholds, str) else f"{asked.thresholds:g}"
    typer.echo(_table(measured, f"(IoU {thresholds}, {asked.ap}, {counted(measured.images, 'image')})"))
    if measured.coco is not None:
        typer.echo("  ".join(f"{name} {value:.3f}" for name, value in measured.coco.items()))
    typer.echo(_taken_for_what(measured.confusion))
    rate = measured.images / measured.seconds
    typer.echo(f"{counted(measured.images, 'image')} in {measured.seconds:.1f} s: {rate:.1f} images/s")


def record(asked: Asked, measured: Measured, model: SSD) -> dict[str, Any]:
    """The figures, with all that they depend on, as JSON has it: what could not be measured is null."""
    entries = {
        "mAP": measured.mean,
        "AP": measured.per_class,
        **({} if measured.coco is None else {"coco": measured.coco}),
        "iou_threshold": asked.thresholds,
        "ap": asked.ap,
        "inclusive": measured.curves.inclusive,
        "image_set": asked.image_set,
        "images": measured.images,
        "objects": measured.objects,
        "difficult": measured.difficult,
        "confusion": {
            "min_score": CONFUSION_SCORE,
            "labels": ["background", *model.classes],
            "counts": measured.confusion.counts.tolist(),
            "duplicates": measured.confusion.duplicates.tolist(),
            "misplaced": measured.confusion.misplaced.tolist(),
        },
        "detection": asked.detection,
        "speed": {
            "seconds": round(measured.seconds, 3),
            "images_per_second": round(measured.images / measured.seconds, 2),
            "device": _device_name(model.priors.device),
        },
        **provenance(asked.run, model, asked.folders),
    }
    without_nan: dict[str, Any] = _without_nan(entries)
    return without_nan


def curves_figure(measured: Measured, model: SSD) -> Figure:
    """The precision-recall curves, drawn."""
    plotting.use_book_style()
    figure = plt.figure(figsize=(5.2, 4.0))
    plotting.plot_precision_recall(measured.curves, model.classes, figure.add_subplot())
    return figure


def draw(path: Path, figure: Figure) -> None:
    """Write a figure to a file, and close it."""
    try:
        with replaced(path) as aside:
            figure.savefig(aside)
    finally:
        plt.close(figure)


def count_objects(targets: Images, classes: Sequence[str]) -> Objects:
    """Count the objects of an image set."""
    counts = dict.fromkeys(classes, 0)
    difficult = 0
    for target in targets:
        for label, hard in zip(target["labels"].tolist(), target["difficult"].tolist(), strict=True):
            counts[classes[label - 1]] += not hard
            difficult += hard
    return Objects({name: count for name, count in counts.items() if count}, difficult)


def _table(measured: Measured, how: str) -> str:
    width = max(5, *(len(name) for name in measured.per_class), 0)
    rows = [f"{'class':<{width}}  objects     AP"]
    rows += [f"{name:<{width}}  {measured.objects[name]:7d}  {ap:.3f}" for name, ap in measured.per_class.items()]
    return "\n".join([*rows, f"{'mAP':<{width}}  {sum(measured.objects.values()):7d}  {measured.mean:.3f}   {how}"])


def _taken_for_what(confusion: ConfusionMatrix) -> str:
    """The sums of the confusion matrix in a line; the record has the whole of it."""
    counts = confusion.counts
    right = counts.diagonal()[1:].sum()
    wrong, missed, nothing = counts[1:, 1:].sum() - right, counts[1:, 0].sum(), counts[0, 1:].sum()
    return (
        f"from a score of {CONFUSION_SCORE:g} on: {right} right, {wrong} of another class, {missed} missed, {nothing} "
        f"without an object ({confusion.duplicates.sum()} duplicates, {confusion.misplaced.sum()} badly placed)"
    )


def _without_nan(value: Any) -> Any:
    """JSON has no nan: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
