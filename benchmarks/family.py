"""The family in one table: every relative learns from the same images for as many seconds of one processor.

    OMP_NUM_THREADS=1 python benchmarks/family.py --drawn data/toy --photographs data/cards

trains each relative of `ssdlib.family.relatives` from random weights on drawn scenes (preset `tiny`) and on photographs
(preset `tiny_few`), once for each seed, measures it on test, and writes ssdlib/engine/records/family.json after every
run; of the first seed on drawn scenes it also writes the weights, in half precision. Run again, it does what is
missing, so it may be stopped at any time; the first seed of everything comes first. What was measured of an older
version of a relative (`Relative.version`) is missing, too, and leaves the record with the first run of the new one. At
the end, and with `--runs 0` at once, it times all relatives that have weights, by turns in one process.

All see the same batches in the same order with the same augmentation, by the same optimiser. The learning rate follows
the share of the seconds that are used, so a network with quick steps takes more of them, and sees more images.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import RESULTS, begun, circumstances, coco_entries, write_record
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode

from ssdlib.data import AnnotatedDataset, open_dataset
from ssdlib.data.files import replaced
from ssdlib.data.transforms import model_input
from ssdlib.engine import PRESETS, TrainConfig
from ssdlib.engine.coco_figures import evaluate_coco
from ssdlib.engine.loading import Batches, TrainingImages, endless, make_loader
from ssdlib.family.relatives import IMAGE_SIZE, RELATIVES, WEIGHTS, Relative, load_relative, relative_bytes
from ssdlib.metrics import evaluate
from ssdlib.training import TrainState, learning_rate_factor, make_optimizer, training_loop

KINDS = {"drawn": "tiny", "photographs": "tiny_few"}
"""The preset for each kind of images, but for the steps: those end with the seconds."""
TICKS = 100_000  # the schedule's steps from the first second to the last; more than are ever done
BATCHES = (1, 8)  # images at a time, when it is timed
COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def configuration(kind: str, seed: int, precision: str) -> TrainConfig:
    """How a kind of images is learned, by every relative alike."""
    return replace(PRESETS[KINDS[kind]], iterations=TICKS, seed=seed, precision=precision)


def missing(record: dict[str, Any], seeds: int, names: list[str]) -> Iterator[tuple[int, str, str]]:
    """(seed, kind, relative) of what is not done yet, the first seed of everything first."""
    done = {(run["seed"], run["images"], run["relative"]) for run in record["runs"] if not outdated(run)}
    yield from (wanted for wanted in itertools.product(range(seeds), KINDS, names) if wanted not in done)


def outdated(run: dict[str, Any]) -> bool:
    """Whether a run is of an older version of its relative; the first runs that were recorded say none."""
    name = run["relative"]
    return name in RELATIVES and run.get("version", 1) != RELATIVES[name].version


def fit(
    relative: Relative,
    dataset: AnnotatedDataset,
    config: TrainConfig,
    seconds: float,
    clock: Callable[[], float] = time.process_time,
) -> tuple[nn.Module, int]:
    """Train for so many seconds of the clock, loading included: the averaged network, and the steps that it took."""
    torch.manual_seed(config.seed)
    model = relative.build(len(dataset.classes) + 1).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    batches = Batches(len(dataset), config.batch_size, config.seed)
    images = TrainingImages(dataset, IMAGE_SIZE, config.augmentation, config.seed)
    stream = endless(make_loader(images, batches, 0, torch.device("cpu")), batches, 0)
    used, started = 0.0, clock()

    def rate(_step: int) -> float:  # of the step after the one that is being done
        return learning_rate_factor(round(used / seconds * TICKS), config)

    state = TrainState(model, copy.deepcopy(model).eval(), optimizer, LambdaLR(optimizer, rate))
    for _ in training_loop(state, stream, config, losses=relative.losses):
        used = clock() - started
        if used >= seconds:
            break
    return state.average, state.step


@torch.no_grad()
def figures(relative: Relative, model: nn.Module, dataset: AnnotatedDataset) -> dict[str, Any]:
    """How good a network is on an image set, by our evaluator and by COCO's."""
    model.eval()
    transform, found, targets = model_input(IMAGE_SIZE), [], []
    for start in range(0, len(dataset), 16):
        pairs = [dataset[i] for i in range(start, min(start + 16, len(dataset)))]
        batch = torch.stack([transform(image, target)[0] for image, target in pairs])
        for detection, (image, target) in zip(relative.detect(model, batch), pairs, strict=True):
            height, width = image.shape[-2:]
            found.append({**detection, "boxes": detection["boxes"] * torch.tensor([width, height, width, height])})
            targets.append(target)
    result = evaluate(found, targets, len(dataset.classes) + 1)
    coco = evaluate_coco(found, targets, len(dataset.classes) + 1).figures
    by_class = {dataset.classes[label - 1]: round(value, 4) for label, value in result.per_class.items()}
    return {"mAP": round(result.mean, 4), "AP_by_class": by_class, "coco": coco_entries(coco, COCO)}


def size_of(relative: Relative, num_classes: int) -> dict[str, int]:
    """Numbers of a network that follow from its layers: nothing has to be learned for them.

    Operations are counted while it detects in one image of noise, its scores being those of random weights.
    """
    torch.manual_seed(0)
    model = relative.build(num_classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        relative.detect(model, torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": int(counter.get_total_flops()) // 2,
        "predictions": relative.predictions(model),
    }


@torch.no_grad()
def timings(names: list[str], images: Tensor, weights: Path, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time an image, medians over rounds in which all take turns.

    "detect" is the whole way from images to detections, "network" what `forward` computes of it.
    """
    works: dict[tuple[str, str], Callable[[], Any]] = {}
    for name in names:
        model = load_relative(name, weights).to(memory_format=torch.channels_last)
        for count in BATCHES:
            batch = images[:count].to(memory_format=torch.channels_last)
            works[name, f"network_{count}"] = lambda model=model, batch=batch: model(batch)
            works[name, f"detect_{count}"] = lambda name=name, model=model, batch=batch: RELATIVES[name].detect(
                model, batch
            )
    seen: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for number in range(rounds + 1):
        for key, work in works.items():
            began = time.process_time()
            work()
            if number:  # the first is to warm up
                seen[key].append(1e3 * (time.process_time() - began) / int(key[1].rpartition("_")[2]))
    return {
        name: {what: round(statistics.median(seen[of, what]), 2) for of, what in works if of == name} for name in names
    }


def measure(
    name: str,
    config: TrainConfig,
    images: AnnotatedDataset,
    test: AnnotatedDataset,
    seconds: float,
    weights: Path | None,
) -> dict[str, Any]:
    """Train and test one relative, and keep its weights in a folder; what the record keeps of it."""
    began, used = time.monotonic(), time.process_time()
    model, steps = fit(RELATIVES[name], images, config, seconds)
    spent = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time() - used, 1)}
    if weights is not None:
        with replaced(weights / f"{name}.safetensors") as aside:
            aside.write_bytes(relative_bytes(name, model, len(images.classes) + 1))
    return {"steps": steps, **spent, **figures(RELATIVES[name], model, test)}


def main(
    drawn: Annotated[Path, typer.Option(help="Folder with drawn scenes, as `ssd data toy` makes it.")],
    photographs: Annotated[Path, typer.Option(help="Folder with photographs; image sets trainval and test.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "family",
    seconds: Annotated[float, typer.Option(help="Of processor time that every training takes.")] = 150,
    seeds: Annotated[int, typer.Option(help="Trainings of each relative on each kind of images.")] = 3,
    only: Annotated[list[str], typer.Option(help="Relatives; by default all.")] = [],  # noqa: B006
    runs: Annotated[int, typer.Option(help="Stop after so many; -1 does all, 0 only takes the times.")] = -1,
    precision: Annotated[str, typer.Option(help="Of the network while it learns.")] = "bfloat16",
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
    weights: Annotated[Path, typer.Option(help="Folder for the weights of the first seed on drawn scenes.")] = WEIGHTS,
) -> None:
    """Do what is missing, and record each run at once."""
    unknown = sorted(set(only) - set(RELATIVES))
    if unknown:
        raise typer.BadParameter(f"there is no relative {unknown[0]!r}; there are {', '.join(RELATIVES)}")
    names = only or [*RELATIVES]
    folders = {"drawn": drawn, "photographs": photographs}
    sets = {kind: open_dataset(folder, "trainval") for kind, folder in folders.items()}
    tests = {kind: open_dataset(folder, "test", sets[kind].classes) for kind, folder in folders.items()}
    settings = {
        "command": f"python benchmarks/family.py --drawn data/{drawn.name} --photographs data/{photographs.name}"
        f" --seconds {seconds:g}",
        "images": {
            kind: {
                "folder": folders[kind].name,
                "trainval": len(sets[kind]),
                "test": len(tests[kind]),
                "classes": list(sets[kind].classes),
            }
            for kind in KINDS
        },
        "seconds": seconds,
        "precision": precision,
        "configs": {kind: asdict(configuration(kind, 0, precision)) for kind in KINDS},
    }
    ways = {kind: ("configs", kind) for kind in KINDS}
    record = begun(results / f"{name}.json", {**settings, "relatives": {}}, ("images", "seconds", "precision"), ways)
    wanted = list(missing(record, seeds, names))
    todo = wanted if runs < 0 else wanted[:runs]
    cached: set[str] = set()
    for number, (seed, kind, relative) in enumerate(todo, start=1):
        print(f"run {number} of {len(todo)}: {relative}, {kind}, seed {seed}", flush=True)
        if kind not in cached:
            sets[kind].cache_images(progress=False)
            cached.add(kind)
        keep = weights if (seed, kind) == (0, "drawn") else None
        found = measure(relative, configuration(kind, seed, precision), sets[kind], tests[kind], seconds, keep)
        print(f"  mAP {found['mAP']:.3f} after {found['steps']} steps, {found['seconds']:.0f} s", flush=True)
        record["relatives"][relative] = {
            "title": RELATIVES[relative].title,
            "chapter": RELATIVES[relative].chapter,
            **size_of(RELATIVES[relative], len(sets["drawn"].classes) + 1),
        }
        where = {**circumstances(), "threads": torch.get_num_threads()}
        record["runs"] = [run for run in record["runs"] if run["relative"] != relative or not outdated(run)]
        which = {"relative": relative, "version": RELATIVES[relative].version, "images": kind, "seed": seed}
        record["runs"].append({**which, **found, **where})
        write_record(record, name, results)
    if 0 < len(todo) < len(wanted):
        return  # the times come with the last run
    timed = [relative for relative in RELATIVES if (weights / f"{relative}.safetensors").is_file()]
    transform, count = model_input(IMAGE_SIZE), min(max(BATCHES), len(tests["drawn"]))
    batch = torch.stack([transform(*tests["drawn"][i])[0] for i in range(count)])
    where = {**circumstances(), "threads": torch.get_num_threads()}
    record["times"] = {"milliseconds": timings(timed, batch, weights), **where}
    write_record(record, name, results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
