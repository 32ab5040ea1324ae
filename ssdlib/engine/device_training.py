"""The training loop for GPUs: no step waits for the device, which is always given the next one before it has ended one.

`ssdlib.training.training_loop` reads the losses after each step, and stops before weights that a step without a finite
loss would make. Here they are read while the gradient of the next step is computed, with the same outcome: whether a
step moves the weights is decided on the device, and the next one does so only when the losses of this one were read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssdlib.engine.transfers import sent
from ssdlib.training import (
    Batch,
    Hyperparameters,
    Losses,
    TrainState,
    in_memory,
    require_finite_step,
    take_gradient,
    update_average,
)


class _Launched(NamedTuple):
    """A step that the device is at work on."""

    step: int  # steps done before
    learning_rate: float
    names: tuple[str, ...]
    numbers: Callable[[], tuple[Tensor, ...]]  # on their way: what was measured, and the loss's scale after the step
    statistics: list[Tensor]  # of batch normalisation, before the step


def device_training_loop(
    state: TrainState,
    batches: Iterable[Batch],
    config: Hyperparameters,
    *,
    network: nn.Module | None = None,
    losses: Losses | None = None,
) -> Generator[dict[str, float], None, None]:
    """As `ssdlib.training.training_loop`: the same steps, and the same numbers of each, one step later.

    When a step's numbers come, the next batch was taken, and its gradient is under way. The state is the one after the
    step, nevertheless: weights, statistics of batch normalisation, average and optimizer. It may be saved, measured,
    and left at that.

    Raises:
        FloatingPointError: as there; then the state is the one before that step.
        ValueError: as there.
    """
    order = in_memory(config.memory_format)
    network = state.model if network is None else network
    device = next(network.parameters()).device
    network.train()
    _begin_momentum(state.optimizer)
    statistics = _statistics(state.model)
    launched: _Launched | None = None
    for step, (images, targets) in zip(range(state.step, config.iterations), batches):  # noqa: B905
        before = _copies(statistics)
        images = images.to(device, memory_format=order, non_blocking=True)
        measured = take_gradient(network, images, targets, state.optimizer, config, losses, state.scaler)
        if launched is not None:
            ahead = _copies(statistics)  # of the batch whose gradient this is
            _set(statistics, before)
            try:
                yield _finished(launched, state, config, statistics)
            except BaseException:  # a step that is not finite, or nobody asks for another one
                _forget_gradient(state)
                raise
            _set(statistics, ahead)
        launched = _launch(step, measured, state, before)
    if launched is not None:
        yield _finished(launched, state, config, statistics)


def _launch(step: int, measured: dict[str, Tensor], state: TrainState, statistics: list[Tensor]) -> _Launched:
    """Let the device move the weights, if all that was measured is finite, and send the numbers to the host."""
    numbers = torch.stack([*measured.values()])
    rate = float(state.schedule.get_last_lr()[0])
    move_if_finite(state.optimizer, numbers)
    if state.scaler is not None:
        state.scaler.update()
        numbers = torch.cat((numbers, state.scaler.scale(torch.ones(1, device=numbers.device))))
    return _Launched(step, rate, tuple(measured), sent(numbers), statistics)


def move_if_finite(optimizer: torch.optim.Optimizer, numbers: Tensor) -> None:
    """A step of a fused optimizer that changes nothing, its own memory included, unless all numbers are finite.

    That is decided where the numbers are, by what `torch.amp.GradScaler` tells its optimizer.
    """
    optimizer.found_inf = (~numbers.isfinite().all()).float()  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _finished(
    launched: _Launched, state: TrainState, config: Hyperparameters, statistics: list[Tensor]
) -> dict[str, float]:
    """Read what a step measured, and do the rest of it; or, if it is not finite, bring the statistics back."""
    values = launched.numbers()[0].tolist()
    measured = dict(zip(launched.names, values, strict=False))
    try:
        require_finite_step(measured, launched.step, state.scaler is not None and values[-1] >= 1)
    except FloatingPointError:
        _set(statistics, launched.statistics)
        raise
    state.schedule.step()
    # The weights are those after this step: the next one has its gradient by now, and has moved nothing.
    update_average(state.average, state.model, launched.step, config.ema_decay)
    state.step = launched.step + 1
    return {"step": state.step, "learning_rate": launched.learning_rate, **measured}


def _forget_gradient(state: TrainState) -> None:
    """Leave a gradient that will move nothing."""
    state.optimizer.zero_grad()
    if state.scaler is not None:  # it waits for the step with this gradient: another one begins where it stands
        fresh = torch.amp.GradScaler(next(state.model.parameters()).device.type)
        fresh.load_state_dict(state.scaler.state_dict())
        state.scaler = fresh


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let SGD begin with a momentum of 0, which comes to the same: its own first step reads none, even if it is none.

    Where the first gradient overflowed, the second step would find what happens to be in memory.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _statistics(model: nn.Module) -> list[Tensor]:
    """What a forward pass changes in a model: the buffers that are part of its state."""
    part_of_state = model.state_dict().keys()
    return [buffer for name, buffer in model.named_buffers() if name in part_of_state]


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    copies = [torch.empty_like(tensor) for tensor in tensors]
    _set(copies, tensors)
    return copies


def _set(tensors: list[Tensor], values: list[Tensor]) -> None:
    """Set tensors to values, those of a type in one call."""
    for floating in (True, False):
        rows = [row for row, tensor in enumerate(tensors) if tensor.is_floating_point() is floating]
        if rows:
            torch._foreach_copy_([tensors[row] for row in rows], [values[row] for row in rows])
