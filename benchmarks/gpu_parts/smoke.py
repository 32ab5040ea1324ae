"""Part a: how fast each preset trains, by number format, compiled, and batch, and which share of the device it uses."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from gpu_parts.work import Asked, Figures, Photographs, bfloat16_rate, operations, steps_of_a_run, train_on
from ssdlib.data.transforms import Augmentation
from ssdlib.engine.presets import PRESETS

PRESET_NAMES = ("paper", "scratch", "tiny", "paper512")
GRAPHS = "reduce-overhead"
# Number format, compiled, and how:
WAYS = (("bfloat16", False, ""), ("bfloat16", True, "default"), ("bfloat16", True, GRAPHS), ("float32", False, ""))
BATCHES = (32, 128, 8, 64)
TARGETS = {
    "images_per_second": ">= 1900 in training SSD300 on an H100 or H200",
    "share_of_limit": ">= 0.5 in training SSD300: images a second x operations an image, of the rate in bfloat16",
}


def wanted(small: bool) -> list[dict[str, Any]]:
    """What is most wanted comes first."""
    batches, presets = ((2,), ("tiny",)) if small else (BATCHES, PRESET_NAMES)
    ways = [way for way in WAYS if way[0] == "float32" or not small]
    return [
        {"preset": preset, "precision": precision, "compiled": compiled, "mode": mode, "batch": batch}
        for batch, (precision, compiled, mode), preset in product(batches, ways, presets)
    ]


def smoke(asked: Asked) -> Figures:
    """Images are in memory and augmented on the device, so that the step is measured, and not the disk."""
    steps, seconds, warm_up = (2, 0.0, 1) if asked.small else (200, 12.0, 15)
    figures = Figures(asked, "smoke", TARGETS, {"steps": steps, "seconds": seconds, "augment_on": "device"})
    if "limits" not in figures.record:
        rate = bfloat16_rate(asked.device, 256 if asked.small else 8192)
        flop = {name: operations(PRESETS[name].architecture) for name in PRESET_NAMES}
        figures.record["limits"] = {"bfloat16_operations_per_second": rate, "operations_an_image": flop}
        figures.write()
    limits = figures.record["limits"]
    with tempfile.TemporaryDirectory() as folder:
        dataset = Photographs(Path(folder), *((4, 1) if asked.small else (256, 16)))
        dataset.cache_images()

        def step(preset: str, precision: str, compiled: bool, mode: str, batch: int) -> dict[str, Any]:
            config = replace(PRESETS[preset], iterations=10**6, batch_size=batch, precision=precision)
            config = replace(config, compile=compiled, compile_mode=mode or "default")
            config = replace(config, augmentation=Augmentation(), augment_on="device", pretrained=False)
            config = replace(config, learning_rate=1e-5)  # random weights and random objects: nothing is to be learned
            loop, waited = steps_of_a_run(config, dataset, asked.device, asked.workers)
            measured = train_on(loop, waited, min(batch, len(dataset)), asked.device, (steps, seconds), warm_up)
            used = measured["images_per_second"] * limits["operations_an_image"][preset]["training"]
            return {**measured, "share_of_limit": round(used / limits["bfloat16_operations_per_second"], 3)}

        figures.measure(wanted(asked.small), step)
    return figures
