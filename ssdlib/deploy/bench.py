"""What an image costs: latency and throughput of a network in each runtime, one call at a time and several at once.

Latency is how long one answer takes, throughput how many come in a second. With N requests in flight, Little's law says
N = throughput x latency: where the processor is busy already, more requests only wait longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssdlib.data.images import load_image
from ssdlib.deploy.export import program_of, write_onnx
from ssdlib.deploy.exported import detections_of
from ssdlib.deploy.int8 import quantize
from ssdlib.deploy.runtimes import (
    ONNX,
    OPENVINO,
    Array,
    Runtime,
    installed,
    onnx_runtime,
    openvino_model,
    torch_runtime,
)
from ssdlib.detection import Detection
from ssdlib.model import SSD, prepare

TORCH, COMPILED, BFLOAT16 = "torch", "torch-compile", "torch-bfloat16"
INT8 = "-int8"
RUNTIMES = (TORCH, COMPILED, BFLOAT16, ONNX, ONNX + INT8, OPENVINO, OPENVINO + INT8)
"""The programs that are compared: PyTorch as it is, compiled, and in bfloat16; others, in float32 and in int8."""


@dataclass(frozen=True)
class Timing:
    """The times of one setting, in milliseconds of a call, and the images of a second."""

    runtime: str
    batch: int
    in_flight: int
    threads: int
    calls: int
    min_ms: float
    median_ms: float
    p99_ms: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        return asdict(self)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available(names: Iterable[str] = RUNTIMES) -> list[str]:
    """Those of the runtimes that are installed.

    ONNX Runtime and OpenVINO need the exporter of ONNX too, int8 ONNX Runtime, and compilation a compiler of C++.

    Raises:
        ValueError: if there is no such runtime.
    """
    names = list(names)
    for name in names:
        if name not in RUNTIMES:
            raise ValueError(f"no runtime {name!r}; there are {', '.join(RUNTIMES)}")
    exporter = installed("onnx") and installed("onnxscript")

    def there(name: str) -> bool:
        if name == COMPILED:
            return any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))
        if name in (TORCH, BFLOAT16):
            return True
        return exporter and installed(name.removesuffix(INT8)) and (not name.endswith(INT8) or installed(ONNX))

    return [name for name in names if there(name)]


def measure(workers: Sequence[Callable[[], Any]], seconds: float, warm_up: int = 2) -> tuple[list[float], float]:
    """Let each worker, in a thread of its own, call its function again and again.

    Args:
        workers: a function for each request that is in flight.
        seconds: for so long; each function is called at least three times.
        warm_up: calls of each before, which do not count.

    Returns:
        The seconds of each call, of all workers, and the seconds that all of it took.

    Raises:
        Exception: what a function raises.
    """
    for work in workers:
        for _ in range(warm_up):
            work()
    latencies: list[float] = []
    errors: list[BaseException] = []
    gate = threading.Barrier(len(workers) + 1)

    def loop(work: Callable[[], Any]) -> None:
        own: list[float] = []
        gate.wait()
        end = time.perf_counter() + seconds
        try:
            while len(own) < 3 or time.perf_counter() < end:
                started = time.perf_counter()
                work()
                own.append(time.perf_counter() - started)
        except BaseException as error:
            errors.append(error)
        latencies.extend(own)

    threads = [threading.Thread(target=loop, args=(work,), daemon=True) for work in workers]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - started
    if errors:
        raise errors[0]
    return latencies, total


def bench(
    model: SSD,
    *,
    runtimes: Iterable[str] = RUNTIMES,
    in_flight: Iterable[int] = (1, 2),
    threads: int | None = None,
    batch: int = 1,
    seconds: float = 3.0,
    report: Callable[[Timing], None] = lambda timing: None,
    around: Callable[[Runtime], Callable[[], Any]] | None = None,
) -> list[Timing]:
    """Time the network, with its boxes decoded and without NMS, on the CPU.

    Args:
        model: any SSD.
        runtimes: names of `RUNTIMES`; those that are not installed are left out.
        in_flight: requests at a time; 1 is synchronous.
        threads: of one request; by default the processors shared among the requests.
        batch: images of one request.
        seconds: for each setting.
        report: called with each result as it comes.
        around: makes the function of a request from that which runs the network, such as `from_file_to_picture`; by
            default a request is a call of the network with random images. Each call has `batch` images.

    Raises:
        ValueError: if there is no such runtime, or a number is not positive.
    """
    counts = list(in_flight)
    if min([*counts, batch, 1 if threads is None else threads]) < 1 or seconds <= 0:
        raise ValueError("requests in flight, threads, the batch and the seconds must be positive")
    images = np.random.default_rng(0).random((batch, 3, model.recipe.image_size, model.recipe.image_size), np.float32)
    names, results, before = available(runtimes), [], torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        exact, int8 = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        if set(names) - {TORCH, COMPILED, BFLOAT16}:
            write_onnx(model, exact)
        if any(name.endswith(INT8) for name in names):
            quantize(exact, int8, [images])  # the ranges of random images: right for the time, and for nothing else
        try:
            for name in names:
                path = int8 if name.endswith(INT8) else exact
                for count in counts:
                    own = threads or max(1, cores() // count)
                    torch.set_num_threads(own)
                    runs = _requests(name, model, path, count, own, images.shape)
                    workers = [around(run) if around else _call(run, images) for run in runs]
                    latencies, total = measure(workers, seconds)
                    low, median, high = np.percentile(1e3 * np.array(latencies), [0, 50, 99])
                    rate = len(latencies) * batch / total
                    figures = [round(float(figure), 3) for figure in (low, median, high, rate)]
                    results.append(Timing(name, batch, count, own, len(latencies), *figures))
                    report(results[-1])
        finally:
            torch.set_num_threads(before)
    return results


def _call(run: Runtime, images: Array) -> Callable[[], Any]:
    return lambda: run(images)


def from_file_to_picture(
    model: SSD, files: Sequence[Path], draw: Callable[[Tensor, Detection], Any]
) -> Callable[[Runtime], Callable[[], Any]]:
    """For `bench`: all that a photograph costs, from its file to the picture with boxes.

    With several requests in flight, one photograph is read or drawn while the network computes for another.

    Args:
        model: the SSD that the runtimes have.
        files: photographs, taken in turn.
        draw: makes the picture of an image (3, H, W) uint8 and what was found in it, in pixels.
    """
    side = model.recipe.image_size

    def around(run: Runtime) -> Callable[[], Any]:
        turn = cycle(files)

        def request() -> Any:
            pixels = load_image(next(turn))
            rows = run(prepare(pixels, side)[None].numpy())
            (found,) = detections_of(rows, model, "boxes", min_score=0.3)
            height, width = pixels.shape[1:]
            found["boxes"] = found["boxes"] * torch.tensor([width, height, width, height])
            return draw(pixels, found)

        return request

    return around


def _requests(name: str, model: SSD, path: Path, count: int, threads: int, shape: Sequence[int]) -> list[Runtime]:
    """A function for each request in flight, of images of this shape; they share the network."""
    if name in (TORCH, COMPILED, BFLOAT16):  # with PyTorch's own number of threads
        program = program_of(model, dtype=torch.bfloat16 if name == BFLOAT16 else torch.float32)
        # Compiled code has its number of threads in it.
        return [torch_runtime(torch.compile(program, dynamic=False) if name == COMPILED else program)] * count
    if name.startswith(ONNX):
        return [onnx_runtime(path, threads)] * count  # a session may be called by several threads
    hint = "LATENCY" if count == 1 else "THROUGHPUT"
    compiled = openvino_model(path, threads * count, shape, PERFORMANCE_HINT=hint, NUM_STREAMS=count)
    return [_openvino_request(compiled.create_infer_request()) for _ in range(count)]


def _openvino_request(request: Any) -> Runtime:
    return lambda images: list(request.infer({0: images}, share_inputs=True).values())


def crowded(in_flight: Iterable[int], threads: int | None) -> str | None:
    """A warning where requests and threads are more than there are processors; None where they are not."""
    most = max(in_flight) * (threads or 1)
    if most <= cores():
        return None
    return f"up to {most} threads on {cores()} processors: they wait for each other, and every latency is longer"


HEAD = "runtime          batch  in flight  threads   min ms  median ms   99 % ms   images/s"


def line(timing: Timing) -> str:
    """A result as a line under `HEAD`."""
    t = timing
    figures = f"{t.min_ms:9.1f} {t.median_ms:10.1f} {t.p99_ms:9.1f} {t.images_per_second:10.1f}"
    return f"{t.runtime:<16} {t.batch:5d} {t.in_flight:10d} {t.threads:8d}{figures}"
