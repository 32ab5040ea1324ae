"""Measure SSD300 on a GPU, beside torchvision's: training from JPEG files and from memory, latency and throughput.

    python benchmarks/gpu.py --workers 16
    python benchmarks/gpu.py --workers 16 --data data/VOC2007 --compile

writes ssdlib/engine/records/gpu.json. Without `--data`, images of VOC's size are drawn. Training is the loop of
`ssd train` with the full augmentation, by the loader and on the device, from files and from decoded images in memory.
The limit is arithmetic: what a step computes, as counted by PyTorch, at the rate of a large matrix product measured in
the same run. With `--device cpu --small` it is a test of the script.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import peers
import torch
import typer
from record import RESULTS, circumstances, write_record
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from ssdlib.data import load_image, open_dataset
from ssdlib.data.transforms import Augmentation
from ssdlib.detection import detect
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.loading import Batches, DetectionDataset, TrainingImages, collate, make_loader
from ssdlib.engine.precision import has_bfloat16
from ssdlib.engine.presets import PRESETS
from ssdlib.training import make_optimizer, train_step
from ssdlib.zoo import from_torchvision

Target = dict[str, Tensor]


class Photographs:
    """JPEG files with random objects; decoded when asked for, or all kept in memory."""

    classes = tuple(str(label) for label in range(1, 21))

    def __init__(self, folder: Path, count: int) -> None:
        self.files = peers.write_photographs(folder, count)
        scale = torch.tensor([500.0, 375.0, 500.0, 375.0])
        targets = peers.scene(count, 3, 21, peers.make_priors(peers.SSD300_COCO))
        self.targets = [{"boxes": each["boxes"] * scale, "labels": each["labels"]} for each in targets]
        self.decoded: list[Tensor] = []

    def cache_images(self) -> None:
        self.decoded = [load_image(file) for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image = self.decoded[index] if self.decoded else load_image(self.files[index])
        return image, self.targets[index]


class TheirImages:
    """The same images through torchvision's own augmentation."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset, self.transform = dataset, peers.reference_augmentation()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image, target = self.dataset[index % len(self.dataset)]
        boxes = peers.tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=tuple(image.shape[-2:]))
        image, varied = self.transform(peers.tv_tensors.Image(image), {"boxes": boxes, "labels": target["labels"]})
        return image, varied


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
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


def train_on(
    step: Callable[[Any, Any], Any], loader: Iterable[Any], device: torch.device, steps: int, warm_up: int
) -> dict[str, Any]:
    """Images a second of a training loop, the share of the time in which it waited for images, and the memory."""

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches, waited, images, busy = endless(), 0.0, 0, []
    for batch in itertools.islice(batches, warm_up):
        step(*batch)
    wait_for(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for number in range(steps):
        asked = time.perf_counter()
        pixels, targets = next(batches)
        waited += time.perf_counter() - asked
        step(pixels, targets)
        images += len(targets)
        if number % 10 == 5:
            busy.append(utilisation(device))
    wait_for(device)
    seconds = time.perf_counter() - started
    known = [percent for percent in busy if percent is not None]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "images_per_second": round(images / seconds, 1),
        "waiting": round(waited / seconds, 3),
        "utilisation": round(statistics.fmean(known), 1) if known else None,
        "peak_memory": peak,
    }


def our_step(name: str, config: TrainConfig, device: torch.device) -> Callable[[Any, Any], Any]:
    """A step of `ssd train` on a network that was not trained yet."""
    model = from_torchvision(peers.detector(21, name)).train().to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    network = torch.compile(model) if config.compile else model
    if config.compile:
        network.priors = model.priors

    def step(pixels: Any, targets: Any) -> Any:
        pixels = pixels.to(device, memory_format=torch.channels_last, non_blocking=True)
        return train_step(network, pixels, targets, optimizer, config)

    return step


def their_step(name: str, config: TrainConfig, device: torch.device, bfloat16: bool) -> Callable[[Any, Any], Any]:
    """A step of torchvision's reference training."""
    model = copy.deepcopy(peers.detector(21, name)).train().to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )

    def step(pixels: Any, targets: Any) -> Any:
        images = list(pixels.to(device, non_blocking=True))
        targets = [{"boxes": t["boxes"].to(device), "labels": t["labels"].to(device)} for t in targets]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def trainings(
    name: str, dataset: Any, config: TrainConfig, device: torch.device, workers: int, steps: int, warm_up: int
) -> Iterator[dict[str, Any]]:
    """Ours from files and from memory, augmented by the loader and on the device; then torchvision's."""
    for memory in (False, True):
        if memory:
            dataset.cache_images()
        for on_device in (False, True):
            size = 320 if "320" in name else 300
            images = TrainingImages(dataset, size, config.augmentation, config.seed, on_device)
            loader = make_loader(images, Batches(len(dataset), config.batch_size, config.seed), workers, device)
            figures = train_on(our_step(name, config, device), loader, device, steps, warm_up)
            place = "device" if on_device else "loader"
            yield {"side": "ssdlib", "source": "memory" if memory else "JPEG files", "augmented": place, **figures}
    for bfloat16 in (False, True):
        loader = DataLoader(
            TheirImages(dataset),  # type: ignore[arg-type]
            config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=in_pixels,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )
        figures = train_on(
            their_step(name, config, device, bfloat16 and config.precision == "bfloat16"),
            loader,
            device,
            steps,
            warm_up,
        )
        kind = "torchvision, bfloat16" if bfloat16 else "torchvision, float32"
        yield {"side": kind, "source": "memory", "augmented": "loader", **figures}


def in_pixels(batch: Any) -> Any:
    """A batch of torchvision's augmentation, whose boxes are plain tensors in pixels of the input."""
    images, targets = collate(batch)
    return images, [{**each, "boxes": each["boxes"].as_subclass(Tensor)} for each in targets]


def inferences(
    name: str, device: torch.device, large: int, repeats: int, compiled: bool, half: bool
) -> Iterator[dict[str, Any]]:
    """Seconds of network and of detection apart and together, for one image and for a batch; then torchvision's."""
    theirs = peers.detector(21, name).eval().to(device)
    model = from_torchvision(theirs).to(device).to(memory_format=torch.channels_last)
    compiled_model = torch.compile(model, mode="max-autotune-no-cudagraphs") if compiled else model
    for batch in (1, large):
        size = model.recipe.image_size
        images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        # What a trained network would say: what random weights say is slow to rank, and nobody detects with them.
        offsets, logits = (each.to(device) for each in peers.trained_like(batch, 21, model.priors.cpu()))

        @torch.inference_mode()
        def network(images: Tensor = images) -> tuple[Tensor, Tensor]:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                return compiled_model(images)

        ways = {"as it is": network}
        if device.type == "cuda":
            ways["CUDA graph"] = graphed(network)
        for way, run in ways.items():
            seconds = {
                "network": timed(run, device, repeats),
                "detection": timed(lambda o=offsets, c=logits: detect(o, c, model.priors), device, repeats),
            }
            both = timed(lambda r=run, o=offsets, c=logits: (r(), detect(o, c, model.priors)), device, repeats)
            yield {
                **{"side": "ssdlib, bfloat16", "batch": batch, "way": way, "seconds": both, **seconds},
                "images_per_second": round(batch / both, 1),
                "detection_share": round(seconds["detection"] / both, 3),
            }
        for bfloat16 in (False, True):

            @torch.inference_mode()
            def their_detections(images: Tensor = images, bfloat16: bool = bfloat16) -> Any:
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and half):
                    return theirs(list(images))

            both = timed(their_detections, device, repeats)
            kind = "bfloat16" if bfloat16 else "float32"
            yield {"side": f"torchvision, {kind}", "batch": batch, "way": "as it is", "seconds": both} | {
                "images_per_second": round(batch / both, 1)
            }


def graphed(work: Callable[[], Any]) -> Callable[[], None]:
    """The same work recorded once as a CUDA graph: one launch instead of hundreds."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def limits(name: str, device: torch.device, side: int) -> dict[str, float]:
    """What an image costs, and what the device can do: operations an image, and operations a second in bfloat16."""
    model = from_torchvision(peers.detector(21, name))
    size = model.recipe.image_size
    with FlopCounterMode(display=False) as counter:
        offsets, logits = model(torch.rand(1, 3, size, size))
        forward = counter.get_total_flops()
        (offsets.sum() + logits.sum()).backward()
    a = torch.rand(side, side, device=device, dtype=torch.bfloat16)
    rate = 2 * side**3 / timed(lambda: a @ a, device, 5)
    return {
        "forward_flop": float(forward),
        "training_flop": float(counter.get_total_flops()),
        "bfloat16_flop_per_second": rate,
        "training_images_per_second": round(rate / counter.get_total_flops(), 1),
        "inference_images_per_second": round(rate / forward, 1),
    }


def main(
    name: Annotated[str, typer.Option(help="Name of the record.")] = "gpu",
    data: Annotated[
        Path | None, typer.Option(help="Folder with images and annotations, instead of drawn ones.")
    ] = None,
    image_set: Annotated[str, typer.Option(help="Image set of the folder.")] = "trainval",
    device: Annotated[str, typer.Option(help='"cuda", or "cpu" for a test.')] = "cuda",
    workers: Annotated[int, typer.Option(help="Processes that load images.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Images of a training step.")] = 32,
    steps: Annotated[int, typer.Option(help="Training steps that are timed.")] = 200,
    compile_network: Annotated[bool, typer.Option("--compile", help="Through torch.compile.")] = False,
    small: Annotated[bool, typer.Option("--small", help="Tiny, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print, record after each figure."""
    where, network = torch.device(device), "ssdlite320_mobilenet_v3_large" if small else "ssd300_vgg16"
    # Where bfloat16 is only imitated it takes ten times as long, and a test learns nothing from that.
    half = not small or has_bfloat16(where)
    precision = "bfloat16" if half else "float32"
    config = replace(PRESETS["paper"], batch_size=batch_size, precision=precision, compile=compile_network)
    config = replace(config, augmentation=Augmentation(), pretrained=False)
    command = f"python benchmarks/gpu.py --device {device} --workers {workers} --batch-size {batch_size}"
    record: dict[str, Any] = {
        "command": command + " --compile" * compile_network + (f" --data data/{data.name}" if data else ""),
        **circumstances(where),
        "network": network,
        "limits": limits(network, where, 512 if small else 8192),
        "training": [],
        "inference": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset: Any = open_dataset(data, image_set) if data else Photographs(Path(folder), 4 if small else 1024)
        warm_up = 1 if small else 20
        for part, rows in (
            ("training", trainings(network, dataset, config, where, workers, 1 if small else steps, warm_up)),
            ("inference", inferences(network, where, 2 if small else 64, 1 if small else 50, compile_network, half)),
        ):
            for row in rows:
                record[part].append(row)
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                write_record(record, name, results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
