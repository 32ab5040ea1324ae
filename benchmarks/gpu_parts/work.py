"""What the parts of gpu.py share: what they are asked for, records that go on, images, and a training that is timed."""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peer_data
import peers
import torch
from record import RESULTS, begun, circumstances, write_record
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssdlib.data import load_image
from ssdlib.engine import processes
from ssdlib.engine.compiling import compiled, compiled_losses, steps_marked
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.device_training import device_training_loop
from ssdlib.engine.loading import Batches, TrainingImages, endless, make_loader
from ssdlib.engine.run import timed as timed_batches
from ssdlib.engine.run_folder import Progress
from ssdlib.model import build_model
from ssdlib.training import TrainState, in_memory, training_loop

Target = dict[str, Tensor]
CLASSES = tuple(str(label) for label in range(1, 21))  # as many as VOC has


@dataclass(frozen=True)
class Asked:
    """What the command was asked for."""

    device: torch.device
    small: bool = False  # tiny, to test the script
    workers: int = 8
    minutes: float = 9.0  # of a part
    name: str = "gpu"  # of the records: NAME_PART
    results: Path = RESULTS
    folder: Path = Path("runs/gpu")  # for drawn images and runs
    cells: Path | None = None  # blood cells, in the VOC layout
    weights: Path | None = None  # of the classifier that the paper starts from
    command: str = "python benchmarks/gpu.py"


@dataclass
class Figures:
    """The record of a part, which is written after each figure, and goes on from what is there.

    A figure is a dict in "runs"; what it is of stands in front. When the minutes are over, no other one is begun.
    """

    asked: Asked
    part: str
    targets: dict[str, str] = field(default_factory=dict)  # what the figures are to be, in words
    settings: dict[str, Any] = field(default_factory=dict)  # that must be as they were

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.name = f"{self.asked.name}_{self.part}"
        self.path = self.asked.results / f"{self.name}.json"
        now = {"command": self.asked.command, **circumstances(self.asked.device)}
        now |= {"small": self.asked.small, "settings": self.settings, "targets": self.targets}
        self.commit = now["commit"]
        self.record = begun(self.path, now, ("hardware", "versions", "small", "settings"), {})

    @property
    def seconds_left(self) -> float:
        return 60 * self.asked.minutes - (time.monotonic() - self.started)

    def missing(self, wanted: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Of what is wanted that which was not measured yet, as long as there is time."""
        for number, key in enumerate(wanted):
            if any(all(run.get(name) == value for name, value in key.items()) for run in self.record["runs"]):
                continue
            if self.seconds_left <= 0:
                print(f"{self.part}: no time left for {len(wanted) - number} more; the same command goes on from here")
                return
            yield key

    def add(self, key: dict[str, Any], measured: dict[str, Any]) -> None:
        """Record a figure and print it."""
        row = {**key, **measured}
        if self.commit != self.record["commit"]:
            row["commit"] = self.commit
        self.record["runs"].append(row)
        self.record.pop("running", None)
        words = ", ".join(f"{name} {value}" for name, value in row.items() if not isinstance(value, dict | list))
        goal = "".join(f"  [target: {name} {target}]" for name, target in self.targets.items() if name in row)
        print(f"{self.part}: {words}{goal}", flush=True)
        self.write()

    def write(self) -> None:
        write_record(self.record, self.name, self.asked.results)

    def running(self, key: dict[str, Any], log: list[dict[str, Any]]) -> None:
        """Record how a figure that takes minutes is getting on: what a loan's end does not take away."""
        self.record["running"] = {**key, "log": log}
        self.write()

    def measure(self, wanted: list[dict[str, Any]], work: Callable[..., dict[str, Any]]) -> None:
        """Call the work with each key that is missing; where the memory is too small for it, that is the figure.

        Raises:
            RuntimeError: in the end, if some of them failed; they are not recorded, and the next time tried again.
        """
        failed: list[str] = []
        for key in self.missing(wanted):
            try:
                self.add(key, work(**key))
            except Exception as error:  # the other figures are wanted all the same
                if torch.OutOfMemoryError in (type(error), type(error.__context__)):
                    self.add(key, {"error": "out of memory"})
                else:
                    traceback.print_exc()
                    failed.append(f"{key}: {error}")
            forget(self.asked.device)
        if failed:
            raise RuntimeError(f"{len(failed)} of the figures failed, the first of them {failed[0]}")


def forget(device: torch.device) -> None:
    """Free what the last figure used. Compilers forget, too: what they make for the next network is to be as in a new
    process; after eight networks they would make nothing more.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Photographs:
    """JPEG files with random objects; decoded when asked for, or all kept in memory.

    There may be more images than files: each is there so many times. (In a short epoch the loader begins anew so often
    that this would be measured.)
    """

    classes = CLASSES

    def __init__(self, folder: Path, count: int, times: int = 1) -> None:
        self.times = times
        self.files = peer_data.write_photographs(folder, count)
        scale = torch.tensor([500.0, 375.0, 500.0, 375.0])
        targets = peers.scene(count, 3, 21, peers.make_priors(peers.SSD300_COCO))
        self.targets = [{"boxes": each["boxes"] * scale, "labels": each["labels"]} for each in targets]
        self.decoded: list[Tensor] = []

    def cache_images(self) -> None:
        self.decoded = [load_image(file) for file in self.files]

    def __len__(self) -> int:
        return self.times * len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        index %= len(self.files)
        image = self.decoded[index] if self.decoded else load_image(self.files[index])
        return image, self.targets[index]


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of one call, done to its end."""
    times = []
    for _ in range(repeats + 3):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def utilisation(device: torch.device) -> float | None:
    """Percent of the last moments in which the GPU computed; None where NVML does not tell."""
    with contextlib.suppress(Exception):  # no NVML, no driver, no permission: then there is no figure
        return float(torch.cuda.utilization(device))
    return None


def steps_of_a_run(
    config: TrainConfig, dataset: Any, device: torch.device, workers: int
) -> tuple[Iterator[dict[str, float]], Progress]:
    """The steps that `ssdlib.engine.train` makes on a device, endless, and what they waited for images.

    Raises:
        UserWarning: if torch.compile does not work: a run would go on without, and the figure not be what it says.
    """
    model = build_model(config.architecture, CLASSES)
    size = model.recipe.image_size
    images = TrainingImages(dataset, size, config.augmentation, config.seed, config.augment_on == "device")
    batches = Batches(len(dataset), config.batch_size, config.seed)
    model = model.to(device).to(memory_format=in_memory(config.memory_format))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "torch.compile does not work")
        network = compiled(model, config) if config.compile else model
        losses = compiled_losses(model, config) if config.compile else processes.shared_losses
    state, waited = TrainState.start(model, config), Progress()
    stream = timed_batches(endless(make_loader(images, batches, workers, device), batches, 0), waited)
    stream = steps_marked(stream, config)
    loop = device_training_loop if device.type in processes.ON_DEVICE else training_loop
    return loop(state, stream, config, network=network, losses=losses), waited


def train_on(
    loop: Iterator[Any], waited: Progress, images: int, device: torch.device, limits: tuple[int, float], warm_up: int
) -> dict[str, Any]:
    """What steps take, of so many images each.

    Args:
        loop: gives the steps.
        waited: by the loop, for its images.
        images: of a step.
        device: is waited for at both ends.
        limits: so many steps, or, where they take longer, as many as are done after so many seconds (ten at least).
        warm_up: steps before.

    Returns:
        images_per_second, milliseconds a step, the share of the time in which no image was ready, percent of the last
        moments in which the GPU computed, peak memory in bytes, and the steps.
    """
    for _ in range(warm_up):
        next(loop)
    wait_for(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before, started, count = waited.epoch["waiting"], time.perf_counter(), 0
    while count < limits[0] and (count < 10 or time.perf_counter() - started < limits[1]):
        next(loop)
        count += 1
    wait_for(device)
    seconds = time.perf_counter() - started
    busy = utilisation(device)  # of the last moments; to ask in between would hold the steps up
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "images_per_second": round(count * images / seconds, 1),
        "milliseconds": round(1e3 * seconds / count, 2),
        "waiting": round((waited.epoch["waiting"] - before) / seconds, 3),
        "utilisation": busy,
        "peak_memory": peak,
        "steps": count,
    }


def operations(architecture: str) -> dict[str, float]:
    """What PyTorch counts for an image, forwards, and in training; a multiplication and an addition are two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # shapes without numbers
        model = build_model(architecture, CLASSES).eval()  # in training, the last maps of one image have no statistics
        offsets, logits = model(torch.zeros(1, 3, model.recipe.image_size, model.recipe.image_size))
        forward = counter.get_total_flops()
        (offsets.sum() + logits.sum()).backward()
    return {"forward": float(forward), "training": float(counter.get_total_flops())}


def bfloat16_rate(device: torch.device, side: int) -> float:
    """Operations a second of a large matrix product: the limit of whatever is made of them."""
    a = torch.rand(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds_of(lambda: a @ a, device, 5)
