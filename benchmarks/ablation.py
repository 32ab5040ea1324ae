"""What each ingredient of SSD buys: variants that differ in one thing, each trained for the same number of steps.

    OMP_NUM_THREADS=1 python benchmarks/ablation.py --data data/toy

trains every variant of `ssdlib.family.ablation` from random weights on drawn scenes, once for each seed, measures it on
test, and writes ssdlib/engine/records/ablation.json after every run. Run again, it does what is missing, so it may be
stopped at any time. All seeds of SSD as it is come first, as how far they lie apart says which differences mean
anything; then the first seed of everything.

All runs of a seed see the same images in the same order, as far as the variant has them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import RESULTS, begun, circumstances, coco_entries, write_record
from torch.utils.data import Subset

from ssdlib.data import AnnotatedDataset, open_dataset
from ssdlib.data.transforms import Augmentation
from ssdlib.engine import PRESETS, TrainConfig, detect_dataset
from ssdlib.engine.coco_figures import evaluate_coco
from ssdlib.engine.loading import Batches, TrainingImages, endless, make_loader
from ssdlib.family.ablation import VARIANTS, Variant
from ssdlib.metrics import evaluate
from ssdlib.model import SSD
from ssdlib.training import TrainState, training_loop

COCO = ("AP", "AP75", "APs", "APm", "APl")


def configuration(variant: Variant, steps: int, seed: int, precision: str) -> TrainConfig:
    """Preset `tiny` for so many steps, with the augmentation of the variant."""
    preset = PRESETS["tiny"]
    augmentation = replace(preset.augmentation or Augmentation(), **variant.augmentation)
    return replace(preset, iterations=steps, seed=seed, precision=precision, augmentation=augmentation)


def missing(record: dict[str, Any], seeds: int, names: list[str]) -> list[tuple[int, str]]:
    """(seed, variant) of what is not done yet: all seeds of SSD as it is, then the first seed of all others, ..."""
    done = {(run["seed"], run["variant"]) for run in record["runs"]}
    order = sorted(product(range(seeds), names), key=lambda wanted: wanted[1] != "ssd")  # stable: the rest by seed
    return [wanted for wanted in order if wanted not in done]


def fit(variant: Variant, dataset: AnnotatedDataset, config: TrainConfig) -> SSD:
    """Train from random weights; the averaged network."""
    torch.manual_seed(config.seed)
    model = variant.build(len(dataset.classes) + 1).to(memory_format=torch.channels_last)
    chosen = Subset(dataset, range(variant.images)) if variant.images else dataset
    batches = Batches(len(chosen), config.batch_size, config.seed)
    images = TrainingImages(chosen, model.recipe.image_size, config.augmentation, config.seed)  # type: ignore[arg-type]  # needs no names
    stream = endless(make_loader(images, batches, 0, torch.device("cpu")), batches, 0)
    state = TrainState.start(model, config)
    for _ in training_loop(state, stream, config, losses=variant.losses):
        pass
    average: SSD = state.average  # type: ignore[assignment]
    return average


def measure(variant: Variant, config: TrainConfig, images: AnnotatedDataset, test: AnnotatedDataset) -> dict[str, Any]:
    """Train and test one variant; what the record keeps of it. Seconds are those of the training."""
    began, used = time.monotonic(), time.process_time()
    model = fit(variant, images, config)
    spent = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - used, 1)}
    found, targets = detect_dataset(model, test, progress=False)
    result = evaluate(found, targets, model.num_classes)
    coco = evaluate_coco(found, targets, model.num_classes).figures
    by_class = {test.classes[label - 1]: round(value, 4) for label, value in result.per_class.items()}
    return {"mAP": round(result.mean, 4), "AP": by_class, "coco": coco_entries(coco, COCO), **spent}


def about(variant: Variant, num_classes: int) -> dict[str, Any]:
    """What the record says of a variant, besides its runs."""
    model = variant.build(num_classes)
    fields = {**asdict(variant), "augmentation": dict(variant.augmentation)}
    return {**fields, "priors": len(model.priors), "parameters": sum(p.numel() for p in model.parameters())}


def require_same_variants(path: Path, record: dict[str, Any], num_classes: int) -> None:
    """Refuse to go on with runs of variants that were others.

    Raises:
        ValueError: the message names the variant.
    """
    for name, recorded in record["variants"].items():
        now = json.loads(json.dumps(about(VARIANTS[name], num_classes))) if name in VARIANTS else None
        if now != recorded:
            raise ValueError(f"{path} has the variant {name!r} as it was: give another --name, or remove its runs")


def main(
    data: Annotated[Path, typer.Option(help="Folder with drawn scenes, as `ssd data toy` makes it.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "ablation",
    steps: Annotated[int, typer.Option(help="Of every training.")] = 300,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.")] = 3,
    only: Annotated[list[str], typer.Option(help="Variants; by default all.")] = [],  # noqa: B006
    runs: Annotated[int, typer.Option(help="Stop after so many; 0 does all.")] = 0,
    precision: Annotated[str, typer.Option(help="Of the network while it learns.")] = "bfloat16",
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Do what is missing, and record each run at once."""
    unknown = sorted(set(only) - set(VARIANTS))
    if unknown:
        raise typer.BadParameter(f"there is no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    images = open_dataset(data, "trainval")
    test = open_dataset(data, "test", images.classes)
    most = max(variant.images for variant in VARIANTS.values())
    if len(images) < most:
        raise typer.BadParameter(f"there are {len(images)} training images in {data}, and a variant has {most}")
    settings = {
        "command": f"python benchmarks/ablation.py --data data/{data.name} --steps {steps}",
        "data": {"folder": data.name, "trainval": len(images), "test": len(test), "classes": list(images.classes)},
        "steps": steps,
        "precision": precision,
        "config": asdict(configuration(VARIANTS["ssd"], steps, 0, precision)),
    }
    path = results / f"{name}.json"
    record = begun(path, {**settings, "variants": {}}, ("data", "steps", "precision"), {"all": ("config",)})
    require_same_variants(path, record, len(images.classes) + 1)
    todo = missing(record, seeds, only or [*VARIANTS])
    if todo:
        images.cache_images(progress=False)
        test.cache_images(progress=False)
    for number, (seed, chosen) in enumerate(todo[: runs or None], start=1):
        variant = VARIANTS[chosen]
        print(f"run {number} of {len(todo)}: {chosen}, seed {seed}", flush=True)
        found = measure(variant, configuration(variant, steps, seed, precision), images, test)
        print(f"  mAP {found['mAP']:.3f} in {found['processor_seconds']:.0f} s of processor time", flush=True)
        where = {**circumstances(), "threads": torch.get_num_threads()}
        record["variants"][chosen] = about(variant, len(images.classes) + 1)
        record["runs"].append({"variant": chosen, "seed": seed, **found, **where})
        write_record(record, name, results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
