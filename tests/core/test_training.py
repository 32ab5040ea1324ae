"""Training: schedule, optimizer, one step, and the loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.small_run import QUICK, same_weights, weights_of
from torch import Tensor

from ssdlib.engine.config import TrainConfig
from ssdlib.model import SSD, build_model
from ssdlib.training import (
    MEMORY_FORMATS,
    TrainState,
    autocast,
    learning_rate_factor,
    make_optimizer,
    ssd_losses,
    train_step,
    training_loop,
)


def factors(config: TrainConfig, steps: Sequence[int]) -> list[float]:
    return [learning_rate_factor(step, config) for step in steps]


def test_cosine():
    config = TrainConfig(iterations=1000, warmup=0.1, schedule="cosine")
    assert factors(config, [0, 49, 99, 100]) == pytest.approx([0.01, 0.5, 1, 1])  # no step has a rate of 0
    assert factors(config, [550]) == pytest.approx([0.5])  # halfway between warm-up and end
    falling = factors(config, range(100, 1000))
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 1e-5  # the last step still moves
    assert factors(replace(config, warmup=0.0), [0]) == [1]
    assert factors(TrainConfig(iterations=1, warmup=0.9), [0]) == [1]  # a warm-up shorter than a step


def test_steps():
    config = TrainConfig(iterations=1200, warmup=0.05, schedule="steps")
    assert factors(config, [29]) == pytest.approx([0.5])
    assert factors(config, [60, 799, 800, 999, 1000, 1199]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups_of_the_optimizer(optimizer: str):
    model = build_model("ssd_tiny", ["cat"])
    rates = {"learning_rate": 0.01, "bias_lr_multiplier": 2.0, "backbone_lr_multiplier": 0.5}
    config = TrainConfig(optimizer=optimizer, weight_decay=0.1, momentum=0.8, **rates)
    made = make_optimizer(model, config)
    names = {id(p): name for name, p in model.named_parameters()}
    settings = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in made.param_groups for p in g["params"]}
    assert settings.keys() == set(names.values())
    assert sum(len(group["params"]) for group in made.param_groups) == len(settings)  # each once
    for name, parameter in model.named_parameters():
        vector = parameter.dim() == 1  # a bias, or the scale of a normalisation
        expected = 0.01 * (2.0 if vector else 1.0) * (0.5 if name.startswith("backbone.") else 1.0)
        assert settings[name] == (pytest.approx(expected), 0.0 if vector else 0.1), name
    assert type(made).__name__ == {"sgd": "SGD", "adamw": "AdamW"}[optimizer]
    assert optimizer == "adamw" or {group["momentum"] for group in made.param_groups} == {0.8}


def test_frozen_parts_stay_as_they_are():
    model = build_model("ssd_tiny", ["cat"])
    model.freeze(["backbone.stages.0", "offset_head"])
    frozen = ("backbone.stages.0.", "offset_head.")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = replace(QUICK, iterations=2)
    for _ in training_loop(TrainState.start(model, config), [batch()] * 2, config):
        pass
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(frozen)]  # the statistics neither
    assert {name.split(".")[0] for name in changed} == {"backbone", "class_head"}
    assert model.backbone.stages[1].training
    assert not model.backbone.stages[0].training


def batch(count: int = 2) -> tuple[Tensor, list[dict[str, Tensor]]]:
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.6, 0.6]]), "labels": torch.tensor([1])}
    return torch.rand(count, 3, 256, 256), [{**target, "difficult": torch.tensor([False])}] * count


def test_a_step_changes_the_weights_and_returns_the_losses():
    model = build_model("ssd_tiny", ["cat"]).train()
    images, targets = batch()
    before = weights_of(model)
    losses = train_step(model, images, targets, make_optimizer(model, QUICK), QUICK)
    assert losses.keys() == {"localization", "confidence", "gradient_norm"}
    assert all(isinstance(value, float) and math.isfinite(value) for value in losses.values())
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters() if p.dim() > 1)


def test_a_loss_that_is_not_finite_changes_no_weight():
    model = build_model("ssd_tiny", ["cat"]).train()
    images, targets = batch()
    with torch.no_grad():
        model.class_head.convolutions[0].bias[0] = math.nan
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = train_step(model, images, targets, make_optimizer(model, QUICK), QUICK)
    assert not math.isfinite(losses["confidence"])
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("max_grad_norm", "moved"), [(0.5, 0.5), (None, None)])
def test_the_gradient_is_clipped(max_grad_norm: float | None, moved: float | None):
    config = replace(
        QUICK, optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, max_grad_norm=max_grad_norm
    )
    model = build_model("ssd_tiny", ["cat"]).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_step(model, *batch(), make_optimizer(model, config), config)
    length = math.sqrt(sum(float(((p.detach() - before[name]) ** 2).sum()) for name, p in model.named_parameters()))
    assert length > 1 if moved is None else length == pytest.approx(moved, rel=1e-3)


def test_the_loop_yields_each_step_and_stops_after_the_last():
    config = replace(QUICK, iterations=3, warmup=0.5, learning_rate=1e-3)
    state = TrainState.start(build_model("ssd_tiny", ["cat"]), config)
    data = iter([batch()] * 9)
    steps = training_loop(state, data, config)
    first = next(steps)
    assert (first["step"], state.step) == (1, 1)
    assert first["learning_rate"] == pytest.approx(1e-3 / 1.5)  # the rate that the step used
    assert [step["step"] for step in steps] == [2, 3]
    assert len(list(data)) == 6  # no batch was taken that was not used


def test_the_loop_goes_on_from_where_its_state_stands():
    config, torch_state = replace(QUICK, iterations=4), torch.get_rng_state()
    whole = TrainState.start(build_model("ssd_tiny", ["cat"]), config)
    torch.set_rng_state(torch_state)
    parts = TrainState.start(build_model("ssd_tiny", ["cat"]), config)
    data = [batch() for _ in range(4)]
    expected = list(training_loop(whole, data, config))
    assert list(training_loop(parts, data[:2], config)) == expected[:2]  # the batches end
    assert list(training_loop(parts, data[2:], config)) == expected[2:]
    assert same_weights(whole.average, parts.average)


def test_the_loop_stops_before_a_step_that_is_not_finite():
    state = TrainState.start(build_model("ssd_tiny", ["cat"]), QUICK)

    def losses(model: SSD, images: Tensor, targets: Any) -> dict[str, Tensor]:
        offsets, logits = model(images)
        return {"localization": offsets.square().mean(), "confidence": logits.mean() * math.nan}

    before = {name: p.clone() for name, p in state.model.named_parameters()}
    with pytest.raises(FloatingPointError, match=r"the confidence loss became nan in step 1, and the weights"):
        next(training_loop(state, [batch()], QUICK, losses=losses))
    assert all(torch.equal(p, before[name]) for name, p in state.model.named_parameters())
    assert state.step == 0


# ---- float16 ---------------------------------------------------------------------------------------------------


def in_float16(scale: float, **changes: Any) -> tuple[TrainState, TrainConfig]:
    """A state before the first step, whose scaler begins with a factor."""
    config = TrainConfig(iterations=3, batch_size=2, warmup=0.0, precision="float16", ema_decay=0.0, **changes)
    torch.manual_seed(0)
    state = TrainState.start(build_model("ssd_tiny", ["cat"]), config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return state, config


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_gradient_that_overflows_skips_the_step(optimizer: str):
    """The next steps are as if it had not been: SGD's momentum, above all, must not hold numbers of nowhere."""
    state, config = in_float16(2.0**100, optimizer=optimizer)
    before = [p.clone() for p in state.model.parameters()]
    loop = training_loop(state, iter([batch()] * 3), config)
    first = next(loop)
    assert not math.isfinite(first["gradient_norm"])
    assert math.isfinite(first["confidence"])
    assert state.scaler is not None
    assert state.scaler.get_scale() == 2.0**99
    assert all(torch.equal(p, b) for p, b in zip(state.model.parameters(), before, strict=True))
    assert not state.optimizer.state_dict()["state"]
    state.scaler.update(256.0)
    second = next(loop)
    assert second["confidence"] == first["confidence"]
    assert math.isfinite(second["gradient_norm"])
    assert not all(torch.equal(p, b) for p, b in zip(state.model.parameters(), before, strict=True))
    assert all(p.isfinite().all() for p in state.model.parameters())
    moments = [m for entry in state.optimizer.state_dict()["state"].values() for m in entry.values()]
    assert all(m.isfinite().all() for m in moments)


def test_the_scale_cancels_out():
    norms = []
    for scale in (1.0, 1024.0):
        state, config = in_float16(scale)
        norms.append(next(training_loop(state, iter([batch()]), config))["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=2e-2)


def test_a_gradient_that_is_infinite_at_any_scale_stops_the_run():
    state, config = in_float16(1.0)
    for parameter in state.model.class_head.parameters():
        parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match="norm of the gradient became"):
        next(training_loop(state, iter([batch()]), config))


def test_auto_is_no_precision_of_a_step():
    with pytest.raises(ValueError, match="'auto' must be decided before a step"):
        autocast(torch.device("cpu"), "auto")


@pytest.mark.parametrize("name", ["channels_last", "contiguous"])
def test_images_come_in_the_memory_format(name: str):
    seen = []

    def losses(model: Any, images: Tensor, targets: Any) -> dict[str, Tensor]:
        seen.append([images.is_contiguous(memory_format=order) for order in MEMORY_FORMATS.values()])
        return ssd_losses(model, images, targets)

    config = replace(QUICK, iterations=1, memory_format=name)
    list(training_loop(TrainState.start(build_model("ssd_tiny", ["cat"]), config), [batch()], config, losses=losses))
    assert seen == [[known == name for known in MEMORY_FORMATS]]


def test_auto_is_no_memory_format_of_a_step():
    config = replace(QUICK, memory_format="auto")
    with pytest.raises(ValueError, match="'auto' must be decided before a step"):
        next(training_loop(TrainState.start(build_model("ssd_tiny", ["cat"]), config), [batch()], config))
    with pytest.raises(ValueError, match="memory_format must be one of channels_last, contiguous, auto, got 'nhwc'"):
        replace(QUICK, memory_format="nhwc")
