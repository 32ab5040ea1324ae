"""What a run and a detection are on a GPU: nothing waits for it. Their twins on a CPU are the tests of the modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import QUICK, Images, log_of, losses_with_a_nan, sample_images
from torch import Tensor

from ssdlib.data.transforms import Augmentation
from ssdlib.detection import detect
from ssdlib.engine import run as engine_run
from ssdlib.engine import train
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.device_detection import detect_later, detect_padded
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.validation import Validation
from ssdlib.model import build_model
from ssdlib.zoo.checkpoint import demo_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
GPU = torch.device("cuda")


def without_waiting(work: Callable[[], Any]) -> Any:
    """Do the work; what makes the host wait for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        return work()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images(24)


CONFIGS = {
    "adamw": QUICK,
    "sgd": replace(QUICK, optimizer="sgd", learning_rate=1e-3, ema_decay=0.0, max_grad_norm=None),
    "bfloat16": replace(QUICK, precision="bfloat16", max_grad_norm=10.0, ema_decay=0.99),
    "float16": replace(QUICK, precision="float16", optimizer="sgd", learning_rate=1e-3),
    "augmented there": replace(QUICK, augment_on="device", augmentation=Augmentation()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_ten_steps_of_a_run_never_wait(name: str, sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loading, transfer, loss, gradient, update, average; the twelve steps of an epoch, and the numbers of each."""
    config: TrainConfig = replace(CONFIGS[name], iterations=12)
    real, steps = engine_run.device_training_loop, 0

    def strict(*args: Any, **kwargs: Any) -> Iterator[dict[str, float]]:
        nonlocal steps
        loop = real(*args, **kwargs)
        while (measured := without_waiting(lambda: next(loop, None))) is not None:
            steps += 1
            yield measured

    monkeypatch.setattr(engine_run, "device_training_loop", strict)
    model = train(config, sample, tmp_path, device=GPU, progress=False)
    assert steps == 12
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(math.isfinite(value) for line in log_of(tmp_path) for value in line.values())


def test_what_waits_is_noticed():
    with pytest.raises(RuntimeError, match="synchronizing"):
        without_waiting(lambda: torch.ones(1, device=GPU).item())


def test_a_step_that_is_not_finite_ends_the_run(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses_with_a_nan(monkeypatch, 5)
    with pytest.raises(FloatingPointError, match=r"confidence loss became nan in step 5, .*\(epoch 1\): index"):
        train(replace(QUICK, iterations=9), sample, tmp_path, device=GPU, progress=False, save_every=2)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_the_run_of_a_gpu_is_that_of_a_cpu(sample: Images, tmp_path: Path):
    """Its losses, within the rounding of other convolutions."""
    config = replace(QUICK, iterations=6, optimizer="sgd", learning_rate=1e-4, max_grad_norm=1.0)
    logs = []
    for device in ("cpu", "cuda"):
        train(config, Images(sample.items[:4], sample.classes), tmp_path / device, device=device, progress=False)
        logs.append(log_of(tmp_path / device))
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05)


def predictions(images: int, classes: int, priors: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    offsets = 0.5 * torch.randn(images, len(priors), 4, generator=generator)
    return offsets.to(GPU), (spread * torch.randn(images, len(priors), classes, generator=generator)).to(GPU)


@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize("shortlist", [None, 1024])
def test_detection_never_waits_and_is_that_of_detect(spread: float, shortlist: int | None):
    priors = build_model("ssd_tiny", ["cat"]).priors.to(GPU)
    offsets, logits = predictions(4, 5, priors, spread)
    options: dict[str, Any] = {"shortlist": shortlist, "max_candidates": 50}
    detect_later(offsets, logits, priors, **options)()  # whatever is done once
    found = without_waiting(lambda: detect_later(offsets, logits, priors, **options)())
    expected = detect(offsets, logits, priors, max_candidates=50)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours["labels"]) > 0
        assert all(torch.equal(ours[name], theirs[name].cpu()) for name in theirs)


def test_a_data_set_on_a_gpu(sample: Images):
    model = demo_model()
    expected = detect_dataset(model, sample, progress=False, min_score=0.5)
    found = detect_dataset(model.to(GPU), sample, progress=False, min_score=0.5, batch_size=5)
    for ours, theirs in zip(found.detections, expected.detections, strict=True):
        assert ours["boxes"].device.type == "cpu"
        assert abs(len(ours["labels"]) - len(theirs["labels"])) <= 1  # a score at the threshold
    assert sum(len(each["labels"]) for each in found.detections) >= 20


def test_a_validation_on_a_gpu(sample: Images):
    measured = [Validation(sample, batch_size=7).measure(demo_model().to(device)) for device in ("cpu", GPU)]
    assert measured[1] == pytest.approx(measured[0], rel=1e-2)


def test_a_replayed_graph_of_network_and_detection_gives_what_they_give():
    """Nothing is decided on the host: so network and detection are one CUDA graph, for other images, too."""
    model = demo_model().to(GPU).eval()
    images = torch.rand(2, 3, 256, 256, device=GPU)

    @torch.inference_mode()
    def work() -> tuple[Tensor, ...]:
        return tuple(detect_padded(*model(images), model.priors))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    images.copy_(torch.rand(2, 3, 256, 256))
    graph.replay()
    for ours, theirs in zip(found, work(), strict=True):
        torch.testing.assert_close(ours, theirs)
