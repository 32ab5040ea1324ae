"""`ssd evaluate`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import typer

from ssdlib import plotting
from ssdlib.checkpoint import load_model
from ssdlib.cli.common import (
    DeviceOption,
    RunArgument,
    WorkersOption,
    checkpoint_of,
    clear_errors,
    data_of,
    example,
    torch_device,
    worker_count,
)
from ssdlib.data import VOCDataset
from ssdlib.files import write_text
from ssdlib.metrics import Evaluation, evaluate
from ssdlib.training import detect_dataset

app = typer.Typer()

APRuleOption = Enum("APRuleOption", {"area": "area", "11point": "11point"}, type=str)


@app.command("evaluate", epilog=example("ssd evaluate runs/toy", "ssd evaluate runs/toy --ap 11point --json ap.json"))
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
    with clear_errors():
        model = load_model(checkpoint_of(run)).to(torch_device(device))
        dataset = VOCDataset(data or data_of(run), image_set, model.classes)
        detections, targets = detect_dataset(model, dataset, workers=worker_count(workers, device))
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
            write_text(json_file, json.dumps(figures, indent=2) + "\n")
        if plot is not None:
            plotting.use_book_style()
            figure = plt.figure(figsize=(5.2, 4.0))
            plotting.plot_precision_recall(result, model.classes, figure.add_subplot())
            figure.savefig(plot)


def _table(result: Evaluation, dataset: VOCDataset) -> str:
    width = max(5, *(len(name) for name in dataset.classes))
    rows = [f"{'class':<{width}}  objects     AP"]
    for label, value in result.per_class.items():
        rows.append(f"{dataset.classes[label - 1]:<{width}}  {result.curves[label].num_objects:7d}  {value:.3f}")
    how = f"(IoU {result.iou_threshold:g}, {result.ap}, {len(dataset)} images)"
    mean = f"{'mAP':<{width}}  {'':7}  {result.mean:.3f}   {how}"
    return "\n".join([*rows, mean])
