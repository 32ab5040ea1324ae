"""Int8 after training: a quarter of the size, faster where the processor multiplies bytes, and a little less right.

A convolution computes with whole numbers of 8 bits, which a scale turns back into real ones: a scale for the weights of
each filter, and one for the values that enter the layer. The second cannot be known from the weights; it is the range
that is seen while photographs go through the network, the calibration. So they must be such as will come later.

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
(2018). The file is ONNX with QuantizeLinear and DequantizeLinear around each convolution ("QDQ"), made by ONNX Runtime.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.data.names import counted
from ssdlib.deploy.export import OUTPUTS, install, program_of, target_of, write_onnx
from ssdlib.deploy.exported import detections_of
from ssdlib.deploy.extras import require
from ssdlib.deploy.nms_graph import add_nms
from ssdlib.deploy.runtimes import Array, Runtime, runtime_of, torch_runtime
from ssdlib.detection import Detection
from ssdlib.metrics import evaluate
from ssdlib.model import SSD, prepare, upright_rgb

LEAST_AGREEMENT = 0.9
"""Least mAP of the file's detections, with PyTorch's sure ones for the truth."""

MOST_LOST = 0.02
"""Most that the mAP on labelled images may fall."""

SURE = 0.3
"""Least score of what PyTorch finds that the file must find too."""

Labelled = tuple[Any, dict[str, Tensor]]
"""An image (PIL or uint8 tensor) and its target in pixels."""


class Quantized(NamedTuple):
    """What a file in int8 has kept: mAP against PyTorch's own detections, and on labels before and after, if given."""

    agreement: float
    sure: int  # objects that PyTorch found surely, over which the agreement was measured
    before: float | None
    after: float | None


def export_int8(
    model: SSD,
    path: str | Path,
    calibration: Iterable[Any],
    *,
    to: str | None = None,
    outputs: str = "boxes",
    labelled: Iterable[Labelled] = (),
    min_score: float = 0.05,
    max_overlap: float = 0.45,
) -> Quantized:
    """Write the network as a file whose convolutions compute in int8; else as `ssdlib.deploy.export.export_model`.

    An exact comparison with PyTorch says nothing here, as every number moves a little. What counts is what is found:
    the file is run, and refused if its detections are not those of PyTorch any more, or are worse on labelled images.
    Before that it is tried again with the sensitive layers in float32.

    Args:
        model: any SSD, on any device; it is left as it is.
        path: where to write, .onnx or .xml.
        calibration: photographs such as will come later, PIL images or uint8 tensors (3, H, W); a hundred do.
        to, outputs, min_score, max_overlap: as for `export_model`.
        labelled: images with targets in pixels, on which the mAP is measured before and after.

    Raises:
        ValueError: if PyTorch finds nothing in the photographs, so that they calibrate nothing; or the file's agreement
            is under `LEAST_AGREEMENT`, or its mAP more than `MOST_LOST` lower: then it is not written. Or a package is
            missing, or there is no such target.
    """
    path = Path(path)
    target = target_of(path, to)
    if target == "torch-export":
        raise ValueError(f"int8 goes into .onnx and .xml, not into {path.name}")
    if outputs not in OUTPUTS:
        raise ValueError(f"no outputs {outputs!r}; there are {', '.join(OUTPUTS)}")
    openvino = require("openvino", "openvino") if target == "openvino" else None
    side, thresholds = model.recipe.image_size, (min_score, max_overlap)
    # Small at once: `prepare` leaves what has its size already as it is.
    seen = [TF.resize(upright_rgb(image), [side, side], antialias=True) for image in calibration]
    if not seen:
        raise ValueError("int8 needs photographs for its calibration")
    plain = "boxes" if outputs == "nms" else outputs
    with tempfile.TemporaryDirectory() as folder:
        exact, made = Path(folder) / "exact.onnx", Path(folder) / f"program{path.suffix}"
        write_onnx(model, exact, plain)
        quantized = made.with_suffix(".onnx")
        for careful in (False, True):
            quantize(exact, quantized, (prepare(image, side)[None].numpy() for image in seen), careful)
            if outputs == "nms":
                onnx = require("onnx", "onnx")
                graph = onnx.load(quantized)
                add_nms(graph, *thresholds)
                quantized.write_bytes(graph.SerializeToString())
            if openvino is not None:
                openvino.save_model(openvino.convert_model(quantized), made, compress_to_fp16=False)
            result = judge(runtime_of(made), model, outputs, seen, labelled, thresholds)
            if lost(result) is None:
                break
        problem = lost(result)
        if problem is not None:
            raise ValueError(problem)
        install(made, path)
    return result


def quantize(exact: Path, out: Path, batches: Iterable[Array], careful: bool = False) -> None:
    """Turn the convolutions of a file of ONNX to int8.

    Args:
        exact: the file, in float32.
        out: the new one.
        batches: prepared images (N, 3, S, S); the ranges of the values that they cause become the scales.
        careful: leave in float32 what loses most: the first three layers, those that look at each channel by itself,
            as in MobileNet, and the heads.

    Raises:
        ValueError: if onnxruntime is not installed.
    """
    tools = require("onnxruntime.quantization", "onnx")

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    kept = sensitive(exact) if careful else []
    # Weights of 7 bits: two products of 8 bits overflow the 16 bits in which processors without VNNI add them, and
    # such a file would be right here and wrong there.
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it advises to fold batch normalisation, which the exporter has done
    try:
        tools.quantize_static(
            str(exact),
            str(out),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            # With the ReLU behind a convolution, its values are those that are left by it: from 0, or in 0..6.
            op_types_to_quantize=["Conv", "Relu", "Clip"],
            nodes_to_exclude=kept,
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
        )
    finally:
        logger.setLevel(before)


def sensitive(exact: Path) -> list[str]:
    """Names of the convolutions in a file of ONNX that lose most in int8: the first three, the depthwise, the heads."""
    nodes = [node for node in require("onnx", "onnx").load(exact).graph.node if node.op_type == "Conv"]

    def loses(node: Any) -> bool:
        groups = max((each.i for each in node.attribute if each.name == "group"), default=1)
        return groups > 1 or any("_head." in name for name in node.input)

    return [node.name for index, node in enumerate(nodes) if index < 3 or loses(node)]


def judge(
    run: Runtime,
    model: SSD,
    outputs: str,
    images: Sequence[Any],
    labelled: Iterable[Labelled] = (),
    thresholds: tuple[float, float] = (0.05, 0.45),
) -> Quantized:
    """How much a program still finds of what PyTorch finds.

    Raises:
        ValueError: if PyTorch finds nothing in the images.
    """
    exact = torch_runtime(program_of(model))
    limit = max(SURE, thresholds[0] + 0.1)  # what lies about the threshold of an NMS in the file may be there or not
    wanted, found = _found_by(exact, run, model, outputs, images, thresholds)
    truth = [as_truth(each, limit) for each in wanted]
    sure = sum(len(target["labels"]) for target in truth)
    if sure == 0:
        raise ValueError(
            f"not written: PyTorch finds nothing with a score of {limit:g} in the "
            f"{counted(len(images), 'photograph')} of the calibration, so that nothing can be compared: take others"
        )
    agreement = evaluate(found, truth, model.num_classes).mean
    targets: list[dict[str, Tensor]] = []

    def shown() -> Iterator[Any]:  # each image is read once, and one is in memory
        for image, target in labelled:
            targets.append(fractional(image, target))
            yield image

    wanted, found = _found_by(exact, run, model, outputs, shown(), thresholds)
    if not targets:
        return Quantized(agreement, sure, None, None)
    before, after = (evaluate(each, targets, model.num_classes).mean for each in (wanted, found))
    return Quantized(agreement, sure, before, after)


def lost(kept: Quantized) -> str | None:
    """Why a file that was judged is not written; None if it kept enough."""
    if not kept.agreement >= LEAST_AGREEMENT:
        return (
            f"not written: of the {counted(kept.sure, 'object')} that PyTorch finds, the int8 file keeps an mAP of "
            f"{kept.agreement:.3f}, under {LEAST_AGREEMENT:g}: calibrate on more photographs, or export in float16"
        )
    if kept.before is not None and kept.after is not None and not kept.after >= kept.before - MOST_LOST:
        return (
            f"not written: its mAP is {kept.after:.3f}, and {kept.before:.3f} in PyTorch; it may fall by {MOST_LOST:g}"
        )
    return None


def _found_by(
    exact: Runtime, run: Runtime, model: SSD, outputs: str, images: Iterable[Any], thresholds: tuple[float, float]
) -> tuple[list[Detection], list[Detection]]:
    """What PyTorch finds in each image, and what the program finds, in fractions."""
    wanted, found = [], []
    for image in images:
        batch = prepare(image, model.recipe.image_size)[None].numpy()
        wanted += detections_of(exact(batch), model, "boxes", *thresholds)
        found += detections_of(run(batch), model, outputs, *thresholds)
    return wanted, found


def as_truth(found: Detection, min_score: float) -> dict[str, Tensor]:
    """Detections as if they were labels."""
    kept = found["scores"] >= min_score
    return {
        "boxes": found["boxes"][kept],
        "labels": found["labels"][kept],
        "difficult": torch.zeros(int(kept.sum()), dtype=torch.bool),
    }


def fractional(image: Any, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """A target in pixels as one in fractions of its image."""
    width, height = (image.shape[2], image.shape[1]) if isinstance(image, Tensor) else image.size
    return {**target, "boxes": target["boxes"] / torch.tensor([width, height, width, height])}
