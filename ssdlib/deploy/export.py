"""Export: the network as a file for other runtimes, compared with PyTorch before it is there."""

from __future__ import annotations

import copy
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssdlib.data.files import replaced
from ssdlib.data.synthetic.scenes import render_scene
from ssdlib.deploy.extras import require
from ssdlib.deploy.nms_graph import add_nms
from ssdlib.deploy.runtimes import Array, Runtime, runtime_of, torch_runtime
from ssdlib.detection import Detection
from ssdlib.model import SSD, prepare
from ssdlib.zoo.checkpoint import Program

TARGETS = {"torch-export": ".pt2", "onnx": ".onnx", "openvino": ".xml"}
"""What a network can be exported to, with the ending of the file; the first is the target of any other ending."""

OUTPUTS = {"raw": ("offsets", "logits"), "boxes": ("boxes", "scores"), "nms": ("image", "labels", "boxes", "scores")}
"""How far the arithmetic in the file goes: the network, its decoding, NMS; with the names of what comes out."""

TOLERANCE = {False: 1e-3, True: 3e-2}
"""Largest difference from PyTorch, by whether the file is in float16: of scores, and of boxes in fractions."""


class _Lower(nn.Module):
    """A program whose network computes in 16 bits, and all else, with its inputs and outputs, in float32."""

    def __init__(self, program: nn.Module, network: SSD, dtype: torch.dtype) -> None:
        super().__init__()
        priors = network.priors
        network.to(dtype)
        network.priors = priors
        network.register_forward_pre_hook(lambda _, given: (given[0].to(dtype),))
        network.register_forward_hook(lambda _, given, outputs: tuple(output.float() for output in outputs))
        self.program = program

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


def program_of(model: SSD, outputs: str = "boxes", dtype: torch.dtype = torch.float32) -> nn.Module:
    """What is exported, as a module of PyTorch on the CPU; the model is left as it is.

    Args:
        model: any SSD, on any device.
        outputs: "raw" gives offsets (N, P, 4) and logits (N, P, C); others boxes (N, P, 4) xyxy in fractions of the
            image, and scores (N, P, C).
        dtype: what the network computes in; the decoding is in float32.
    """
    network = copy.deepcopy(model).cpu().eval()
    program: nn.Module = network if outputs == "raw" else Program(network)
    return (program if dtype == torch.float32 else _Lower(program, network, dtype)).eval()


def target_of(path: Path, to: str | None = None) -> str:
    """The target of a file, by its ending, or as it is asked for.

    Raises:
        ValueError: if there is no such target, or the ending is that of another one.
    """
    by_ending = next((name for name, ending in TARGETS.items() if path.suffix.lower() == ending), next(iter(TARGETS)))
    if to is None:
        return by_ending
    if to not in TARGETS:
        raise ValueError(f"no target {to!r}; there are {', '.join(TARGETS)}")
    if to != by_ending:
        raise ValueError(f"{path} has not the ending {TARGETS[to]}, which {to} needs")
    return to


def export_model(
    model: SSD,
    path: str | Path,
    *,
    to: str | None = None,
    outputs: str = "boxes",
    half: bool = False,
    images: Sequence[Any] = (),
    min_score: float = 0.05,
    max_overlap: float = 0.45,
) -> float:
    """Write the network as a file that other runtimes run without this package, for any number of images at once.

    The input is `images`, (N, 3, S, S) of floats in 0..1, RGB, which `ssdlib.model.prepare` makes of a photograph. The
    file is run and compared with PyTorch before it takes its place.

    Args:
        model: any SSD, on any device; it is left as it is, and exported in evaluation mode, for the CPU.
        path: where to write.
        to: a name of `TARGETS`; by default that of the ending.
        outputs: "raw": offsets (N, P, 4) and logits (N, P, C). "boxes": boxes (N, P, 4) xyxy in fractions of the image
            and scores (N, P, C), class 0 being background: what NMS needs. "nms": a row for each object of all images,
            image (M,) and labels (M,) int64, boxes (M, 4), scores (M,), in no order.
        half: float16 in the network, or for OpenVINO in the file, at half the size.
        images: PIL images or uint8 tensors to compare on; by default drawn scenes.
        min_score, max_overlap: of the NMS in the file, as in `ssdlib.detection.detect`.

    Returns:
        The largest difference from PyTorch that was seen.

    Raises:
        ValueError: if the file gives other results than PyTorch, then it is not written; or a package is missing; or
            there is no such target, or none with NMS.
    """
    path = Path(path)
    target = target_of(path, to)
    if outputs not in OUTPUTS:
        raise ValueError(f"no outputs {outputs!r}; there are {', '.join(OUTPUTS)}")
    if target == "torch-export" and outputs == "nms":
        raise ValueError("torch-export has no NMS, as the number of its results is not known before: take onnx")
    # Asked first: its extra brings all that is needed, onnx too.
    openvino = require("openvino", "openvino") if target == "openvino" else None
    batch = check_batch(images, model.recipe.image_size)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"program{path.suffix}"
        if target == "torch-export":
            _write_program(program_of(model, outputs, torch.float16 if half else torch.float32), model, made)
        else:
            thresholds = (min_score, max_overlap)
            exact = made.with_suffix(".onnx")
            write_onnx(model, exact, outputs, half and target == "onnx", thresholds)
            if openvino is not None:
                openvino.save_model(openvino.convert_model(exact), made, compress_to_fp16=half)
        worst = compare(runtime_of(made), model, batch, outputs, TOLERANCE[half], (min_score, max_overlap))
        install(made, path)
    return worst


def install(made: Path, path: Path) -> None:
    """Move a file that was judged right into place; of OpenVINO's two, the weights first."""
    pair = made.suffix == ".xml"
    for file in [made.with_suffix(".bin"), made] if pair else [made]:
        with replaced(path.with_suffix(file.suffix) if pair else path) as aside:
            shutil.copyfile(file, aside)


def check_batch(images: Sequence[Any], size: int) -> Array:
    """(N, 3, S, S) float32: images as the network takes them, or drawn scenes if there are none."""
    rng = np.random.default_rng(0)
    shown = list(images) or [render_scene(rng)[0] for _ in range(3)]
    return torch.stack([prepare(image, size) for image in shown]).numpy()


def _write_program(program: nn.Module, model: SSD, path: Path) -> None:
    size = model.recipe.image_size
    shapes = {"images": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(program, (torch.zeros(2, 3, size, size),), dynamic_shapes=shapes)
    file = io.BytesIO()  # not the file itself: where the disk is full, PyTorch's writer ends the whole process
    torch.export.save(exported, file)
    path.write_bytes(file.getbuffer())


def write_onnx(
    model: SSD, path: Path, outputs: str = "boxes", half: bool = False, thresholds: tuple[float, float] = (0.05, 0.45)
) -> None:
    """Write the network as ONNX, without comparing it; its metadata say classes, size and colours.

    Raises:
        ValueError: if onnx or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "onnx")
    size = model.recipe.image_size
    names = OUTPUTS["boxes" if outputs == "nms" else outputs]
    exported = torch.onnx.export(
        program_of(model, outputs, torch.float16 if half else torch.float32),
        (torch.zeros(2, 3, size, size),),
        dynamo=True,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        input_names=["images"],
        output_names=list(names),
        verbose=False,
    )
    assert exported is not None
    graph = exported.model_proto
    if outputs == "nms":
        add_nms(graph, *thresholds)
    for key, value in {
        "classes": json.dumps(list(model.classes)),
        "input": f"images (N, 3, {size}, {size}), RGB, float32 in 0..1",
        "outputs": outputs,
    }.items():
        graph.metadata_props.add(key=key, value=value)
    path.write_bytes(graph.SerializeToString())


def compare(
    runtime: Runtime,
    model: SSD,
    batch: Array,
    outputs: str,
    tolerance: float,
    thresholds: tuple[float, float] = (0.05, 0.45),
) -> float:
    """Run a file on images, one by one and together, and compare what comes out with PyTorch.

    Returns:
        The largest difference: of boxes in fractions of the image, and of scores, or of offsets and logits.

    Raises:
        ValueError: if it is above the tolerance, or a box is there in one only.
    """
    worst = 0.0
    for images in (batch[:1], batch):
        if outputs == "nms":
            worst = max(worst, _compare_found(runtime(images), model, images, tolerance, thresholds))
            continue
        wanted = torch_runtime(program_of(model, outputs))(images)
        for name, ours, theirs in zip(OUTPUTS[outputs], wanted, runtime(images), strict=True):
            if ours.shape != theirs.shape:
                raise ValueError(f"not written: {name} has the shape {theirs.shape}, and in PyTorch {ours.shape}")
            scale = max(1.0, float(np.abs(ours).max()) / 10) if outputs == "raw" else 1.0
            difference = float(np.abs(ours - theirs).max()) / scale
            if not difference <= tolerance:
                raise ValueError(
                    f"not written: its {name} differ from PyTorch's by up to {difference:.3g}, above {tolerance:g}"
                )
            worst = max(worst, difference)
    return worst


def _compare_found(
    rows: Sequence[Array], model: SSD, images: Array, tolerance: float, thresholds: tuple[float, float]
) -> float:
    """Each object that PyTorch finds clearly above the threshold is among the rows, and the other way round."""
    network = copy.deepcopy(model).cpu().eval()
    tensors = [torch.from_numpy((image * 255).round().astype(np.uint8)) for image in images]
    found = network.predict(tensors, min_score=thresholds[0], max_overlap=thresholds[1], top_k=10_000)
    where, labels, boxes, scores = (torch.from_numpy(np.array(column)) for column in rows)
    worst = 0.0
    for number, ours in enumerate(found):
        ours["boxes"] = ours["boxes"] / model.recipe.image_size
        mine = where == number
        theirs = {"boxes": boxes[mine], "labels": labels[mine], "scores": scores[mine]}
        for one, other in ((ours, theirs), (theirs, ours)):
            worst = max(worst, _farthest(one, other, thresholds[0] + tolerance))
    if worst > tolerance:
        raise ValueError(f"not written: an object of PyTorch's is not among its own, nearest {worst:.3g} away")
    return worst


def _farthest(one: Detection, other: Detection, above: float) -> float:
    """The largest distance of an object to the nearest of the same class: in a coordinate or the score."""
    worst = 0.0
    for box, label, score in zip(one["boxes"], one["labels"], one["scores"], strict=True):
        if score < above:
            continue
        rivals = other["labels"] == label
        if not rivals.any():
            return 1.0
        distance = torch.cat([other["boxes"][rivals] - box, (other["scores"][rivals] - score)[:, None]], dim=1)
        worst = max(worst, float(distance.abs().amax(dim=1).min()))
    return worst
