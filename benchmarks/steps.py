"""Time the single steps that make the detector fast, each beside what it replaced, and profile a training step.

    OMP_NUM_THREADS=2 python benchmarks/steps.py

writes ssdlib/engine/records/steps.json: "steps", rows as those of speed.py, in which "ours" is the faster way and
"theirs" the plain one; "profile", the share of each kind of operation in a training step of SSD300 with 4 images, in
its inference with one, and in that of ssd_tiny by PyTorch and by ONNX Runtime; "rates", billions of operations a second
of its convolutions and of a large matrix product, which is what the processor can; and "operations", the shares of the
largest operations of the loss and of detection.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import peer_networks
import peers
import torch
import typer
from record import RESULTS, circumstances, write_record
from timing import Pair, as_record, compare, seconds, table
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import batched_nms

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import decode
from ssdlib.deploy.export import write_onnx
from ssdlib.deploy.runtimes import ONNX, installed
from ssdlib.detection import detect
from ssdlib.loss import background_loss, mine_hard_negatives
from ssdlib.matching import UNMATCHED, match, match_batch
from ssdlib.zoo import demo_model, from_torchvision

KINDS = {
    "convolution_backward": "convolutions, backward",
    "mkldnn_convolution": "convolutions, forward",
    "slow_conv2d_forward": "convolutions, forward",  # of small maps
    "batch_norm": "batch normalisation",
    "copy_": "copies and casts",
    "sgd": "optimizer",
    "clamp_min": "ReLU and pooling",
    "threshold_backward": "ReLU and pooling",
    "max_pool": "ReLU and pooling",
}


def same(ours: Any, theirs: Any) -> str:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    return "the same within rounding"


def steps(small: bool) -> Iterator[Pair]:
    """The faster way and the plain one, at the sizes of speed.py."""
    images, few = (2, 1) if small else (32, 8)
    priors = peers.make_priors(peers.SSD300_COCO)
    targets = peers.scene(images, 6, 21, priors)
    boxes, image = torch.cat([t["boxes"] for t in targets]), torch.arange(images).repeat_interleave(6)

    def one_by_one() -> Tensor:
        rows = (match(each["boxes"], priors) for each in targets)
        return torch.stack([row.where(row == UNMATCHED, row + 6 * i) for i, row in enumerate(rows)])

    work = f"matching, batch {images}: all images at once / one after the other"
    yield Pair(work, lambda: match_batch(boxes, image, images, priors), one_by_one, same, 1.0)

    logits = torch.randn(images, len(priors), 21)
    work = "cross entropy as background: fused log_softmax / logsumexp minus a logit"
    yield Pair(work, lambda: background_loss(logits), lambda: logits.logsumexp(-1) - logits[..., 0], same, 1.0)

    hardness, positive = background_loss(logits), one_by_one() != UNMATCHED

    def by_two_sorts() -> Tensor:
        order = hardness.masked_fill(positive, -torch.inf).argsort(dim=1, descending=True)
        return order.argsort(dim=1) < 3 * positive.sum(dim=1, keepdim=True)

    work = "hard negatives: top-k / rank of every prior by two sorts"
    yield Pair(work, lambda: mine_hard_negatives(hardness, positive), by_two_sorts, same, 1.0)

    for trained in (True, False):
        offsets, logits = (peers.trained_like if trained else peers.untrained)(few, 21, priors)
        way = "trained scores: priors that may pass" if trained else "untrained scores: 400 best of all classes"
        work = f"detection, {way} first / 400 of every class"
        yield Pair(
            work,
            lambda o=offsets, c=logits: detect(o, c, priors),
            lambda o=offsets, c=logits: by_class(o, c, priors),
            lambda a, b: peers.same_detections(a, [{**x, "boxes": x["boxes"] * 300} for x in b], 300),
            1.0,
        )

    model = from_torchvision(peer_networks.detector(21))
    channels_last = from_torchvision(peer_networks.detector(21)).to(memory_format=torch.channels_last)
    batch = torch.rand(1 if small else 4, 3, 300, 300)

    @torch.inference_mode()
    def plain() -> Any:
        return model(batch)

    @torch.inference_mode()
    def last() -> Any:
        return channels_last(batch.to(memory_format=torch.channels_last))

    def in_bfloat16() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return last()

    yield Pair("network forward, float32: channels_last / contiguous", last, plain, same, 1.0)
    work = "network forward, channels_last: bfloat16 / float32"
    yield Pair(work, in_bfloat16, last, lambda a, b: "not the same: 8 bits of mantissa", 1.0)


@torch.no_grad()
def by_class(offsets: Tensor, logits: Tensor, priors: Tensor) -> list[dict[str, Tensor]]:
    """Detection with the 400 best candidates of every class from the start."""
    boxes = cxcywh_to_xyxy(decode(offsets, priors)).clamp(0, 1)
    best, prior = logits.softmax(dim=-1)[..., 1:].transpose(1, 2).topk(400, dim=2)  # (N, C-1, 400)
    results = []
    for i in range(len(boxes)):
        row, column = (best[i] >= 0.01).nonzero(as_tuple=True)
        candidates, scores, labels = boxes[i, prior[i, row, column]], best[i, row, column], row + 1
        kept = batched_nms(candidates.double(), scores.double(), labels, 0.45)[:200]
        results.append({"boxes": candidates[kept], "labels": labels[kept], "scores": scores[kept]})
    return results


def shares(step: Callable[[], Any]) -> dict[str, float]:
    """The share of each kind of operation in the time of a call."""
    step()
    with profile() as profiled:
        step()
    times: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        kind = next((kind for key, kind in KINDS.items() if key in event.key), "all else")
        times[kind] += event.self_cpu_time_total
    total = sum(times.values())
    return {kind: round(time / total, 4) for kind, time in sorted(times.items(), key=lambda item: -item[1])}


def operations(step: Callable[[], Any], most: int = 6) -> dict[str, float]:
    """The shares of the operations of PyTorch that take most of a call."""
    step()
    with profile() as profiled:
        for _ in range(10):
            step()
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(times.values())
    return {name: round(time / total, 4) for name, time in sorted(times.items(), key=lambda item: -item[1])[:most]}


def inference_sides(small: bool) -> tuple[dict[str, Callable[[], Any]], float]:
    """The networks for one image, ours and torchvision's, and the operations that their convolutions need."""
    theirs = peer_networks.detector(21, "ssdlite320_mobilenet_v3_large" if small else "ssd300_vgg16").eval()
    ours = from_torchvision(theirs).eval().to(memory_format=torch.channels_last)
    size = ours.recipe.image_size
    image = torch.rand(1, 3, size, size)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        ours(image)
    last = image.to(memory_format=torch.channels_last)
    sides = {"ssdlib, inference": lambda: ours(last), "torchvision, inference": lambda: theirs(list(image))}
    return {name: torch.inference_mode()(side) for name, side in sides.items()}, counted.get_total_flops()


def tiny_sides(folder: Path, runs: int = 20) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Of ssd_tiny for one image, in PyTorch and in ONNX Runtime: shares, and operations a second of the convolutions.

    ONNX Runtime computes batch normalisation and ReLU as a part of the convolution before.
    """
    model = demo_model().eval()
    size = model.recipe.image_size
    image = torch.rand(1, 3, size, size)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(image)
    step = torch.inference_mode()(lambda: model(image))
    profiles = {"ssd_tiny, PyTorch": shares(torch.inference_mode()(lambda: [model(image) for _ in range(runs)]))}
    least = {"ssd_tiny in PyTorch": min(convolution_seconds(step) for _ in range(runs))}
    if installed(ONNX) and installed("onnxscript"):
        write_onnx(model, folder / "tiny.onnx", "raw")
        calls = onnx_profile(folder, image, runs)
        whole, inside = min(calls)  # seconds of the call that was disturbed least
        profiles["ssd_tiny, ONNX Runtime"] = {
            "convolutions, forward": round(inside / whole, 4),
            "all else": round(1 - inside / whole, 4),
        }
        least["ssd_tiny in ONNX Runtime"] = min(inside for _, inside in calls)
    return profiles, {f"convolutions, {what}": counted.get_total_flops() / taken for what, taken in least.items()}


def onnx_profile(folder: Path, image: Tensor, runs: int) -> list[tuple[float, float]]:
    """Seconds of each call of tiny.onnx in ONNX Runtime, and of the convolutions in it."""
    onnxruntime = importlib.import_module(ONNX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(folder / "tiny.onnx", options, providers=["CPUExecutionProvider"])
    for _ in range(3 + runs):
        session.run(None, {"images": image.numpy()})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found = [
        (event["ts"], event["dur"]) for event in events if event["cat"] == "Node" and "Conv" in event["args"]["op_name"]
    ]
    calls = []
    for call in [event for event in events if event["name"] == "model_run"][3:]:  # the first ones warm it up
        inside = sum(taken for begun, taken in found if call["ts"] <= begun < call["ts"] + call["dur"])
        calls.append((call["dur"] / 1e6, inside / 1e6))
    return calls


def convolution_seconds(step: Callable[[], Any]) -> float:
    with profile() as profiled:
        step()
    return sum(event.self_cpu_time_total for event in profiled.key_averages() if "conv" in event.key) / 1e6


def product_rate(side: int) -> float:
    """Operations a second of a product of two square matrices, the best of five."""
    matrix = torch.rand(side, side)
    return 2 * side**3 / min(seconds(lambda: matrix @ matrix) for _ in range(5))


def main(
    name: Annotated[str, typer.Option(help="Name of the record.")] = "steps",
    rounds: Annotated[int, typer.Option(help="Pairs of runs for each step.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    small: Annotated[bool, typer.Option("--small", help="Tiny inputs, to test the script.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Measure, print, record."""
    torch.set_num_threads(threads)
    rows = []
    for pair in steps(small):
        rows.append(compare(pair, rounds))
        print(table(rows[-1:]), flush=True)
    profiles = {}
    for bfloat16 in (False, True):
        trainers = peer_networks.Trainers(1 if small else 4, bfloat16=bfloat16)
        profiles["ssdlib, bfloat16" if bfloat16 else "ssdlib, float32"] = shares(trainers.our_step)
        if not bfloat16:
            profiles["torchvision, float32"] = shares(trainers.their_step)
    sides, needed = inference_sides(small)
    rates = {"matrix product": product_rate(256 if small else 2048)}
    for side, step in sides.items():
        profiles[side] = shares(step)
        rates[f"convolutions, {side}"] = needed / min(convolution_seconds(step) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        of_tiny = tiny_sides(Path(folder), 2 if small else 20)
    for all_of_them, more in zip((profiles, rates), of_tiny, strict=True):
        all_of_them.update(more)
    print(", ".join(f"{what} {rate / 1e9:.0f} GFLOP/s" for what, rate in rates.items()))
    largest = {
        "matching + loss": operations(peers.loss(2 if small else 32).ours),
        "detection": operations(peers.detection(True, 1 if small else 8).ours),
    }
    for side, parts in [*profiles.items(), *largest.items()]:
        print(side, ", ".join(f"{kind} {share:.1%}" for kind, share in parts.items()))
    record = {
        "command": f"OMP_NUM_THREADS={threads} python benchmarks/steps.py --name {name} --rounds {rounds}",
        **circumstances(),
        "threads": threads,
        "rounds": rounds,
        "steps": as_record(rows),
        "profile": profiles,
        "rates": {what: round(rate / 1e9, 1) for what, rate in rates.items()},
        "operations": largest,
    }
    write_record(record, name, results)


if __name__ == "__main__":
    sys.exit(typer.run(main))
