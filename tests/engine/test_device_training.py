"""The training loop for GPUs, on a CPU: the same run as `training_loop` makes, one step later, and nothing is asked."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import QUICK, Images, log_of, losses_with_a_nan, same_weights, sample_images
from torch import Tensor

from ssdlib.engine import processes, run_folder, train
from ssdlib.engine import run as engine_run
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.device_training import device_training_loop
from ssdlib.model import build_model
from ssdlib.training import Batch, TrainState, ssd_losses, training_loop

Losses = Callable[[Any, Tensor, Any], dict[str, Tensor]]


def batches(count: int, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.6, 0.6]]), "labels": torch.tensor([1])}
    return [(torch.rand(2, 3, 256, 256, generator=generator), [target] * 2) for _ in range(count)]


def start(config: TrainConfig) -> TrainState:
    torch.manual_seed(0)
    return TrainState.start(build_model("ssd_tiny", ["cat"]), config)


def moments(state: TrainState) -> list[Tensor]:
    return [m for entry in state.optimizer.state_dict()["state"].values() for m in entry.values()]


def same_states(a: TrainState, b: TrainState) -> None:
    assert a.step == b.step
    assert same_weights(a.model, b.model)  # the statistics too
    assert same_weights(a.average, b.average)
    assert a.schedule.get_last_lr() == b.schedule.get_last_lr()
    assert len(moments(a)) == len(moments(b))
    assert all(torch.equal(x, y) for x, y in zip(moments(a), moments(b), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_steps_one_later(optimizer: str):
    """Bit for bit: whenever a step's numbers come, the state is the one after it, though the next batch was taken."""
    config = replace(QUICK, iterations=4, optimizer=optimizer, ema_decay=0.5)
    one, other = start(config), start(config)
    expected, states = [], []
    for measured in training_loop(one, batches(4), config):
        expected.append(measured)
        states.append(copy.deepcopy(one))
    taken = 0

    def counted() -> Iterator[Batch]:
        nonlocal taken
        for batch in batches(4):
            taken += 1
            yield batch

    for number, measured in enumerate(device_training_loop(other, counted(), config)):
        assert measured == expected[number]
        same_states(states[number], other)
        assert taken == (2, 3, 4, 4)[number]


def test_a_loop_that_is_closed_leaves_the_step_that_it_gave_out():
    config = replace(QUICK, iterations=4, optimizer="sgd")
    one, other = start(config), start(config)
    list(training_loop(one, batches(2), config))
    loop = device_training_loop(other, batches(4), config)
    next(loop)
    next(loop)
    same_states(one, other)
    loop.close()
    same_states(one, other)
    rest = list(training_loop(one, batches(2, seed=1), config))
    assert list(device_training_loop(other, batches(2, seed=1), config)) == rest


def not_finite_at(name: str, *which: int) -> Losses:
    """Losses of which one, or the gradient, is not finite in some calls, counted from 1."""
    calls = 0

    def losses(model: Any, images: Tensor, targets: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        parts = ssd_losses(model, images, targets)
        if calls in which and name == "gradient_norm":
            for part in parts.values():
                part.register_hook(lambda gradient: gradient * math.inf)
        elif calls in which:
            parts[name] = parts[name] * math.nan
        return parts

    return losses


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_step_that_is_not_finite_changes_nothing(step: int, optimizer: str, last: bool):
    """It is named, though another one was begun; weights, statistics, averages, moments are those before it."""
    config = replace(QUICK, iterations=9, optimizer=optimizer)
    one, other = start(config), start(config)
    list(training_loop(one, batches(step - 1), config))
    losses = not_finite_at("confidence", step)
    loop = device_training_loop(other, batches(step if last else 9), config, losses=losses)
    assert [measured["step"] for _, measured in zip(range(step - 1), loop, strict=False)] == [*range(1, step)]
    with pytest.raises(FloatingPointError, match=rf"^the confidence loss became nan in step {step}, and the weights"):
        next(loop)
    if step > 1:
        same_states(one, other)
    else:  # the optimizer's memory is there by now, as empty as before
        assert same_weights(one.model, other.model)
        assert same_weights(one.average, other.average)
        assert all(not moment.any() for moment in moments(other))


def test_a_gradient_that_is_not_finite():
    config = replace(QUICK, iterations=9)
    state, losses = start(config), not_finite_at("gradient_norm", 2)
    with pytest.raises(FloatingPointError, match=r"^the norm of the gradient became (nan|inf) in step 2, "):
        list(device_training_loop(state, batches(9), config, losses=losses))
    assert state.step == 1
    assert all(p.isfinite().all() for p in state.model.parameters())


# With a scaler as in float16, and the network in float32, which is many times faster on a CPU.


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradients_that_overflow_are_skipped(optimizer: str):
    """As by the loop that asks: the factor is halved, and the next steps are as if those had not been."""
    config = replace(QUICK, iterations=4, optimizer=optimizer)
    states, found = [], []
    for loop in (training_loop, device_training_loop):
        state = start(config)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        losses = not_finite_at("gradient_norm", 1, 2)
        found.append(list(loop(state, batches(4), config, losses=losses)))
        states.append(state)
    assert [math.isfinite(measured["gradient_norm"]) for measured in found[0]] == [False, False, True, True]
    assert str(found[0]) == str(found[1])  # NaN included
    assert states[0].scaler.get_scale() == states[1].scaler.get_scale() == 256.0
    assert same_weights(states[0].model, states[1].model)
    assert same_weights(states[0].average, states[1].average)
    assert all(m.isfinite().all() for m in moments(states[1]))


def test_a_loop_with_a_scaler_can_be_closed_and_goes_on():
    config = replace(QUICK, iterations=4)
    state = start(config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loop = device_training_loop(state, batches(4), config)
    next(loop)
    loop.close()
    assert len(list(device_training_loop(state, batches(3), config))) == 3
    assert state.scaler.get_scale() == 1024.0


def test_a_run_whose_first_steps_were_all_skipped_can_be_resumed(tmp_path: Path):
    """What the optimizer remembers is there, of 0 steps."""
    config = replace(QUICK, iterations=4)
    state = start(config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    next(device_training_loop(state, batches(2), config, losses=not_finite_at("gradient_norm", 1)))
    run_folder.begin(tmp_path, {"config": asdict(config)})
    run_folder.save_state(tmp_path, state, run_folder.Progress())
    again = start(config)
    again.scaler = torch.amp.GradScaler("cpu")
    run_folder.load_state(tmp_path, again)
    same_states(state, again)
    assert again.scaler.get_scale() == 512.0


def test_a_gradient_that_is_infinite_at_any_scale_stops_the_run():
    config = QUICK
    state = start(config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for parameter in state.model.class_head.parameters():
        parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match=r"norm of the gradient became .* in step 1, "):
        list(device_training_loop(state, batches(3), config))


# ---- the whole run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images()


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))


def test_a_run_as_on_a_gpu(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The log, the states and the weights are those of a CPU, within the rounding of the other loss."""
    config = replace(QUICK, iterations=5, seed=1, optimizer="sgd", learning_rate=1e-3)
    usual = train(config, sample, tmp_path / "usual", progress=False)
    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))
    monkeypatch.setattr(engine_run, "training_loop", None)
    other = train(config, sample, tmp_path / "other", progress=False, save_every=2)
    for ours, theirs in zip(log_of(tmp_path / "other"), log_of(tmp_path / "usual"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(other.state_dict().values(), usual.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_run_names_the_images_of_the_step_that_was_not_finite(
    sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = losses_with_a_nan(monkeypatch, 6)
    with pytest.raises(FloatingPointError, match="the confidence loss became nan in step 6, ") as raised:
        train(replace(QUICK, iterations=9, seed=3), sample, tmp_path, progress=False, save_every=2)
    assert len(calls) == 7  # the next step was begun, of the next epoch
    loader = engine_run.Batches(len(sample), 2, seed=3)
    loader.order.epoch = 1
    names = ", ".join(f"index {index}" for index in loader.images(2))
    assert str(raised.value).endswith(f"the images of this step (epoch 2): {names}")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C comes in the middle of an epoch, when the next step was begun."""
    config = replace(QUICK, iterations=5, seed=1)
    whole = train(config, sample, tmp_path / "whole", progress=False)
    asked = 0

    def asks(_: bool) -> Any:
        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked == 2

        return engine_run.nullcontext(stop)

    monkeypatch.setattr(run_folder, "stop_requests", asks)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        train(config, sample, tmp_path / "stopped", progress=False)
    rest = train(config, sample, tmp_path / "stopped", progress=False, resume=True)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert same_weights(rest, whole)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("works", [True, False])
def test_a_compiled_run_as_on_a_gpu(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool):
    """Network and loss are compiled; where that fails, the run is the same without."""
    config = replace(QUICK, iterations=4, seed=1)
    usual = train(config, sample, tmp_path / "usual", progress=False)
    compiled: list[Any] = []
    real = torch.compile

    def compile_(what: Any, **options: Any) -> Any:
        compiled.append(what)
        return real(what, backend="eager" if works else fails, **options)

    def fails(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", compile_)
    with contextlib.nullcontext() if works else pytest.warns(UserWarning, match="torch.compile does not work") as told:
        model = train(replace(config, compile=True), sample, tmp_path / "compiled", progress=False)
    assert works or len(told) == 2
    assert [type(what).__name__ for what in compiled] == ["SSD", "function"]
    assert log_of(tmp_path / "compiled") == log_of(tmp_path / "usual")
    assert same_weights(model, usual)
