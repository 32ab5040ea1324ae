"""Programs that run a network, behind one call: PyTorch, ONNX Runtime, OpenVINO, OpenCV."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ssdlib.deploy.extras import require

Array = npt.NDArray[Any]
Runtime = Callable[[Array], Sequence[Array]]
"""Images (N, 3, S, S) float32 in 0..1 -> the outputs of the program, in their order."""

ONNX, OPENVINO, OPENCV = "onnxruntime", "openvino", "cv2"


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def torch_runtime(program: nn.Module | Callable[..., Any]) -> Runtime:
    """A module, or the function of an exported program, on the CPU."""

    def run(images: Array) -> Sequence[Array]:
        with torch.no_grad():
            outputs = program(torch.from_numpy(np.ascontiguousarray(images)))
        return [output.numpy() for output in outputs]

    return run


def onnx_runtime(path: str | os.PathLike[str], threads: int = 0) -> Runtime:
    """A file of ONNX in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: for one call; 0 leaves the choice to the library.

    Raises:
        ValueError: if onnxruntime is not installed.
    """
    onnxruntime = require(ONNX, "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images})


def openvino_model(
    path: str | os.PathLike[str], threads: int = 0, shape: Sequence[int] | None = None, **settings: Any
) -> Any:
    """A file of OpenVINO or ONNX, compiled for the CPU, in float32.

    Args:
        path: the file.
        threads: for all calls together; 0 leaves the choice to the library.
        shape: of the images; by default any number of them, for which the library plans less ahead.
        settings: of the library.

    Raises:
        ValueError: if openvino is not installed.
    """
    require(OPENVINO, "openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", **settings}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = _openvino_core().read_model(os.fspath(path))
    if shape is not None:
        model.reshape(list(shape))
    return _openvino_core().compile_model(model, "CPU", settings)


@functools.cache
def _openvino_core() -> Any:
    """The one core of this process.

    Each core gives the thread another stack for its signals and puts back, when it is deleted, the one before: of two,
    that may be the deleted stack of the other, and the next signal ends the process.
    """
    return importlib.import_module(OPENVINO).Core()


def openvino_runtime(path: str | os.PathLike[str], threads: int = 0) -> Runtime:
    """A file of OpenVINO (.xml, with the .bin beside it) or of ONNX in OpenVINO on the CPU, one call at a time.

    It is compiled for as many images as the first call brings, which saves a sixth of the time of a small network, and
    once more, for any number of them, where another call brings others.
    """
    requests: dict[tuple[int, ...] | None, Any] = {}  # by the shape that they are compiled for; None: for any

    def run(images: Array) -> Sequence[Array]:
        shape = images.shape if not requests or images.shape in requests else None
        if shape not in requests:
            requests[shape] = openvino_model(path, threads, shape, PERFORMANCE_HINT="LATENCY").create_infer_request()
        # Without copies, but for the results.
        found = requests[shape].infer({0: images}, share_inputs=True, share_outputs=True)
        return [np.array(found[i]) for i in range(len(found))]

    return run


def opencv_runtime(path: str | os.PathLike[str], outputs: Sequence[str] = ("boxes", "scores")) -> Runtime:
    """A file of ONNX in the DNN module of OpenCV.

    Raises:
        ValueError: if OpenCV is not installed.
    """
    cv2 = require(OPENCV)
    network = cv2.dnn.readNetFromONNX(os.fspath(path))

    def run(images: Array) -> Sequence[Array]:
        network.setInput(images)
        return network.forward(list(outputs))

    return run


def runtime_of(path: Path, threads: int = 0) -> Runtime:
    """The runtime for an exported file, by its ending: .onnx, .xml (OpenVINO), else a program of `torch.export`."""
    if path.suffix == ".onnx":
        return onnx_runtime(path, threads) if installed(ONNX) else openvino_runtime(path, threads)
    if path.suffix == ".xml":
        return openvino_runtime(path, threads)
    return torch_runtime(torch.export.load(io.BytesIO(path.read_bytes())).module())  # whatever its ending
