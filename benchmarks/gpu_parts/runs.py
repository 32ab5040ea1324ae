"""Parts b, c, e: whole runs, which stop when the minutes are over and go on from there; and a run that is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gpu_parts.work import Asked, Figures
from ssdlib.data import TOY_CLASSES, AnnotatedDataset, make_toy_voc, open_dataset, sample_root
from ssdlib.engine import PRESETS, TrainConfig, detect_dataset, train
from ssdlib.engine.run_folder import LOG, MODEL, STATE
from ssdlib.engine.validation import Validation
from ssdlib.metrics import evaluate
from ssdlib.model import SSD

RECORD_EVERY = 30.0  # seconds of a run between two looks at its log, which a record keeps until the run is done
LINES = 400  # of a log that a record keeps, at most


def as_far_as_time_goes(
    figures: Figures, config: TrainConfig, dataset: AnnotatedDataset, out: Path, **options: Any
) -> SSD | None:
    """Train, or go on with the run in the folder; None if the time was over before its end, and the run is saved."""
    asked, recorded = False, time.monotonic()

    def look(_model: SSD, _line: dict[str, float]) -> None:
        nonlocal asked, recorded
        if time.monotonic() - recorded > RECORD_EVERY:
            recorded = time.monotonic()
            figures.running({"run": out.name}, log_of(out))
        if figures.seconds_left <= 0 and not asked:
            asked = True
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C: the run ends its step, saves its state, and stops

    where = {"device": figures.asked.device, "workers": figures.asked.workers, "progress": False}
    try:
        return train(config, dataset, out, resume=True, after_line=look, **where, **options)
    except KeyboardInterrupt as stopped:
        if not asked:
            raise
        print(f"{figures.part}: {stopped}", flush=True)
        return None


def log_of(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, every nth of those without an mAP if there are many; times without mAP are left out."""
    lines = [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]
    every = -(-len(lines) // LINES)
    kept = [line for number, line in enumerate(lines) if number % every == 0 or "mAP" in line or line is lines[-1]]
    return [{name: round(value, 5) for name, value in line.items()} for line in kept]


# ---- b: blood cells --------------------------------------------------------------------------------------------


def cells(asked: Asked) -> Figures:
    """SSD300 with batch normalisation from random weights, and the small SSD beside it, on the same images."""
    iterations = 3 if asked.small else 6000
    figures = Figures(asked, "cells", {}, {"iterations": iterations})
    data = sample_root() if asked.small else asked.cells
    if data is None or not data.is_dir():
        print("cells: left out, as there are no images; name their folder (--cells data/BCCD)")
        return figures
    large = replace(PRESETS["scratch"], iterations=iterations, batch_size=32, warmup=0.05, augment_on="device")
    configs = {
        "ssd300_vgg16_bn": replace(large, precision="auto"),
        "ssd_tiny": replace(PRESETS["tiny_few"], precision="auto"),
    }
    if asked.small:
        few = {"iterations": iterations, "batch_size": 2, "precision": "float32"}
        configs = {"ssd_tiny": replace(PRESETS["tiny_few"], **few)}
    sets = {name: open_dataset(data, name) for name in ("trainval", "test")}
    sets["trainval"].cache_images(progress=False)
    for key in figures.missing([{"detector": name} for name in configs]):
        out = asked.folder / f"cells_{key['detector']}"
        model = as_far_as_time_goes(figures, configs[key["detector"]], sets["trainval"], out, save_every=1000)
        if model is None:
            break
        model = model.to(asked.device)
        found, truth = detect_dataset(model, sets["test"], workers=asked.workers, progress=False)
        result = evaluate(found, truth, model.num_classes)
        log = log_of(out)
        by_class = zip(model.classes, (result.per_class[label] for label in sorted(result.per_class)), strict=False)
        figures.add(
            key,
            {
                "mAP": round(result.mean, 4),
                "minutes": round(log[-1]["seconds"] / 60, 2),
                "images_per_second": log[-1]["images_per_second"],
                "steps": log[-1]["step"],
                "AP": {name: round(value, 4) for name, value in by_class},
                "log": log,
            },
        )
    return figures


# ---- c: the paper's run on drawn scenes ------------------------------------------------------------------------


def drawn(folder: Path, images: int, processes: int) -> list[Path]:
    """Scenes of VOC's size, drawn by several processes, each its own folder; what is there is left as it is."""
    share = -(-images // processes)
    counts = [min(share, images - share * number) for number in range(processes)]
    folders = [folder / f"scenes_{number:02d}" for number, count in enumerate(counts) if count > 0]
    draw = partial(make_toy_voc, val=0, test=0, sides=(375, 500), progress=False)
    jobs = [(path, count, number + 1) for number, (path, count) in enumerate(zip(folders, counts, strict=False))]
    if processes == 1:
        draw(folders[0], train=counts[0], seed=1)
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in [pool.submit(draw, path, train=count, seed=seed) for path, count, seed in jobs]:
                future.result()
    return folders


def paper(asked: Asked) -> Figures:
    """The paper's 120,000 steps of 32 images, as far as the minutes go; called again, they go on.

    Without the weights of a classifier the same steps are done from random weights, with batch normalisation.
    """
    images, test, steps = (6, 3, 6) if asked.small else (16_551, 500, 120_000)
    start = "ImageNet" if asked.weights else "random weights, with batch normalisation"
    figures = Figures(asked, "paper", {}, {"images": images, "test": test, "iterations": steps, "start": start})
    if asked.weights:
        config = PRESETS["paper"]
    else:
        config = replace(PRESETS["scratch"], iterations=steps, batch_size=32, learning_rate=1e-2)
    config = replace(config, augment_on="device", precision="auto")
    if asked.small:
        config = replace(PRESETS["tiny"], iterations=steps, batch_size=2, precision="float32", augment_on="device")
    if any(run["step"] == steps for run in figures.record["runs"]):
        return figures
    folders = drawn(asked.folder, images, 1 if asked.small else max(1, asked.workers))
    on = make_toy_voc(asked.folder / "scenes_test", train=0, val=0, test=test, sides=(375, 500), progress=False)
    dataset = open_dataset(folders, "train", TOY_CLASSES)  # a small folder may lack one
    validation = Validation(open_dataset(on, "test", TOY_CLASSES), every=1 if asked.small else 6, batch_size=64)
    out = asked.folder / "paper"
    options: dict[str, Any] = {"validation": validation, "weights": asked.weights, "save_every": 1000}
    as_far_as_time_goes(figures, config, dataset, out, **options)
    if not (out / LOG).is_file():
        return figures
    log = log_of(out)
    scores = [line for line in log if "mAP" in line]
    figures.add(
        {"step": log[-1]["step"]},
        {
            "of": steps,
            "mAP": scores[-1]["mAP"] if scores else None,
            "mAP_at_step": scores[-1]["step"] if scores else None,
            "minutes": round(log[-1]["seconds"] / 60, 2),
            "images_per_second": log[-1]["images_per_second"],
            "waiting": log[-1]["waiting"],
        },
    )
    figures.record["log"] = log
    figures.write()
    return figures


# ---- e: killed and resumed -------------------------------------------------------------------------------------


def resumed_config(small: bool) -> TrainConfig:
    """The run that is killed."""
    if small:
        return replace(PRESETS["tiny"], iterations=4, batch_size=2, precision="float32", memory_format="contiguous")
    config = replace(PRESETS["scratch"], iterations=300, batch_size=16, warmup=0.1, learning_rate=5e-3)
    return replace(config, precision="bfloat16", augment_on="device")


KILLED = (-9, signal.SIGTERM)  # how a process ends that was killed, on Linux and macOS, and on Windows


def run_once(out: Path, device: str, small: bool, killed_after: int | None = None, threads: int | None = None) -> None:
    """The run in a folder, from its beginning or from where it stands; killed without a warning after so many steps.

    `threads`, of a process that has just begun: with another number of them a CPU adds up in another order.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    config = resumed_config(small)
    dataset = open_dataset(sample_root(), "trainval")

    def look(_model: SSD, line: dict[str, float]) -> None:
        if killed_after is not None and line["step"] >= killed_after:
            os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    save_every = 2 if small else 50
    train(config, dataset, out, device=device, progress=False, resume=True, save_every=save_every, after_line=look)


def difference(one: Path, other: Path) -> dict[str, float]:
    """How far the weights of two runs are apart, and the losses of their last lines."""
    a, b = (load_file(path / MODEL) for path in (one, other))
    apart = [(a[name] - b[name]).float() for name in a if a[name].is_floating_point()]
    length = torch.stack([each.float().norm() for each in a.values() if each.is_floating_point()]).norm()
    last = [log_of(path)[-1] for path in (one, other)]
    return {
        "largest_difference_of_a_weight": max(float(each.abs().max()) for each in apart),
        "relative_difference_of_all": float(torch.stack([each.norm() for each in apart]).norm() / length),
        "differing_share": sum(float((each != 0).sum()) for each in apart) / sum(each.numel() for each in apart),
        "difference_of_the_last_loss": abs(last[0]["confidence"] - last[1]["confidence"]),
    }


def resume(asked: Asked) -> Figures:
    """Two runs alike, and one that was killed on the way and went on: what differs between them."""
    config = resumed_config(asked.small)
    half = config.iterations // 2
    figures = Figures(asked, "resume", {}, {"iterations": config.iterations, "killed_after": half})
    device, kinds = str(asked.device), ("two runs alike", "killed and resumed")
    for key in figures.missing([{"runs": kind} for kind in kinds]):
        with fresh(asked.folder, "whole", "other") as (whole, other):
            run_once(whole, device, asked.small)
            if key["runs"] == kinds[1]:
                child = multiprocessing.get_context("spawn").Process(
                    target=run_once, args=(other, device, asked.small, half, torch.get_num_threads())
                )
                child.start()
                child.join()
                if child.exitcode not in KILLED or not (other / STATE).exists():
                    raise RuntimeError(f"the run was to be killed after step {half}, and ended with {child.exitcode}")
            run_once(other, device, asked.small)
            figures.add(key, difference(whole, other))
    return figures


@contextmanager
def fresh(folder: Path, *names: str) -> Iterator[list[Path]]:
    """Folders of runs that are not there before and not afterwards."""
    paths = [folder / name for name in names]
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    try:
        yield paths
    finally:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
