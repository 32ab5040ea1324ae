"""Runs: what `train` promises, on a few images and a few steps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import QUICK, Images, empty_item, log_of, same_weights, sample_images, weights_of
from torch import Tensor

from ssdlib import training
from ssdlib.data import DataWarning, VOCDataset, sample_root
from ssdlib.data.transforms import Augmentation
from ssdlib.engine import processes, run_folder, train
from ssdlib.engine import run as engine_run
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.loading import Batches
from ssdlib.engine.precision import fastest_convolutions
from ssdlib.loss import LossSums
from ssdlib.model import SSD, build_model
from ssdlib.training import make_optimizer, train_step
from ssdlib.zoo.checkpoint import load_model, read_description


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images()


def four(sample: Images) -> Images:
    return Images(sample.items[:4], sample.classes)


def batch(count: int = 2) -> tuple[Tensor, list[dict[str, Tensor]]]:
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.6, 0.6]]), "labels": torch.tensor([1])}
    return torch.rand(count, 3, 256, 256), [{**target, "difficult": torch.tensor([False])}] * count


def test_the_rate_of_a_run(sample: Images, tmp_path: Path):
    config = replace(QUICK, iterations=4, batch_size=4, warmup=0.5, learning_rate=1e-3)
    train(config, four(sample), tmp_path, progress=False)
    rates = [line["learning_rate"] for line in log_of(tmp_path)]  # after each step
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.5e-3])


@pytest.mark.slow
def test_one_image_can_be_memorised(sample: Images, tmp_path: Path):
    one = Images(sample.items[:1], sample.classes)
    config = TrainConfig(iterations=25, batch_size=1, learning_rate=2e-3, augmentation=None, ema_decay=0.0)
    train(config, one, tmp_path, progress=False)
    totals = [line["localization"] + line["confidence"] for line in log_of(tmp_path)]
    assert len(totals) == 25
    assert totals[-1] < 0.4 * totals[0]


@pytest.fixture(scope="module")
def run(sample: Images, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SSD]:
    """A run of 5 steps on 7 images: 3 batches of 2 make an epoch, so it ends in the second."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    config = replace(QUICK, iterations=5, seed=1)
    return folder, train(config, sample, folder, progress=False, notes={"data": "here"})


def test_files_of_a_run(run: tuple[Path, SSD], sample: Images):
    folder, model = run
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "log.jsonl", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["config"] == asdict(replace(QUICK, iterations=5, seed=1))
    assert TrainConfig(**{**config["config"], "augmentation": Augmentation(**config["config"]["augmentation"])})
    assert (config["classes"], config["images"], config["data"]) == (list(sample.classes), 7, "here")
    assert not model.training
    again = load_model(folder / "model.safetensors", classes=sample.classes)
    assert same_weights(again, model)
    description = read_description(folder / "model.safetensors")["training"]
    assert description["config"] == config["config"]
    assert description["seconds"] > 0


def test_log_of_a_run(run: tuple[Path, SSD]):
    lines = [json.loads(line) for line in (run[0] / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = {"epoch", "step", "learning_rate", "localization", "confidence", "gradient_norm"}
    assert all(line.keys() == keys | {"images_per_second", "waiting", "seconds"} for line in lines)
    assert all(line["images_per_second"] > 0 and 0 <= line["waiting"] <= 1 for line in lines)
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 5)]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert 0 < lines[0]["seconds"] <= lines[1]["seconds"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_same_seed_gives_the_same_run_also_with_a_worker(run: tuple[Path, SSD], sample: Images, tmp_path: Path):
    folder, model = run
    torch.manual_seed(99)  # what happened before must not matter
    config = replace(QUICK, iterations=5, seed=1)
    again = train(config, sample, tmp_path / "worker", workers=1, progress=False)
    assert log_of(tmp_path / "worker") == log_of(folder)
    assert same_weights(again, model)


def test_another_seed_gives_another_run(run: tuple[Path, SSD], sample: Images, tmp_path: Path):
    other = train(replace(QUICK, iterations=5, seed=2), sample, tmp_path, progress=False)
    assert log_of(tmp_path)[0]["confidence"] != log_of(run[0])[0]["confidence"]
    assert not same_weights(other, run[1])


def recorded_steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights after each step, as a list that grows while `train` runs."""
    history: list[dict[str, Tensor]] = []

    def recording(model: SSD, *args: Any) -> dict[str, float]:
        losses = train_step(model, *args)
        history.append(weights_of(model))
        return losses

    monkeypatch.setattr(training, "train_step", recording)
    return history


def test_weights_are_averaged(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first weights count whole; then the new ones get the share 1 - min(decay, (1 + n) / (10 + n))."""
    history = recorded_steps(monkeypatch)
    config = replace(QUICK, iterations=6, ema_decay=0.3)
    averaged = train(config, four(sample), tmp_path, progress=False)
    assert len(history) == 6
    for name, value in averaged.state_dict().items():
        expected = history[0][name]
        for n, new in enumerate(history[1:], start=1):
            decay = min(0.3, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * new[name] if new[name].is_floating_point() else new[name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    name = "offset_head.convolutions.0.weight"
    assert not torch.equal(averaged.state_dict()[name], history[-1][name])


def test_without_averaging_the_last_weights_are_kept(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    history = recorded_steps(monkeypatch)
    last = train(replace(QUICK, ema_decay=0.0), four(sample), tmp_path, progress=False)
    assert all(torch.equal(value, history[-1][name]) for name, value in last.state_dict().items())
    assert not torch.equal(
        history[-1]["offset_head.convolutions.0.weight"], history[0]["offset_head.convolutions.0.weight"]
    )


def test_bfloat16(sample: Images, tmp_path: Path):
    model = train(replace(QUICK, iterations=2, precision="bfloat16"), four(sample), tmp_path, progress=False)
    assert all(math.isfinite(value) for line in log_of(tmp_path) for value in line.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_images_without_objects_can_be_trained_on(tmp_path: Path):
    model = train(QUICK, Images([empty_item()] * 2, ["cat"]), tmp_path, progress=False)
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_batch_larger_than_the_data_set(sample: Images, tmp_path: Path):
    train(replace(QUICK, iterations=2, batch_size=9), four(sample), tmp_path, progress=False)
    assert [(line["epoch"], line["step"]) for line in log_of(tmp_path)] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar(sample: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool):
    train(replace(QUICK, iterations=1), four(sample), tmp_path, progress=progress)
    assert ("training" in capsys.readouterr().err) == progress


def test_a_run_is_never_overwritten(run: tuple[Path, SSD], sample: Images):
    folder, _ = run
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(FileExistsError, match="first already holds a run"):
        train(QUICK, sample, folder, progress=False)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_objects_that_vanish_are_counted(sample: Images, tmp_path: Path):
    class Tiny(Images):
        def smaller_than_a_pixel(self, side: int) -> int:
            assert side == 256
            return 3

    with pytest.warns(DataWarning, match="3 objects smaller than a pixel at 256 x 256, left out"):
        train(replace(QUICK, iterations=1), Tiny(sample.items[:4], sample.classes), tmp_path, progress=False)


def test_an_empty_data_set_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no images to train on"):
        train(QUICK, Images([], ["cat"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def failing_loss(after: int) -> Callable[..., LossSums]:
    calls = 0
    real = processes.multibox_sums

    def loss(*args: Any, **kwargs: Any) -> LossSums:
        nonlocal calls
        calls += 1
        sums = real(*args, **kwargs)
        return sums._replace(confidence=sums.confidence * (math.nan if calls > after else 1.0))

    return loss


def test_a_run_stops_when_the_loss_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = VOCDataset(sample_root(), "test")
    monkeypatch.setattr(processes, "multibox_sums", failing_loss(after=2))
    config = replace(QUICK, iterations=9, seed=3)
    with pytest.raises(FloatingPointError, match=r"the confidence loss became nan in step 3, ") as raised:
        train(config, dataset, tmp_path, progress=False, save_every=1)
    batches = Batches(len(dataset), 2, seed=3)
    names = [str(dataset.image_path(index)) for index in batches.images(2)]
    assert str(raised.value).endswith("the images of this step (epoch 1): " + ", ".join(names))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2  # the last good one
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_stops_when_the_gradient_is_not_finite(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The loss is fine, but a part of its gradient is infinite."""
    real = processes.multibox_sums

    def steep(offsets: Tensor, *args: Any, **kwargs: Any) -> LossSums:
        sums = real(offsets, *args, **kwargs)
        offsets.register_hook(lambda gradient: gradient * math.inf)
        return sums

    monkeypatch.setattr(processes, "multibox_sums", steep)
    model = build_model("ssd_tiny", ["cat"]).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    for max_grad_norm in (10.0, None):
        config = replace(QUICK, max_grad_norm=max_grad_norm)
        measured = train_step(model, *batch(), make_optimizer(model, config), config, processes.shared_losses)
        assert math.isfinite(measured["localization"] + measured["confidence"])
        assert not math.isfinite(measured["gradient_norm"])
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with pytest.raises(
        FloatingPointError, match=r"norm of the gradient became (nan|inf) in step 1, .*: index \d, index \d$"
    ):
        train(QUICK, four(sample), tmp_path, progress=False)


def test_an_absurd_learning_rate_stops_the_run(sample: Images, tmp_path: Path):
    config = replace(QUICK, iterations=9, optimizer="sgd", learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(FloatingPointError, match=r"loss became .* in step \d"):
        train(config, four(sample), tmp_path, progress=False)


def test_the_last_update_is_checked_too(sample: Images, tmp_path: Path):
    """Loss and gradient of the only step are finite; what it makes of the weights is not."""
    config = replace(QUICK, iterations=1, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match=r"after step 1 the weights are not finite, .*backbone"):
        train(config, four(sample), tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]


def test_a_state_that_is_not_finite_never_takes_the_place_of_a_good_one(
    sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = training.update_average

    def poisoned(average: SSD, model: SSD, step: int, decay: float) -> None:
        real(average, model, step, decay)
        if step == 2:
            average.class_head.convolutions[0].bias.data[0] = math.nan

    monkeypatch.setattr(training, "update_average", poisoned)
    with pytest.raises(FloatingPointError, match=r"after step 3 the weights .* class_head\.convolutions\.0\.bias"):
        train(replace(QUICK, iterations=9), sample, tmp_path, progress=False, save_every=1)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


def test_whether_to_stop_is_asked_once_a_step(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A signal that arrives between two questions of one step would end the run without a state."""
    answers = iter([False, True, True, True])

    @contextmanager
    def stop_requests(_: bool) -> Iterator[Callable[[], bool]]:
        yield lambda: next(answers)

    monkeypatch.setattr(run_folder, "stop_requests", stop_requests)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2; --resume goes on from there"):
        train(replace(QUICK, iterations=9), sample, tmp_path, progress=False)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


@pytest.mark.slow
def test_when_the_model_cannot_be_written_the_whole_training_is_kept(
    sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space")

    config = replace(QUICK, iterations=5, seed=1)  # it ends within an epoch
    with monkeypatch.context() as patched:
        patched.setattr(engine_run, "save_model", full)
        with pytest.raises(OSError, match="no space"):
            train(config, sample, tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "log.jsonl", "state.pt"]
    log = log_of(tmp_path)
    monkeypatch.setattr(training, "train_step", lambda *_: pytest.fail("trained again"))
    train(config, sample, tmp_path, progress=False, resume=True)
    assert log_of(tmp_path) == log
    assert len(log) == 2
    assert read_description(tmp_path / "model.safetensors")["training"]["seconds"] > 0
    assert not (tmp_path / "state.pt").exists()


def test_after_each_epoch(sample: Images, tmp_path: Path):
    """What is called gets the averaged model; what it gives goes into the log."""
    seen: list[tuple[dict[str, float], dict[str, Tensor]]] = []

    def after_epoch(model: SSD, line: dict[str, float]) -> dict[str, float]:
        assert not model.training
        seen.append((line.copy(), weights_of(model)))
        return {"extra": line["step"] + 0.5}

    config = replace(QUICK, iterations=4, ema_decay=0.9)
    model = train(config, four(sample), tmp_path, progress=False, after_epoch=after_epoch)
    assert [(line["epoch"], line["step"], "extra" in line) for line, _ in seen] == [(1, 2, False), (2, 4, False)]
    assert all(torch.equal(value, seen[-1][1][name]) for name, value in model.state_dict().items())
    assert [line["extra"] for line in log_of(tmp_path)] == [2.5, 4.5]


# ---- lines within an epoch, precision, the start from a detector -----------------------------------------------


@pytest.mark.slow
def test_a_long_epoch_has_lines_in_its_course(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every second of the three steps of an epoch, of means over those two; the epoch's own line is of all three."""
    monkeypatch.setattr(engine_run, "LINE_EVERY", 2)
    seen: list[dict[str, float]] = []
    train(replace(QUICK, iterations=6), sample, tmp_path, progress=False, after_line=lambda _, line: seen.append(line))
    lines = log_of(tmp_path)
    assert [(line.get("epoch"), line["step"]) for line in lines] == [(None, 2), (1, 3), (None, 5), (2, 6)]
    assert [line["step"] for line in seen] == [2, 3, 5, 6]
    every: list[dict[str, Any]] = []
    monkeypatch.setattr(engine_run, "LINE_EVERY", 1)
    train(replace(QUICK, iterations=3), sample, tmp_path / "each", progress=False)
    every = log_of(tmp_path / "each")[:2]
    assert lines[0]["confidence"] == pytest.approx((every[0]["confidence"] + every[1]["confidence"]) / 2)


@pytest.mark.slow
def test_a_run_in_float16(sample: Images, tmp_path: Path):
    """The first gradients overflow, at a factor of 65536: they are counted, and the log is finite."""
    model = train(replace(QUICK, iterations=5, precision="float16"), four(sample), tmp_path, progress=False)
    lines = log_of(tmp_path)
    assert sum(line.get("skipped", 0) for line in lines) > 0
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_a_run_starts_from_a_detector(sample: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of other classes and another normalisation, which the run takes over; a frozen part stays."""
    source = build_model("ssd_tiny", ["owl", sample.classes[0]], mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])
    config = replace(QUICK, iterations=2, freeze="backbone")
    model = train(config, four(sample), tmp_path, init=source)
    assert f"classes kept: {sample.classes[0]}; new: class_head" in capsys.readouterr().err
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    theirs = source.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, theirs[name]), name
    assert not torch.equal(model.offset_head.convolutions[0].weight, source.offset_head.convolutions[0].weight)


def test_the_early_layers_stay_as_they_are_and_the_next_learn(sample: Images, tmp_path: Path):
    source = build_model("ssd_tiny", ["owl"])
    model = train(replace(QUICK, freeze="early"), four(sample), tmp_path, init=source, progress=False)
    theirs = source.state_dict()
    ours = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    same = [name for name, value in ours.items() if torch.equal(value, theirs[name])]
    assert {name.split(".")[3] for name in same if name.startswith("backbone.stages.0.")} == {"0", "1", "2"}
    assert len([name for name in same if name.endswith((".weight", ".running_mean"))]) == 9  # three layers


def test_starts_that_are_refused(sample: Images, tmp_path: Path):
    source = build_model("ssd_tiny", ["owl"])
    for change, message in (
        ({"architecture": "ssdlite320_mobilenet_v3"}, "cannot start from ssd_tiny: it is another network"),
        ({"pretrained": True}, "not from both"),
        ({"freeze": "neck"}, "freeze 'neck': .* no part 'neck'; .* 'early' stands for the first layers"),
        ({"patience": 3}, "patience needs validation images"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(QUICK, **change), four(sample), tmp_path / "run", init=source, progress=False)
        assert not (tmp_path / "run").exists()


def test_algorithms_of_convolutions_are_tried_on_gpus_alone():
    for kind in ("cpu", "cuda"):
        with fastest_convolutions(torch.device(kind)):
            assert torch.backends.cudnn.benchmark is (kind == "cuda")
        assert torch.backends.cudnn.benchmark is False


# ---- torch.compile ---------------------------------------------------------------------------------------------


def compiling(monkeypatch: pytest.MonkeyPatch, backend: Any) -> list[Any]:
    """Let torch.compile take a backend that needs no C++ compiler; the list tells the modes it was called with."""
    calls: list[Any] = []
    real = torch.compile

    def compile_(model: Any, *, mode: str) -> Any:
        calls.append(mode)
        return real(model, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_network_makes_the_same_run(
    sample: Images, run: tuple[Path, SSD], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
):
    begun: list[None] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(None))
    calls = compiling(monkeypatch, "eager")
    config = replace(QUICK, iterations=5, seed=1, compile=True, compile_mode=mode)
    model = train(config, sample, tmp_path, progress=False)
    assert calls == [mode]
    assert len(begun) >= 5 if mode == "reduce-overhead" else not begun
    assert log_of(tmp_path) == log_of(run[0])  # also the trial left no trace
    assert same_weights(model, run[1])


def test_without_a_compiler_the_run_goes_on(
    sample: Images, run: tuple[Path, SSD], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def backend(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand a long story")

    calls = compiling(monkeypatch, backend)
    with pytest.warns(UserWarning, match=r"torch.compile does not work here \(.*\); the run goes on without it"):
        model = train(replace(QUICK, iterations=5, seed=1, compile=True), sample, tmp_path, progress=False)
    assert len(calls) == 1
    assert same_weights(model, run[1])
