"""Latency and throughput: what is counted, and that the figures hold together."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from support.commands import call, refused
from torch import Tensor

from ssdlib.data import load_image, sample_root
from ssdlib.deploy import Detector
from ssdlib.deploy import bench as benching
from ssdlib.deploy.bench import (
    COMPILED,
    HEAD,
    RUNTIMES,
    Timing,
    available,
    bench,
    crowded,
    from_file_to_picture,
    line,
    measure,
)
from ssdlib.deploy.export import check_batch, program_of, write_onnx
from ssdlib.deploy.int8 import quantize
from ssdlib.deploy.runtimes import torch_runtime
from ssdlib.detection import Detection
from ssdlib.zoo.checkpoint import demo_model, save_model


def test_requests_run_at_the_same_time():
    """Four calls that wait 20 ms each: at once they take as long as one, so that the throughput is fourfold."""
    sleep = [lambda: time.sleep(0.02)]
    one, alone = measure(sleep, 0.3)
    four, together = measure(sleep * 4, 0.3)
    assert min(one) >= 0.019
    assert min(four) >= 0.019
    assert len(four) / together > 2 * len(one) / alone


def test_little_s_law():
    latencies, total = measure([lambda: time.sleep(0.02)] * 3, 0.5)
    throughput, latency = len(latencies) / total, sum(latencies) / len(latencies)
    assert throughput * latency == pytest.approx(3, rel=0.25)


def test_warm_up_does_not_count_and_errors_are_not_lost():
    calls: list[float] = []

    def slow_at_first() -> None:
        time.sleep(0.2 if not calls else 0.001)
        calls.append(0)

    latencies, _ = measure([slow_at_first], 0.05)
    assert max(latencies) < 0.2
    assert len(calls) == len(latencies) + 2

    def fails() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        measure([fails], 0.05)


def test_figures_of_pytorch():
    before = torch.get_num_threads()
    seen: list[Timing] = []
    timings = bench(demo_model(), runtimes=["torch"], in_flight=[1, 2], threads=1, seconds=0.05, report=seen.append)
    assert torch.get_num_threads() == before
    assert seen == timings
    assert [(t.runtime, t.in_flight, t.threads) for t in timings] == [("torch", 1, 1), ("torch", 2, 1)]
    for timing in timings:
        assert 0 < timing.min_ms <= timing.median_ms <= timing.p99_ms
        assert timing.calls >= 3 * timing.in_flight
        assert timing.images_per_second <= 1e3 * timing.in_flight / timing.min_ms
    assert [len(line(timing)) for timing in timings] == [len(HEAD)] * 2


def test_a_request_has_the_threads_that_are_said():
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(3)
    try:
        around = lambda run: lambda: seen.add(torch.get_num_threads())  # noqa: E731
        for threads in (1, 2):
            bench(demo_model(), runtimes=["torch"], in_flight=[1], threads=threads, seconds=0.01, around=around)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {1, 2}


def test_from_the_file_to_the_picture():
    """What is drawn is what `Detector` finds, for each photograph in turn, also with two requests in flight."""
    model, photos = demo_model(), sorted((sample_root() / "JPEGImages").glob("*.jpg"))[:2]
    seen: list[tuple[Tensor, Detection]] = []
    around = from_file_to_picture(model, photos, lambda pixels, found: seen.append((pixels, found)))
    request = around(torch_runtime(program_of(model)))
    for _ in range(3):
        request()
    detector = Detector(model, min_score=0.3)
    for path, (pixels, found) in zip([*photos, photos[0]], seen, strict=True):
        wanted = detector(path)
        assert pixels.shape[1:] == load_image(path).shape[1:]
        torch.testing.assert_close(found["boxes"], wanted.boxes, atol=0.01, rtol=0)
        torch.testing.assert_close(found["scores"], wanted.scores, atol=1e-4, rtol=0)
        assert found["labels"].tolist() == wanted.detection["labels"].tolist()
    assert sum(len(found["labels"]) for _, found in seen) > 0
    timings = bench(model, runtimes=["torch"], in_flight=[2], threads=1, seconds=0.05, around=around)
    assert timings[0].calls + 3 + 2 * 2 == len(seen)  # and two calls each to warm up


def test_each_runtime_computes_in_its_own_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """bfloat16 rounds, int8 more so, and both find about what float32 finds; none is another under its name."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    images = check_batch([], 256)[:1]
    exact, int8 = tmp_path / "exact.onnx", tmp_path / "int8.onnx"
    write_onnx(demo_model(), exact)
    quantize(exact, int8, [images])
    seen = {}
    for name, path in (("torch", exact), ("torch-bfloat16", exact), ("onnxruntime", exact), ("onnxruntime-int8", int8)):
        first, second = benching._requests(name, demo_model(), path, 2, 1, images.shape)
        seen[name] = first(images)[1]
        np.testing.assert_array_equal(second(images)[1], seen[name])
    away = {name: float(np.abs(scores - seen["torch"]).max()) for name, scores in seen.items()}
    assert away["onnxruntime"] < 1e-4 < away["torch-bfloat16"] < 0.05
    assert 1e-3 < away["onnxruntime-int8"] < 0.2


def test_wrong_numbers_and_names(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="must be positive"):
        bench(demo_model(), in_flight=[0])
    with pytest.raises(ValueError, match="no runtime 'tflite'"):
        available(["tflite"])
    monkeypatch.setattr(benching.shutil, "which", lambda name: None)
    monkeypatch.setattr(benching, "installed", lambda name: name != "openvino")
    assert available() == ["torch", "torch-bfloat16", "onnxruntime", "onnxruntime-int8"]
    monkeypatch.setattr(benching, "installed", lambda name: name != "onnxruntime")
    assert available() == ["torch", "torch-bfloat16", "openvino"]  # int8 is made by ONNX Runtime
    monkeypatch.setattr(benching, "installed", lambda name: name != "onnxscript")
    assert available(["openvino", "torch-compile", "torch"]) == ["torch"]
    monkeypatch.setattr(benching.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "g++" else None)
    assert "torch-compile" in available()


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benching, "cores", lambda: 4)
    assert crowded([1, 2], 2) is None
    assert crowded([1, 4], None) is None
    assert "up to 8 threads on 4 processors" in str(crowded([1, 4], 2))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benching, "cores", lambda: 1)
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    files = ("--json", tmp_path / "bench.json", "--plot", tmp_path / "bench.png")
    quick = ("--runtimes", "torch", "--seconds", 0.05)
    result = call("bench", demo, *quick, "--in-flight", "1,2", "--threads", 1, *files)
    assert result.exit_code == 0, result.output
    assert "warning: up to 2 threads on 1 processors" in result.output
    assert "median ms" in result.output
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [row["in_flight"] for row in written["timings"]] == [1, 2]
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert (tmp_path / "bench.png").stat().st_size > 1000
    assert "takes numbers such as" in refused("bench", demo, "--in-flight", "two")
    assert "one at a time" in refused("bench", demo, "--images", sample_root() / "JPEGImages", "--batch", 2)
    assert "no photograph at" in refused("bench", demo, "--images", tmp_path / "nothing.jpg")
    result = call("bench", demo, *quick, "--in-flight", 1, "--images", sample_root() / "JPEGImages", *files)
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "bench.json").read_text())
    assert (written["photographs"], again["photographs"]) == (0, len(list((sample_root() / "JPEGImages").iterdir())))
    assert "would replace" in refused("bench", demo, "--json", demo)
    assert "no runtime 'abacus'" in refused("bench", demo, "--runtimes", "abacus")
    monkeypatch.setattr(benching, "installed", lambda name: False)
    assert "none of these runtimes is installed" in refused("bench", demo, "--runtimes", "onnxruntime,openvino")


@pytest.mark.slow
def test_every_runtime_that_is_installed():
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    names = [name for name in RUNTIMES if name != COMPILED]  # which takes a minute
    timings = bench(demo_model(), runtimes=names, in_flight=[2], threads=1, seconds=0.05)
    assert [t.runtime for t in timings] == names
