"""`ssd evaluate`."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import time
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import torchvision
import typer

import ssdlib
from ssdlib import plotting
from ssdlib.cli.common import (
    DeviceOption,
    ModelArgument,
    WorkersOption,
    clear_errors,
    data_of,
    example,
    model_of,
    torch_device,
    worker_count,
)
from ssdlib.data import open_dataset
from ssdlib.data.files import replaced, write_text
from ssdlib.engine import detect_dataset
from ssdlib.engine.processes import process_group, rank
from ssdlib.metrics import APRule, Images, evaluate, evaluate_coco
from ssdlib.model import SSD

app = typer.Typer()

APRuleOption = Enum("APRuleOption", {"area": "area", "11point": "11point", "coco": "coco"}, type=str)
_COCO_THRESHOLDS = "0.5:0.95"


@app.command(
    "evaluate",
    epilog=example(
        "ssd evaluate runs/toy",
        "ssd evaluate runs/toy --ap 11point --json ap.json --plot curves.png",
        "ssd evaluate runs/ssd300 --data data/VOC2007 --ap 11point --inclusive",
    ),
)
def evaluate_command(
    run: ModelArgument,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with images and annotations; several are taken as one. By default that of the run."),
    ] = None,
    image_set: Annotated[str, typer.Option(help="Name of the image set.")] = "test",
    ap: Annotated[
        APRuleOption,
        typer.Option(help="Area under the curve (VOC 2010), 11 points (VOC 2007), or COCO's mean over 10 overlaps."),
    ] = APRuleOption.area,  # type: ignore[attr-defined]
    iou: Annotated[float, typer.Option(help="Overlap from which on an object counts as found; not for COCO.")] = 0.5,
    inclusive: Annotated[
        bool, typer.Option("--inclusive", help="Boxes include their last pixel, as VOC's own program has it.")
    ] = False,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection.")] = 0.01,
    max_overlap: Annotated[float, typer.Option(min=0, max=1, help="Of two detections of a class (NMS).")] = 0.45,
    top_k: Annotated[int, typer.Option(min=1, help="Most detections of an image.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the precision-recall curves to this file.")] = None,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure average precision (AP) of every class, and their mean (mAP), on an image set.

    Objects marked difficult need not be found, and a detection of one does not count. Images a second are those of
    reading, network and NMS together. Under torchrun the processes share the images.
    """
    with clear_errors(), process_group(torch_device(device)) as own_device:
        coco = ap.value == "coco"
        if coco and (iou != 0.5 or inclusive):
            raise ValueError("--ap coco has its own rules for boxes and overlaps: leave out --iou and --inclusive")
        if coco and importlib.util.find_spec("pycocotools") is None:
            raise ValueError("COCO's figures need pycocotools: pip install pycocotools")
        model = model_of(run, own_device)
        folders = data or data_of(run)
        dataset = open_dataset(folders, image_set, model.classes)
        options: dict[str, Any] = {"min_score": min_score, "max_overlap": max_overlap, "top_k": top_k}
        started = time.perf_counter()
        detections, targets = detect_dataset(
            model, dataset, batch_size=batch_size, workers=worker_count(workers, device), **options
        )
        seconds = time.perf_counter() - started
        if rank() > 0:
            return
        counts, difficult = _objects(targets, model)
        figures: dict[str, Any] = {}
        rule: APRule = "11point" if ap.value == "11point" else "area"
        curves = evaluate(detections, targets, model.num_classes, iou, rule, inclusive)
        mean, per_class = curves.mean, curves.per_class
        if coco:
            result = evaluate_coco(detections, targets, model.num_classes)
            figures, per_class = {"coco": result.figures}, result.per_class
            mean = result.figures["AP"]
        thresholds = _COCO_THRESHOLDS if coco else f"{iou:g}"
        named = {model.classes[label - 1]: value for label, value in per_class.items()}
        typer.echo(_table(named, mean, counts, f"(IoU {thresholds}, {ap.value}, {len(dataset)} images)"))
        if coco:
            typer.echo("  ".join(f"{name} {value:.3f}" for name, value in figures["coco"].items()))
        typer.echo(f"{len(dataset)} images in {seconds:.1f} s: {len(dataset) / seconds:.1f} images/s")
        if json_file is not None:
            record = {
                "mAP": mean,
                "AP": named,
                **figures,
                "iou_threshold": _COCO_THRESHOLDS if coco else iou,
                "ap": ap.value,
                "inclusive": inclusive,
                "image_set": image_set,
                "images": len(dataset),
                "objects": counts,
                "difficult": difficult,
                "detection": options,
                "model": {
                    "file": str(run),
                    "architecture": model.architecture,
                    "recipe": model.recipe.name,
                    "classes": list(model.classes),
                },
                "data": [str(folder) for folder in folders],
                "speed": {
                    "seconds": round(seconds, 3),
                    "images_per_second": round(len(dataset) / seconds, 2),
                    "device": _device_name(own_device),
                },
                "date": date.today().isoformat(),
                "versions": {
                    "python": platform.python_version(),
                    "ssdlib": ssdlib.__version__,
                    "torch": torch.__version__,
                    "torchvision": torchvision.__version__,
                },
            }
            write_text(json_file, json.dumps(_without_nan(record), indent=2, allow_nan=False) + "\n")
        if plot is not None:
            plotting.use_book_style()
            figure = plt.figure(figsize=(5.2, 4.0))
            plotting.plot_precision_recall(curves, model.classes, figure.add_subplot())
            with replaced(plot) as aside:
                figure.savefig(aside)
            plt.close(figure)


def _objects(targets: Images, model: SSD) -> tuple[dict[str, int], int]:
    """How many objects of each class count, and how many are difficult and do not."""
    counts = dict.fromkeys(model.classes, 0)
    difficult = 0
    for target in targets:
        for label, hard in zip(target["labels"].tolist(), target["difficult"].tolist(), strict=True):
            counts[model.classes[label - 1]] += not hard
            difficult += hard
    return {name: count for name, count in counts.items() if count}, difficult


def _table(per_class: Mapping[str, float], mean: float, counts: Mapping[str, int], how: str) -> str:
    width = max(5, *(len(name) for name in per_class), 0)
    rows = [f"{'class':<{width}}  objects     AP"]
    rows += [f"{name:<{width}}  {counts[name]:7d}  {value:.3f}" for name, value in per_class.items()]
    return "\n".join([*rows, f"{'mAP':<{width}}  {sum(counts.values()):7d}  {mean:.3f}   {how}"])


def _without_nan(value: Any) -> Any:
    """JSON has no nan: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
