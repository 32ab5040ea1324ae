"""Part f: seconds of network and detection, for one image and a batch, by number format; torchvision beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import peer_networks
import peers
import torch
from torch import Tensor

from gpu_parts.work import Asked, Figures, seconds_of
from ssdlib.engine import processes
from ssdlib.engine.device_detection import detect_later, detect_padded
from ssdlib.zoo import from_torchvision

OURS, THEIRS = "ssdlib", "torchvision"
PLAIN, GRAPH, COMPILED = "as it is", "CUDA graph", "compiled"
TARGETS = {
    "images_per_second": ">= 5600 at batch 64 on an H100 or H200",
    "detection_share": "< 0.15 at batch 64",
}


def wanted(asked: Asked) -> Iterator[dict[str, Any]]:
    """What is most wanted comes first, and last what takes a minute to compile."""
    precisions = ("float32",) if asked.small else ("bfloat16", "float32")
    pairs = [(precision, batch) for precision in precisions for batch in (2 if asked.small else 64, 1)]
    for precision, batch in pairs:
        for way in (PLAIN, GRAPH) if asked.device.type == "cuda" else (PLAIN,):
            yield {"side": OURS, "precision": precision, "batch": batch, "way": way}
        yield {"side": THEIRS, "precision": precision, "batch": batch, "way": PLAIN}
    for precision, batch in () if asked.small else pairs:
        yield {"side": OURS, "precision": precision, "batch": batch, "way": COMPILED}


def latency(asked: Asked) -> Figures:
    """SSD300 on VGG-16; the network computes random images, and what a trained one would say is detected."""
    repeats = 1 if asked.small else 50
    name = "ssdlite320_mobilenet_v3_large" if asked.small else "ssd300_vgg16"
    figures = Figures(asked, "latency", TARGETS, {"network": name, "repeats": repeats})
    theirs = peer_networks.detector(21, name).eval().to(asked.device)

    def call(side: str, precision: str, batch: int, way: str) -> dict[str, Any]:
        bfloat16 = precision == "bfloat16"
        if side == OURS:
            return ours(theirs, batch, way, bfloat16, asked.device, repeats)
        images = torch.rand(batch, 3, 300, 300, device=asked.device)

        @torch.inference_mode()
        def detections() -> Any:
            with torch.autocast(asked.device.type, torch.bfloat16, enabled=bfloat16):
                return theirs(list(images))

        seconds = seconds_of(detections, asked.device, repeats)
        return {"seconds": seconds, "images_per_second": round(batch / seconds, 1)}

    figures.measure([*wanted(asked)], call)
    return figures


def ours(
    theirs: torch.nn.Module, batch: int, way: str, bfloat16: bool, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Network, detection, and both; as a CUDA graph both are one, for nothing in them is decided on the host."""
    model = from_torchvision(theirs).to(device).to(memory_format=torch.channels_last)
    network: Any = torch.compile(model) if way == COMPILED else model
    size = model.recipe.image_size
    images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    # What a trained network would say: what random weights say is no crowd that NMS has to do with.
    offsets, logits = (each.to(device) for each in peers.trained_like(batch, 21, model.priors.cpu()))

    @torch.inference_mode()
    def predict() -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return network(images)

    def detections() -> Any:
        return detect_later(offsets, logits, model.priors)()

    def both() -> Any:
        predict()
        return detections()

    work: dict[str, Callable[[], Any]] = {"network": predict, "detection": detections, "seconds": both}
    if way == GRAPH:
        work = {
            "network": graphed(predict),
            "detection": graphed(lambda: detect_padded(offsets, logits, model.priors)),
            "seconds": graphed(lambda: (predict(), detect_padded(offsets, logits, model.priors))),
        }
    seconds = {name: seconds_of(call, device, repeats) for name, call in work.items()}
    alone = {"detection_on_the_device": device.type in processes.ON_DEVICE}
    return {
        **seconds,
        **alone,
        "images_per_second": round(batch / seconds["seconds"], 1),
        "detection_share": round(seconds["detection"] / seconds["seconds"], 3),
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
