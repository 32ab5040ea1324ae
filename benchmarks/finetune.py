"""How many photographs does it take? A detector from scratch, from ImageNet and from Open Images, on few and on many.

    OMP_NUM_THREADS=2 python benchmarks/finetune.py --data data/cards

trains a detector for each start, each number of photographs of trainval and each seed, for the same number of steps,
measures it on test, and writes ssdlib/engine/records/finetune.json after every run. Run again, it does what is missing,
so it may be stopped at any time; the first seed of everything comes first.

The photographs of a seed are drawn once: 10 are the first of its 30, and so on; and every class is among the first.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import RESULTS, begun, circumstances, write_record

from ssdlib.data import AnnotatedDataset, open_dataset
from ssdlib.engine import PRESETS, TrainConfig, detect_dataset, train
from ssdlib.metrics import evaluate
from ssdlib.zoo import open_model

DETECTOR = "openimages:ssd300_mobilenet_v2"
STARTS = {
    "scratch": "the small network of this book from random weights, preset tiny_few",
    "imagenet": "SSD300 on MobileNetV2, its backbone trained to classify ImageNet, preset finetune",
    "openimages": f"the detector {DETECTOR}, preset finetune",
}
ALL = 0  # photographs, on the command line


def configuration(start: str, steps: int, seed: int, precision: str) -> TrainConfig:
    """The run of a start: its preset, but for the steps."""
    config = PRESETS["tiny_few" if start == "scratch" else "finetune"]
    if start != "scratch":
        config = replace(config, architecture="ssd300_mobilenet_v2" + ("_bn" if start == "imagenet" else ""))
    return replace(config, iterations=steps, seed=seed, precision=precision, pretrained=start == "imagenet")


def drawn(dataset: AnnotatedDataset, seed: int) -> list[int]:
    """All images in a random order, those first that bring the first object of a class."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    seen: set[int] = set()
    first, rest = [], []
    for index in order:
        labels = set(dataset.target(index)["labels"].tolist())
        (rest if labels <= seen else first).append(index)
        seen |= labels
    return first + rest


def part(dataset: AnnotatedDataset, indices: Sequence[int]) -> AnnotatedDataset:
    """Some images of a data set."""
    return AnnotatedDataset([dataset._images[index] for index in indices], dataset.classes)


def missing(record: dict[str, Any], seeds: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """(seed, images, start) of what is not done yet, the first seed of everything first."""
    done = {(run["seed"], run["images"], run["start"]) for run in record["runs"]}
    yield from (wanted for wanted in product(range(seeds), sizes, STARTS) if wanted not in done)


def measure(
    config: TrainConfig,
    images: AnnotatedDataset,
    test: AnnotatedDataset,
    start: str,
    weights: Path | None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and test; what the record keeps of it. Seconds are those of the training."""
    init = open_model(DETECTOR) if start == "openimages" else None
    began, used = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = train(
            config,
            images,
            Path(folder) / "run",
            init=init,
            weights=weights if start == "imagenet" else None,
            progress=progress,
        )
    spent = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - used, 1)}
    found, targets = detect_dataset(model, test, progress=False)
    result = evaluate(found, targets, model.num_classes)
    by_class = {model.classes[label - 1]: round(value, 4) for label, value in result.per_class.items()}
    return {"mAP": round(result.mean, 4), "AP": by_class, **spent}


def main(
    data: Annotated[Path, typer.Option(help="Folder with photographs, with the image sets trainval and test.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "finetune",
    steps: Annotated[int, typer.Option(help="Of every run.")] = 200,
    photographs: Annotated[list[int], typer.Option(help="How many; 0 is all.")] = [10, 30, 100, ALL],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="Runs of each point.")] = 3,
    runs: Annotated[int, typer.Option(help="Stop after so many; 0 does all.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="File of the ImageNet weights of MobileNetV2.")] = None,
    precision: Annotated[str, typer.Option(help="Of the network.")] = "bfloat16",
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Do what is missing, and record each run at once."""
    images = open_dataset(data, "trainval")
    test = open_dataset(data, "test", images.classes, cache=True, progress=False)
    sizes = [size or len(images) for size in photographs]
    if max(sizes) > len(images):
        raise typer.BadParameter(f"there are {len(images)} photographs in {data}, not {max(sizes)}")
    settings = {
        "command": f"python benchmarks/finetune.py --data data/{data.name} --steps {steps}",
        "data": {"folder": data.name, "trainval": len(images), "test": len(test), "classes": list(images.classes)},
        "steps": steps,
        "precision": precision,
        "starts": STARTS,
        "configs": {start: asdict(configuration(start, steps, 0, precision)) for start in STARTS},
    }
    ways = {start: ("configs", start) for start in STARTS}
    record = begun(results / f"{name}.json", settings, ("data", "steps", "precision"), ways)
    todo = list(missing(record, seeds, sizes))
    for number, (seed, size, start) in enumerate(todo[: runs or None], start=1):
        print(f"run {number} of {len(todo)}: {start}, {size} photographs, seed {seed}", flush=True)
        chosen = part(images, drawn(images, seed)[:size])
        chosen.cache_images(progress=False)
        found = measure(configuration(start, steps, seed, precision), chosen, test, start, weights)
        print(f"  mAP {found['mAP']:.3f} in {found['processor_seconds']:.0f} s of processor time", flush=True)
        where = {**circumstances(), "threads": torch.get_num_threads()}
        record["runs"].append({"start": start, "images": size, "seed": seed, **found, **where})
        write_record(record, name, results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
