"""What a run and a detection are on a GPU, a pretended one or a real one: nothing waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import pretended_gpu
from support.gpus import REAL, Gpu
from support.small_run import QUICK, Images, log_of, losses_with_a_nan, sample_images
from torch import Tensor

from ssdlib.data.transforms import Augmentation, Target
from ssdlib.detection import detect
from ssdlib.engine import processes, train
from ssdlib.engine import run as engine_run
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.device_detection import detect_later, detect_padded
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.transfers import sent
from ssdlib.engine.validation import Validation
from ssdlib.loss import LossSums
from ssdlib.matching import match
from ssdlib.model import build_model
from ssdlib.zoo.checkpoint import demo_model


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images(24)


def strict_steps(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on no step of a run may wait for the GPU; the list has a number for each that was done."""
    real, done = engine_run.device_training_loop, []

    def strict(*args: Any, **kwargs: Any) -> Iterator[dict[str, float]]:
        loop = real(*args, **kwargs)
        while (measured := gpu.without_waiting(lambda: next(loop, None))) is not None:
            done.append(len(done) + 1)
            yield measured

    monkeypatch.setattr(engine_run, "device_training_loop", strict)
    return done


# ---- what waits --------------------------------------------------------------------------------------------------

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "truth": lambda x: bool((x > 0).all()),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "to the host": lambda x: x.cpu(),
    "into the host": lambda x: torch.zeros(3).copy_(x),
    "to the GPU": lambda x: torch.zeros(3).to(x.device),
    "into the GPU": lambda x: x.copy_(torch.zeros(3)),
    "of a list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_is_noticed(name: str, gpu: Gpu):
    x = torch.arange(3.0, device=gpu.device)
    WAITS[name](x)  # not forbidden
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        gpu.without_waiting(lambda: WAITS[name](x))


def test_what_does_not_wait_is_not_reproached(gpu: Gpu):
    def work() -> tuple[Callable[[], tuple[Tensor, ...]], Tensor]:
        x = torch.zeros(3).pin_memory().to(gpu.device, non_blocking=True)
        x[1:] += torch.full((), 2.0, device=gpu.device)
        x[torch.arange(2, device=gpu.device)] *= 0.5
        return sent(x, torch.where(x > 0.5, x, 7.0) @ x), x

    numbers, x = gpu.without_waiting(work)
    assert [each.tolist() for each in gpu.without_waiting(numbers)] == [[0.0, 1.0, 2.0], 5.0]
    assert x.device.type == "cuda"
    assert x.is_cuda


def test_two_devices_are_an_error(gpu: Gpu):
    x = torch.zeros(3, device=gpu.device)
    for work in (lambda: x + torch.zeros(3), lambda: torch.cat((x, torch.zeros(3))), lambda: torch.zeros(3)[x.long()]):
        with pytest.raises((RuntimeError, ValueError), match=r"device|on CPU|on cpu"):
            work()
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()


def test_what_the_pretended_gpu_notices_besides():
    """What PyTorch's own mode does not; memory that is not pinned, and numbers that are read before they came."""
    with pretended_gpu.pretended_gpu():
        x = torch.ones(3, device=pretended_gpu.GPU)
        with pytest.raises(RuntimeError, match="synchronizing"):
            pretended_gpu.without_waiting(x.unique)
        with pytest.raises(RuntimeError, match="out of memory that is not pinned"):
            pretended_gpu.without_waiting(lambda: torch.zeros(3).to(x.device, non_blocking=True))
        there = x.to("cpu", non_blocking=True)
        event = torch.cuda.current_stream(x.device).record_event()
        assert there.isnan().all()
        event.synchronize()
        assert there.tolist() == [1.0, 1.0, 1.0]
    assert not torch.cuda.is_initialized() or torch.cuda.is_available()


# ---- a run -------------------------------------------------------------------------------------------------------

CONFIGS = {
    "adamw": QUICK,
    "sgd": replace(QUICK, optimizer="sgd", learning_rate=1e-3, ema_decay=0.0, max_grad_norm=None),
    "bfloat16": replace(QUICK, precision="bfloat16", max_grad_norm=10.0, ema_decay=0.99),
    "float16": replace(QUICK, precision="float16", optimizer="sgd", learning_rate=1e-3),
    "augmented there": replace(QUICK, augment_on="device", augmentation=Augmentation()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_steps_of_a_run_never_wait(
    name: str, gpu: Gpu, sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Loading, transfer, loss, gradient, update, average; the steps of an epoch, and the numbers of each."""
    steps = 12 if gpu.real else 3
    config: TrainConfig = replace(CONFIGS[name], iterations=steps)
    done = strict_steps(gpu, monkeypatch)
    model = train(
        config, Images(sample.items[: 2 * steps], sample.classes), tmp_path, device=gpu.device, progress=False
    )
    assert len(done) == steps
    assert all(p.isfinite().all() and p.device.type == "cpu" for p in model.parameters())
    assert all(math.isfinite(value) for line in log_of(tmp_path) for value in line.values())


def asks_for_a_number(sums: LossSums) -> LossSums:
    return sums if sums.localization.item() >= 0 else sums._replace(confidence=sums.localization)


def picks_with_a_mask(sums: LossSums) -> LossSums:
    parts = torch.stack((sums.localization, sums.confidence))
    return sums._replace(confidence=parts[parts >= 0].sum())


def brings_numbers(sums: LossSums) -> LossSums:
    return sums._replace(confidence=sums.confidence * torch.ones(()).to(sums.confidence.device))


def mixes_devices(sums: LossSums) -> LossSums:
    return sums._replace(confidence=(sums.confidence * torch.ones(2)).sum())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (asks_for_a_number, "synchronizing"),
        (picks_with_a_mask, "synchronizing"),
        (brings_numbers, "synchronizing"),
        (mixes_devices, "same device"),
    ],
)
def test_a_step_with_a_fault_is_found(
    fault: Callable[[LossSums], LossSums],
    message: str,
    gpu: Gpu,
    sample: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    real = processes.device_sums
    monkeypatch.setattr(processes, "device_sums", lambda *args, **kwargs: fault(real(*args, **kwargs)))
    strict_steps(gpu, monkeypatch)
    with pytest.raises(RuntimeError, match=message):
        train(QUICK, sample, tmp_path, device=gpu.device, progress=False)


def test_a_step_that_is_not_finite_ends_the_run(
    gpu: Gpu, sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses_with_a_nan(monkeypatch, 4)
    with pytest.raises(FloatingPointError, match=r"confidence loss became nan in step 4, .*\(epoch 1\): index"):
        train(replace(QUICK, iterations=9), sample, tmp_path, device=gpu.device, progress=False, save_every=2)
    saved = torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu")
    assert saved["step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_the_run_of_a_gpu_is_that_of_a_cpu(gpu: Gpu, sample: Images, tmp_path: Path):
    """Its losses, within the rounding of other convolutions."""
    config = replace(QUICK, iterations=6, optimizer="sgd", learning_rate=1e-4, max_grad_norm=1.0)
    logs = []
    for device in ("cpu", gpu.device):
        folder = tmp_path / str(device).partition(":")[0]
        train(config, Images(sample.items[:4], sample.classes), folder, device=device, progress=False)
        logs.append(log_of(folder))
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05 if gpu.real else 1e-4)


@pytest.mark.parametrize(("optimizer", "back"), [("sgd", True), ("adamw", False)])
def test_a_run_goes_on_on_the_other_device(
    optimizer: str, back: bool, gpu: Gpu, sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(QUICK, iterations=3, optimizer=optimizer, learning_rate=1e-4)
    images = Images(sample.items[:4], sample.classes)
    whole = train(config, images, tmp_path / "whole", progress=False)
    first, second = ("cpu", gpu.device) if back else (gpu.device, "cpu")

    def stop(_model: Any, line: dict[str, float]) -> None:
        if line["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine_run, "LINE_EVERY", 3)
        with pytest.raises(KeyboardInterrupt):
            train(config, images, tmp_path / "run", device=first, progress=False, save_every=1, after_line=stop)
    rest = train(config, images, tmp_path / "run", device=second, progress=False, resume=True)
    for ours, theirs in zip(rest.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02 if gpu.real else 1e-3, atol=1e-3 if gpu.real else 1e-5)


# ---- matching, detection, validation -----------------------------------------------------------------------------


def predictions(classes: int, priors: Tensor, spread: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of two images."""
    generator = torch.Generator().manual_seed(0)
    offsets = 0.5 * torch.randn(2, len(priors), 4, generator=generator)
    return offsets.to(device), (spread * torch.randn(2, len(priors), classes, generator=generator)).to(device)


@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize("shortlist", [None, 1024])
def test_detection_never_waits_and_is_that_of_detect(spread: float, shortlist: int | None, gpu: Gpu):
    priors = build_model("ssd_tiny", ["cat"]).priors.to(gpu.device)
    offsets, logits = predictions(5, priors, spread, gpu.device)
    options: dict[str, Any] = {"shortlist": shortlist, "max_candidates": 50}
    detect_later(offsets, logits, priors, **options)()  # whatever is done once
    found = gpu.without_waiting(lambda: detect_later(offsets, logits, priors, **options)())
    expected = detect(offsets, logits, priors, max_candidates=50)  # the readable one may wait
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours["labels"]) > 0
        assert all(torch.equal(ours[name], theirs[name].cpu()) for name in theirs)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_of_a_core_that_may_wait_is_that_of_one_that_must_not(activation: Any, gpu: Gpu, sample: Images):
    """`multibox_sums`, the taught one, works on a GPU, too."""
    model = build_model("ssd_tiny", sample.classes)
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.6], [0.12, 0.1, 0.6, 0.6], [0.7, 0.2, 0.9, 0.5]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2, 3])}, {"boxes": boxes[:0], "labels": torch.tensor([])}]
    priors = model.priors.to(gpu.device)
    offsets, logits = predictions(7, model.priors, 1.0, gpu.device)
    padded = processes.pad_targets(targets, 7, gpu.device)
    ours = gpu.without_waiting(lambda: processes.device_sums(offsets, logits, padded, priors, activation=activation))
    there = [{name: value.to(gpu.device) for name, value in target.items()} for target in targets]
    theirs = processes.multibox_sums(offsets, logits, there, priors, activation=activation)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu())
    assert torch.equal(match(boxes.to(gpu.device), priors).cpu(), match(boxes, model.priors))


def test_a_data_set_on_a_gpu(gpu: Gpu, sample: Images):
    """Network, detection and losses of one batch after the other, and the program waits for results alone."""
    model, sums = demo_model(), []
    images = Images(sample.items[:11], sample.classes)
    expected = detect_dataset(model, images, progress=False, min_score=0.5)
    model = model.to(gpu.device)

    def add(offsets: Tensor, logits: Tensor, targets: list[Target]) -> None:
        sums.append(processes.batch_sums(model, offsets, logits, targets))

    def work() -> Any:
        return detect_dataset(model, images, progress=False, min_score=0.5, batch_size=4, each_batch=add)

    found = gpu.without_waiting(work)
    assert len(sums) == 3
    assert all(part.device.type == "cuda" for each in sums for part in each)
    for ours, theirs in zip(found.detections, expected.detections, strict=True):
        assert ours["boxes"].device.type == "cpu"
        assert abs(len(ours["labels"]) - len(theirs["labels"])) <= 1  # a score at the threshold
    assert sum(len(each["labels"]) for each in found.detections) >= 10


def test_a_validation_on_a_gpu(gpu: Gpu, sample: Images):
    images = Images(sample.items[:9], sample.classes)
    measured = [Validation(images, batch_size=4).measure(demo_model().to(device)) for device in ("cpu", gpu.device)]
    assert measured[1] == pytest.approx(measured[0], rel=2e-2 if gpu.real else 1e-5)


@pytest.mark.parametrize("real", [REAL])
def test_a_replayed_graph_of_network_and_detection_gives_what_they_give(real: bool):
    """Nothing is decided on the host: so network and detection are one CUDA graph, for other images, too."""
    assert real
    model = demo_model().to("cuda").eval()
    images = torch.rand(2, 3, 256, 256, device="cuda")

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
