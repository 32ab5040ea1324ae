"""Whole networks as pairs: training steps and inference, beside torchvision's detectors, and ssd_tiny in a runtime.

Torchvision's networks are measured as they come: in float32, with contiguous images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from peers import same_detections, scene
from timing import NotHere, Pair
from torch import Tensor, nn

from ssdlib.deploy.export import export_model
from ssdlib.deploy.runtimes import ONNX, OPENVINO, installed, runtime_of
from ssdlib.detection import detect
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.precision import has_bfloat16, with_choices
from ssdlib.training import MEMORY_FORMATS, in_memory, make_optimizer, train_step
from ssdlib.zoo import demo_model, from_torchvision

CPU = torch.device("cpu")

WORDS = {"ssd300_vgg16": "SSD300", "ssdlite320_mobilenet_v3_large": "SSDLite"}
"""What the tables call torchvision's detectors."""


@cache
def detector(classes: int, name: str = "ssd300_vgg16") -> nn.Module:
    """One of torchvision's detectors with random weights, whose scores differ; classes count background."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter, std=0.002 if parameter.dim() > 1 else 0.5)
    return model


class Trainers:
    """A network of ours and torchvision's with the same weights, each with its optimizer, on the same batch.

    The memory format of ours is that which a run would choose on this processor: the faster one of both.
    """

    def __init__(
        self,
        images: int,
        classes: int = 21,
        bfloat16: bool = False,
        name: str = "ssd300_vgg16",
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.theirs = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes
        ).train()
        self.ours = from_torchvision(self.theirs).train()
        # A rate at which random weights do not explode: there, rounding would decide about the second step.
        self.config = TrainConfig(
            architecture="ssd300_vgg16",
            batch_size=images,
            optimizer="sgd",
            learning_rate=1e-5,
            max_grad_norm=None,
            precision="bfloat16" if bfloat16 else "float32",
            memory_format="auto",
        )
        self.config, _ = with_choices(self.config, self.ours, CPU)
        self.order = in_memory(self.config.memory_format)
        self.ours.to(memory_format=self.order)
        self.our_network = torch.compile(self.ours) if compiled else self.ours
        self.their_network = torch.compile(self.theirs) if compiled else self.theirs
        self.optimizer = make_optimizer(self.ours, self.config)
        vectors = {id(p) for p in self.theirs.parameters() if p.dim() <= 1}
        groups = [
            {"params": [p for p in self.theirs.parameters() if id(p) not in vectors]},
            {"params": [p for p in self.theirs.parameters() if id(p) in vectors], "weight_decay": 0.0},
        ]
        rate = self.config.learning_rate
        self.their_optimizer = torch.optim.SGD(groups, lr=rate, momentum=self.config.momentum, weight_decay=5e-4)
        self.targets = scene(images, 6, classes, self.ours.priors, seed=5)
        size = self.ours.recipe.image_size
        self.in_pixels = [{**each, "boxes": each["boxes"] * size} for each in self.targets]
        self.images = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(6))

    def our_step(self) -> list[float]:
        images = self.images.to(memory_format=self.order)
        measured = train_step(self.our_network, images, self.targets, self.optimizer, self.config)
        return [measured["localization"], measured["confidence"]]

    def their_step(self) -> list[float]:
        losses = self.their_network(list(self.images), self.in_pixels)
        self.their_optimizer.zero_grad()
        sum(losses.values()).backward()
        self.their_optimizer.step()
        return [losses["bbox_regression"].item(), losses["classification"].item()]


def training(bfloat16: bool, images: int = 4, name: str = "ssd300_vgg16", compiled: bool = False) -> Pair:
    """One step: forward, loss, backward, SGD. Theirs always in float32, as torchvision's detectors are trained."""
    _require_bfloat16(bfloat16)
    trainers = Trainers(images, bfloat16=bfloat16, name=name, compiled=compiled)
    tolerance = 3e-2 if bfloat16 else 1e-3

    def same(ours: list[float], theirs: list[float]) -> str:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-3)
        # The second step tells whether the first moved the weights in the same direction.
        again = trainers.our_step(), trainers.their_step()
        torch.testing.assert_close(*again, rtol=tolerance, atol=1e-3)
        return f"losses of the first two steps within {tolerance:.1%}; ours {trainers.config.memory_format}"

    kind = "bfloat16, channels_last" if bfloat16 else "float32"
    target = 0.95 if compiled else 0.45 if bfloat16 else 0.80
    work = f"{WORDS[name]} training step, batch {images}, {kind}{_COMPILED * compiled}"
    return Pair(work, trainers.our_step, trainers.their_step, same, target)


def inference(
    bfloat16: bool, images: int, classes: int = 21, name: str = "ssd300_vgg16", compiled: bool = False
) -> Pair:
    """Network and detection. Theirs always in float32; the memory format of ours is the faster one here."""
    _require_bfloat16(bfloat16)
    theirs: Any = detector(classes, name).eval()
    # Those of SSD300 and of our `detect`; SSDLite has others.
    theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates, theirs.detections_per_img = 0.01, 0.45, 400, 200
    ours, exact = from_torchvision(theirs).eval(), from_torchvision(theirs).eval()
    size, priors = ours.recipe.image_size, ours.priors
    batch = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(7))
    for module in ours.modules():
        if bfloat16 and isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)  # else autocast makes bfloat16 of every weight for every batch
    order = "contiguous"
    our_network, their_network = ours, theirs

    @torch.inference_mode()
    def predictions() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return our_network(batch.to(memory_format=in_memory(order)))

    seconds: dict[str, float] = {}
    for order in MEMORY_FORMATS:
        ours.to(memory_format=in_memory(order))
        seconds[order] = min(_processor_seconds(predictions) for _ in range(2))
    order = min(seconds, key=lambda each: seconds[each])
    ours.to(memory_format=in_memory(order))
    if compiled:
        our_network, their_network = torch.compile(ours), torch.compile(theirs)

    def same(found: Any, expected: Any) -> str:
        if not bfloat16:
            # Of 174,640 scores many are equal within rounding, and then another box of a cluster may stay.
            return f"{same_detections(found, expected, size, differing_share=0.05)}; ours {order}"
        with torch.inference_mode():
            expected = torch.cat([p.flatten() for p in exact(batch)])
        found = torch.cat([p.flatten() for p in predictions()])
        error = float((found - expected).norm() / expected.norm())
        assert error < 0.03, error
        return f"predictions within {error:.2%} of those in float32 (root mean square); ours {order}"

    kind, target = ("bfloat16", 0.45) if bfloat16 else ("float32", 0.75)
    return Pair(
        f"{WORDS[name]} inference, batch {images}, {kind}{_COMPILED * compiled}",
        lambda: detect(*predictions(), priors),
        torch.inference_mode()(lambda: their_network(list(batch))),
        same,
        0.95 if compiled else target,
    )


_COMPILED = ", both by torch.compile"
RUNTIMES = {ONNX: ("ONNX Runtime", ".onnx"), OPENVINO: ("OpenVINO", ".xml")}


def runtime(package: str, folder: Path, images: int = 20) -> Pair:
    """The network of ssd_tiny for images one by one, exported, beside itself in PyTorch, operation by operation.

    The threads of these programs wait in a loop for a while after their work, which would slow the other one down: so
    each has its turn after a pause, for several images.
    """
    name, ending = RUNTIMES[package]
    for needed in ("onnxscript", package):
        if not installed(needed):
            raise NotHere(f"{needed} is not installed")
    model = demo_model().eval()
    export_model(model, folder / f"tiny{ending}", outputs="raw")
    run = runtime_of(folder / f"tiny{ending}", torch.get_num_threads())
    size = model.recipe.image_size
    batches = torch.rand(images, 1, 3, size, size, generator=torch.Generator().manual_seed(11))

    def same(ours: Any, theirs: Any) -> str:
        for found, expected in zip(ours, theirs, strict=True):
            for part, exact in zip(found, expected, strict=True):
                torch.testing.assert_close(torch.from_numpy(part), exact, rtol=1e-3, atol=1e-3)
        return "offsets and logits within 0.1%"

    return Pair(
        f"ssd_tiny, {images} images one by one, {name} beside PyTorch",
        lambda: [run(batch.numpy()) for batch in batches],
        torch.inference_mode()(lambda: [model(batch) for batch in batches]),
        same,
        0.5,
        pause=0.5,
    )


def _require_bfloat16(asked: bool) -> None:
    if asked and not has_bfloat16(CPU):
        raise NotHere("this processor only imitates bfloat16, which takes ten times as long")


def _processor_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
