"""The state of a run: what was saved comes back, and nothing else is let near the network or its optimizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import quick
from torch import Tensor

from ssdlib.engine import run_folder, state_check
from ssdlib.engine.config import TrainConfig
from ssdlib.model import build_model
from ssdlib.training import TrainState

STEPS = 2
CONFIGS = {
    "adamw": quick(iterations=5),
    "sgd": quick(iterations=5, optimizer="sgd", bias_lr_multiplier=2.0),
    "sgd without momentum": quick(iterations=5, optimizer="sgd", momentum=0.0),
}


def trained(config: TrainConfig, seed: int, steps: int = STEPS) -> TrainState:
    """A state after some steps down made-up gradients."""
    torch.manual_seed(seed)
    state = TrainState.start(build_model("ssd_tiny", ["cat"]).to(memory_format=torch.channels_last), config)
    for _ in range(steps):
        for parameter in state.model.parameters():
            parameter.grad = torch.rand_like(parameter)
        state.optimizer.step()
        state.schedule.step()
        state.step += 1
    return state


def tensors_of(state: TrainState) -> list[Tensor]:
    moments = [tensor for entry in state.optimizer.state_dict()["state"].values() for tensor in entry.values()]
    return [*state.model.state_dict().values(), *state.average.state_dict().values(), *moments]


@pytest.fixture(scope="module", params=CONFIGS)
def config(request: pytest.FixtureRequest) -> TrainConfig:
    return CONFIGS[request.param]


@pytest.fixture
def folder(config: TrainConfig, tmp_path: Path) -> Path:
    """A run's folder with a state."""
    (tmp_path / "config.json").write_text(json.dumps({"config": asdict(config)}), encoding="utf-8")
    run_folder.save_state(tmp_path, trained(config, 1), run_folder.Progress(seconds=7.5))
    return tmp_path


def test_what_was_saved_comes_back(config: TrainConfig, folder: Path):
    saved, state = trained(config, 1), trained(config, 2, 0)
    torch.manual_seed(99)
    assert run_folder.load_state(folder, state) == run_folder.Progress(seconds=7.5)
    assert state.step == STEPS
    assert state.schedule.get_last_lr() == saved.schedule.get_last_lr()
    assert state.schedule.last_epoch == STEPS
    rates = [group["lr"] for group in state.optimizer.param_groups]
    assert rates == [group["lr"] for group in saved.optimizer.param_groups]
    pairs = list(zip(tensors_of(state), tensors_of(saved), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(a.stride() == b.stride() for a, b in pairs)  # as the fused steps of the optimizers need it


def test_a_state_before_the_first_step(config: TrainConfig, folder: Path):
    run_folder.save_state(folder, trained(config, 1, 0), run_folder.Progress())
    state = trained(config, 2, 0)
    rates = state.schedule.get_last_lr()
    run_folder.load_state(folder, state)
    assert (state.step, state.schedule.get_last_lr()) == (0, rates)


@pytest.mark.parametrize("place", [0.001, 0.3, 0.6, 0.9])
def test_damage_is_told(place: float, folder: Path, config: TrainConfig):
    content = bytearray((folder / "state.pt").read_bytes())
    begin = int(place * len(content))
    content[begin : begin + 200] = bytes(byte ^ 0x10 for byte in content[begin : begin + 200])  # no padding is so long
    (folder / "state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.pt is no state .* damaged"):
        run_folder.load_state(folder, trained(config, 2, 0))


def test_a_half_state(folder: Path, config: TrainConfig):
    content = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"state\.pt is no state .* damaged"):
        run_folder.load_state(folder, trained(config, 2, 0))


# ---- a stranger who knows how the checksum is made -------------------------------------------------------------


def of_adam(name: str, tensor: Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["optimizer"][0].update({name: tensor})


def in_weights(part: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        first = next(name for name, tensor in saved[part].items() if tensor.is_floating_point())
        saved[part][first] = torch.full_like(saved[part][first], value)

    return change


def entry(part: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved.update({part: value})


def in_progress(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["progress"].update({name: value})


def in_sums(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["progress"]["epoch"].update({name: value})


FIRST = (16, 96, 3, 3)  # of the first weight of the optimizer: that of a head
TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a moment that is too short": (of_adam("exp_avg", torch.zeros(1)), r"optimizer\.0\.exp_avg must be torch.float32"),
    "a moment that is too long": (of_adam("exp_avg_sq", torch.zeros(9, *FIRST)), r"optimizer\.0\.exp_avg_sq must be"),
    "a moment of another type": (of_adam("exp_avg", torch.zeros(FIRST).double()), "must be torch.float32 .*float64"),
    "a moment without memory": (of_adam("exp_avg", torch.zeros(1).expand(FIRST)), "fewer numbers than it claims"),
    "a sparse moment": (of_adam("exp_avg", torch.zeros(FIRST).to_sparse()), "fewer numbers than it claims"),
    "a moment that is none": (of_adam("exp_avg", 7), r"optimizer\.0\.exp_avg must be a tensor, got 7"),  # type: ignore
    "a moment too many": (of_adam("max_exp_avg_sq", torch.zeros(FIRST)), r"optimizer\.0 has an entry too many"),
    "a moment that is not finite": (of_adam("exp_avg", torch.full(FIRST, torch.nan)), "holds a number that is not"),
    "squares below 0": (of_adam("exp_avg_sq", torch.full(FIRST, -1.0)), "a mean of squares below 0"),
    "steps of another number": (of_adam("step", torch.tensor(9.0)), r"optimizer\.0\.step is 9\.0, and the run .* 2"),
    "no moments": (entry("optimizer", {}), "optimizer lacks 0"),
    "moments in a list": (entry("optimizer", [1, 2]), r"optimizer must be a mapping, got \[1, 2\]"),
    "weights of another network": (entry("model", {"x": torch.zeros(2)}), "model lacks"),
    "NaN in the weights": (in_weights("model", torch.nan), "model.* not finite"),
    "NaN in the average": (in_weights("average", torch.nan), "average.* not finite"),
    "no average": (entry("average", None), "average must be a mapping, got None"),
    "a step that is a text": (entry("step", "2"), "step must be a whole number from 0 to 5, got '2'"),
    "a step that is no whole number": (entry("step", 2.0), r"step must be .* got 2\.0"),
    "a step that is true": (entry("step", True), "step must be .* got True"),
    "a step below 0": (entry("step", -1), "step must be .* got -1"),
    "a step after the last": (entry("step", 6), "step must be .* got 6"),
    "NaN as a step": (entry("step", torch.nan), "step must be .* got nan"),
    "no progress": (entry("progress", 3), "progress"),
    "NaN as the time": (in_progress("seconds", torch.nan), r"progress\.seconds must be a number .* got nan"),
    "a time before the start": (in_progress("seconds", -1.0), r"progress\.seconds must be .* got -1\.0"),
    "a text as the time": (in_sums("began", "1"), r"progress\.epoch\.began must be .* got '1'"),
    "progress too many": (in_progress("speed", 1.0), "progress has an entry too many, 'speed'"),
    "an infinite loss": (in_sums("confidence", torch.inf), r"progress\.epoch\.confidence must be .* got inf"),
    "a sum too many": (in_sums("x", 1.0), r"progress\.epoch has an entry too many, 'x'"),
    "no best": (in_progress("best", None), r"progress\.best must be a mapping, got None"),
    "a best that is not finite": (
        in_progress("best", {"mAP": torch.nan, "step": 1, "since": 0}),
        r"progress\.best\.mAP must be a number .* got nan",
    ),
    "a scaler in float32": (entry("scaler", {"scale": 2.0}), "scaler has an entry too many, 'scale'"),
    "random numbers of another length": (entry("random", torch.zeros(3, dtype=torch.uint8)), "random must be torch.ui"),
    "random numbers of nothing": (entry("random", torch.zeros_like(torch.get_rng_state())), "random is no state"),
    "lists in lists": (entry("random", [[[[[[1]]]]]]), "random must be a tensor"),
    "too many entries": (entry("progress", [0] * 200_000), "more than 100000 entries"),
}


@pytest.mark.parametrize("config", ["adamw"], indirect=True)
@pytest.mark.parametrize("kind", TAMPERED)
@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:Sparse invariant")
def test_a_tampered_state_changes_nothing(
    kind: str, folder: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    change, message = TAMPERED[kind]
    saved = torch.load(folder / "state.pt", weights_only=True)
    change(saved)
    del saved["checksum"]
    with monkeypatch.context() as patch:
        patch.setattr(state_check, "MOST_ENTRIES", 1_000_000)
        saved["checksum"] = state_check.checksum(saved) if "fewer" not in message else ""
    torch.save(saved, folder / "state.pt")

    state = trained(config, 2, 0)
    before = [tensor.clone() for tensor in tensors_of(state)]
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"state\.pt is no state that this run can go on from: .*{message}"):
        run_folder.load_state(folder, state)
    assert state.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(state), strict=True))
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("config", ["adamw"], indirect=True)
def test_a_list_that_holds_itself(folder: Path, config: TrainConfig):
    saved = torch.load(folder / "state.pt", weights_only=True)
    saved["progress"] = [saved["random"]]
    saved["progress"].append(saved["progress"])
    torch.save(saved, folder / "state.pt")
    with pytest.raises(ValueError, match="more than 100000 entries"):
        run_folder.load_state(folder, trained(config, 2, 0))


@pytest.mark.parametrize("config", ["adamw"], indirect=True)
def test_no_gradient_comes_with_a_state(folder: Path, config: TrainConfig):
    """A tensor that asks for its gradient would let every later step build on the ones before it, in memory."""
    saved = torch.load(folder / "state.pt", weights_only=True)
    for name in saved["optimizer"][0]:
        saved["optimizer"][0][name].requires_grad_()
    torch.save(saved, folder / "state.pt")
    state = trained(config, 2, 0)
    run_folder.load_state(folder, state)
    assert not any(moment.requires_grad for moment in state.optimizer.state_dict()["state"][0].values())


@pytest.mark.parametrize("config", ["adamw"], indirect=True)
def test_two_moments_in_one_memory_are_taken_apart(folder: Path, config: TrainConfig):
    saved = torch.load(folder / "state.pt", weights_only=True)
    saved["optimizer"][0]["exp_avg"] = saved["optimizer"][0]["exp_avg_sq"]
    del saved["checksum"]
    saved["checksum"] = state_check.checksum(saved)
    torch.save(saved, folder / "state.pt")
    state = trained(config, 2, 0)
    run_folder.load_state(folder, state)
    moments = state.optimizer.state_dict()["state"][0]
    assert moments["exp_avg"].data_ptr() != moments["exp_avg_sq"].data_ptr()


# ---- float16 ---------------------------------------------------------------------------------------------------


def scaled(seed: int, steps: int) -> TrainState:
    state = trained(quick(iterations=5, precision="float16"), seed, steps)
    assert state.scaler is not None
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    return state


def save_scaled(folder: Path, state: TrainState) -> None:
    config = quick(iterations=5, precision="float16")
    (folder / "config.json").write_text(json.dumps({"config": asdict(config)}), encoding="utf-8")
    run_folder.save_state(folder, state, run_folder.Progress())


@pytest.mark.parametrize("steps", [2, 0])
def test_the_scaler_comes_back_and_skipped_steps_are_fine(steps: int, tmp_path: Path):
    saved = scaled(1, steps)
    saved.step = 4  # two were skipped, or all of them
    save_scaled(tmp_path, saved)
    state = trained(quick(iterations=5, precision="float16"), 2, 0)
    run_folder.load_state(tmp_path, state)
    assert state.step == 4
    assert state.scaler is not None
    assert (state.scaler.get_scale(), state.scaler.state_dict()["_growth_tracker"]) == (512.0, 7)


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        ({}, "scaler lacks"),
        ({"scale": 0.0, "_growth_tracker": 0}, "scaler.scale must be a number above 0, got 0.0"),
        ({"scale": torch.nan, "_growth_tracker": 0}, "scaler.scale must be a number above 0, got nan"),
        ({"scale": 2.0, "_growth_tracker": "1"}, "_growth_tracker must be a whole number, got '1'"),
    ],
)
def test_a_tampered_scaler(scaler: dict[str, Any], message: str, tmp_path: Path):
    save_scaled(tmp_path, scaled(1, 2))
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    saved["scaler"] = scaler
    del saved["checksum"]
    saved["checksum"] = state_check.checksum(saved)
    torch.save(saved, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=message):
        run_folder.load_state(tmp_path, trained(quick(iterations=5, precision="float16"), 2, 0))
