"""Part g: which share of a training step each kind of operation has, as a record and as a figure."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch.profiler import ProfilerActivity, profile

from gpu_parts.work import Asked, Figures, Photographs, steps_of_a_run, wait_for
from ssdlib.data.transforms import Augmentation
from ssdlib.engine.presets import PRESETS
from ssdlib.plotting import use_book_style

# What a name of an operation says of its kind; the first that fits counts.
KINDS = {
    "convolutions": ("conv", "cudnn", "xmma", "cutlass", "gemm", "implicit", "wgrad", "dgrad", "mkldnn"),
    "normalisation": ("batch_norm", "bn_", "batchnorm"),
    "optimizer and averages": ("adam", "sgd", "lerp", "multi_tensor"),
    "sorting (mining, matching)": ("sort", "topk", "radix", "scan"),
    "copies and casts": ("copy", "memcpy", "memset", "_to_copy", "cast", "convert"),
    "ReLU, pooling": ("relu", "clamp_min", "threshold", "max_pool"),
}
STEPS = 8


def kind_of(name: str) -> str:
    lowered = name.lower()
    return next((kind for kind, words in KINDS.items() if any(word in lowered for word in words)), "all else")


def shares(loop: Iterator[Any], device: torch.device, steps: int) -> dict[str, Any]:
    """Of the device's time in some steps: the kinds, the longest operations, and the share in which it computed."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    wait_for(device)
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            next(loop)
        wait_for(device)
    times: dict[str, float] = defaultdict(float)
    names: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        if gpu and (event.device_type != torch.autograd.DeviceType.CUDA or getattr(event, "is_user_annotation", False)):
            continue  # a kernel's time is that of the operation on the host which launched it, and of its block, too
        spent = event.self_device_time_total if gpu else event.self_cpu_time_total
        times[kind_of(event.key)] += spent
        names[event.key] += spent
    total = sum(times.values())
    spans = [(event.time_range.start, event.time_range.end) for event in profiled.events()]
    elapsed = max(end for _, end in spans) - min(start for start, _ in spans)
    longest = sorted(names.items(), key=lambda item: -item[1])[:12]
    return {
        "shares": {kind: round(time / total, 4) for kind, time in sorted(times.items(), key=lambda item: -item[1])},
        "computing": round(total / elapsed, 3),
        "microseconds_a_step": round(elapsed / steps, 1),
        "longest": {name[:100]: round(time / total, 4) for name, time in longest if time},
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """The shares as bars, a row for each way of training."""
    use_book_style()
    kinds = [*KINDS, "all else"]
    figure, ax = plt.subplots(figsize=(7.2, 1.2 + 0.55 * len(rows)))
    names = [f"{row['preset']}, {row['precision']}" + (", compiled" if row["compiled"] else "") for row in rows]
    left = [0.0] * len(rows)
    for number, kind in enumerate(kinds):
        widths = [100 * row["shares"].get(kind, 0.0) for row in rows]
        ax.barh(names, widths, left=left, label=kind, color=plt.get_cmap("tab10")(number), height=0.6)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the computing time in a training step, in percent")
    ax.legend(ncols=4, fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def profiles(asked: Asked) -> Figures:
    """SSD300 with and without batch normalisation, and the small SSD, images in memory and augmented on the device."""
    steps = 2 if asked.small else STEPS
    figures = Figures(asked, "profile", {"computing": "about 1: the share of the time in which the device computed"})
    presets = ("tiny",) if asked.small else ("paper", "scratch", "tiny")
    ways = (("float32", False),) if asked.small else (("bfloat16", False), ("bfloat16", True))
    wanted = [
        {"preset": preset, "precision": precision, "compiled": compiled}
        for precision, compiled in ways
        for preset in presets
    ]
    with tempfile.TemporaryDirectory() as folder:
        dataset = Photographs(Path(folder), *((4, 1) if asked.small else (256, 4)))
        dataset.cache_images()

        def step(preset: str, precision: str, compiled: bool) -> dict[str, Any]:
            batch = 2 if asked.small else 32
            config = replace(PRESETS[preset], iterations=10**6, batch_size=batch, precision=precision, compile=compiled)
            config = replace(config, augmentation=Augmentation(), augment_on="device", pretrained=False)
            loop, _ = steps_of_a_run(replace(config, learning_rate=1e-5), dataset, asked.device, asked.workers)
            for _ in range(1 if asked.small else 15):
                next(loop)
            return shares(loop, asked.device, steps)

        figures.measure(wanted, step)
    drawn = [run for run in figures.record["runs"] if "shares" in run]
    if drawn:
        draw(drawn, asked.results / f"{figures.name}.svg")
    return figures
