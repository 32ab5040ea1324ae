"""Training: hyperparameters, optimizer, learning rate, one step, and the loop.

Everything here works for any iterable of batches. What a long run needs besides (a folder, a log, states to resume
from, several processes) is in `ssdlib.engine`, which runs this same loop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ssdlib.loss import multibox_loss

Batch = tuple[Any, Sequence[Mapping[str, Tensor]]]  # images (N, 3, S, S), and for each its boxes and labels
Losses = Callable[[Any, Tensor, Any], dict[str, Tensor]]

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Hyperparameters:
    """What decides how a network learns from the batches that it is given.

    Attributes:
        iterations: how many steps; with the batch size, how many images are seen, whatever the size of the data set.
        batch_size: images a step, of all processes together.
        optimizer: "sgd" or "adamw".
        learning_rate: the largest of the schedule.
        schedule: "cosine" falls to 0 along half a cosine; "steps" divides by 10 at 2/3 and at 5/6 of the run, as the
            paper does after 80k and 100k of 120k iterations.
        warmup: fraction of the run in which the rate rises from 0.
        momentum: of SGD.
        weight_decay: pulls weights, but no biases and normalisations, towards 0.
        bias_lr_multiplier: factor of the learning rate for biases; 2 in the original code.
        backbone_lr_multiplier: factor of the learning rate for the backbone; below 1 in fine-tuning, where the backbone
            knows more than the heads.
        max_grad_norm: largest norm of the gradient; None does not clip.
        ema_decay: decay of the exponential moving average of the weights, which is what is evaluated and saved; 0 keeps
            the last weights.
        precision: number format of the network where that is safe (autocast): "float32", "bfloat16", or "float16",
            whose loss is scaled up so that small gradients do not vanish. "auto" leaves the choice to
            `ssdlib.engine.train`, which tries them out on the device.
        memory_format: order of the numbers of images and weights in memory, which changes the time of a step, and no
            result but for rounding: "channels_last" or "contiguous"; "auto" as for the precision.
        seed: of weights, order and augmentation. On a CPU the same seed gives the same run, whatever the number of
            workers.

    Raises:
        ValueError: if a value is out of its range; the message names it.
    """

    iterations: int = 2400
    batch_size: int = 8
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_lr_multiplier: float = 1.0
    backbone_lr_multiplier: float = 1.0
    max_grad_norm: float | None = 10.0
    ema_decay: float = 0.99
    precision: str = "float32"
    memory_format: str = "channels_last"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {self.optimizer!r}")
        if self.schedule not in ("cosine", "steps"):
            raise ValueError(f"schedule must be 'cosine' or 'steps', got {self.schedule!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.memory_format not in (*MEMORY_FORMATS, "auto"):
            known = ", ".join((*MEMORY_FORMATS, "auto"))
            raise ValueError(f"memory_format must be one of {known}, got {self.memory_format!r}")
        if self.iterations < 1 or self.batch_size < 1:
            raise ValueError(f"iterations and batch_size must be at least 1, got {self.iterations}, {self.batch_size}")
        for name in ("warmup", "ema_decay", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name in ("learning_rate", "bias_lr_multiplier", "backbone_lr_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, or none, got {self.max_grad_norm}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be at least 0 and below 2**64, got {self.seed}")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A block in which a network is computed in a number format, where that is safe; "float32" changes nothing.

    Raises:
        ValueError: if the precision is still "auto".
    """
    if precision == "auto":
        raise ValueError("precision 'auto' must be decided before a step: take float32, bfloat16 or float16")
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


def in_memory(memory_format: str) -> torch.memory_format:
    """What PyTorch calls an order of numbers in memory.

    Raises:
        ValueError: if it is still "auto".
    """
    if memory_format == "auto":
        raise ValueError(f"memory_format 'auto' must be decided before a step: take {' or '.join(MEMORY_FORMATS)}")
    return MEMORY_FORMATS[memory_format]


def learning_rate_factor(step: int, config: Hyperparameters) -> float:
    """The learning rate of a step, as a factor of the largest one.

    Args:
        step: steps done before, 0 for the first.
        config: of it, `schedule`, `warmup` and `iterations` matter here.
    """
    warmup_steps = config.warmup * config.iterations
    if step < warmup_steps:
        return min(1.0, (step + 1) / warmup_steps)  # + 1: at a rate of 0 the first batch would teach nothing
    done = step / config.iterations
    if config.schedule == "steps":
        return 1.0 if done < 2 / 3 else 0.1 if done < 5 / 6 else 0.01
    return 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))


def make_optimizer(model: nn.Module, config: Hyperparameters) -> torch.optim.Optimizer:
    """SGD or AdamW. Vectors (biases, normalisations) do not decay; biases and backbone may have rates of their own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (parameter.dim() <= 1, name.startswith("backbone."))
            groups.setdefault(kind, []).append(parameter)
    options = [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_vector else config.weight_decay,
            "lr": config.learning_rate
            * (config.bias_lr_multiplier if is_vector else 1.0)
            * (config.backbone_lr_multiplier if in_backbone else 1.0),
        }
        for (is_vector, in_backbone), parameters in sorted(groups.items())
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(options, lr=config.learning_rate, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(options, lr=config.learning_rate, fused=True)


@dataclass
class TrainState:
    """All that changes from step to step."""

    model: nn.Module
    average: nn.Module  # the moving average of the model's weights, in evaluation mode
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    step: int = 0  # steps done
    scaler: torch.amp.GradScaler | None = None  # of the loss, in float16

    @classmethod
    def start(cls, model: nn.Module, config: Hyperparameters) -> TrainState:
        """The state before the first step."""
        optimizer = make_optimizer(model, config)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type) if config.precision == "float16" else None
        return cls(model, copy.deepcopy(model).eval(), optimizer, schedule, scaler=scaler)


def training_loop(
    state: TrainState,
    batches: Iterable[Batch],
    config: Hyperparameters,
    *,
    network: nn.Module | None = None,
    losses: Losses | None = None,
) -> Iterator[dict[str, float]]:
    """Train, one step for each batch, until the iterations of the configuration are done or the batches end.

    It is a generator: whoever runs it has the word after every step, to show, evaluate, save or stop.

    Args:
        state: where the training stands; it is changed in place.
        batches: images (N, 3, S, S) in 0..1, and for each image a dict with fractional boxes and labels.
        config: the hyperparameters.
        network: the state's model in a wrapper that computes the same, such as a compiled one.
        losses: as for `train_step`.

    Yields:
        After each step "step", the steps done; "learning_rate", the rate that was used; and what `train_step` measured.
        In float16 a gradient can overflow: then its norm is not finite, and the weights are those before the step.

    Raises:
        FloatingPointError: if a loss or the gradient is not finite; then the weights are those before that step.
        ValueError: if precision or memory format are still "auto".
    """
    order = in_memory(config.memory_format)
    network = state.model if network is None else network
    device = next(network.parameters()).device
    network.train()
    for step, (images, targets) in zip(range(state.step, config.iterations), batches):  # noqa: B905
        images = images.to(device, memory_format=order, non_blocking=True)
        rate = float(state.schedule.get_last_lr()[0])
        measured = train_step(network, images, targets, state.optimizer, config, losses, state.scaler)
        require_finite_step(measured, step, state.scaler is not None and state.scaler.get_scale() >= 1)
        state.schedule.step()
        update_average(state.average, state.model, step, config.ema_decay)
        state.step = step + 1
        yield {"step": state.step, "learning_rate": rate, **measured}


def require_finite_step(measured: Mapping[str, float], step: int, may_overflow: bool) -> None:
    """Refuse a step with a loss or a gradient that is not finite.

    Args:
        measured: by `train_step`.
        step: steps done before.
        may_overflow: whether a gradient that is not finite is the scaler's doing, which goes on with a smaller factor;
            at a factor below 1 it is the network's own.

    Raises:
        FloatingPointError: the message names the step, and what became of which number.
    """
    for name, value in measured.items():
        if not math.isfinite(value) and not (name == "gradient_norm" and may_overflow):
            what = "norm of the gradient" if name == "gradient_norm" else f"{name} loss"
            raise FloatingPointError(
                f"the {what} became {value} in step {step + 1}, and the weights were left as they were"
            )


def train_step(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    config: Hyperparameters,
    losses: Losses | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, float]:
    """One step: predict, measure the loss, go down its gradient.

    Args:
        model: an SSD in training mode.
        images: (N, 3, S, S), on the device of the model.
        targets: one dict an image, boxes fractional.
        optimizer: of the model's parameters.
        config: of it, `precision` and `max_grad_norm` matter here.
        losses: model, images, targets -> losses whose sum is minimised; by default `ssd_losses`.
        scaler: for float16: multiplies the loss before its gradient is taken, and divides the gradient again. It halves
            its factor after a gradient that overflowed, and doubles it after 2000 that did not.

    Returns:
        "localization" and "confidence", the losses of the batch before the step, and "gradient_norm", the length of
        the gradient before clipping. If one of them is not finite, the weights are left as they were.
    """
    measured = take_gradient(model, images, targets, optimizer, config, losses, scaler)
    values = torch.stack([*measured.values()]).tolist()
    if not all(map(math.isfinite, values)):
        optimizer.zero_grad()  # without a gradient the optimizer does nothing
    optimizer.step()
    if scaler is not None:
        scaler.update()
    return dict(zip(measured, values, strict=True))


def take_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    config: Hyperparameters,
    losses: Losses | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, Tensor]:
    """The first part of `train_step`, up to the clipped gradient; arguments and result as there, but in scalars."""
    with autocast(images.device, config.precision):
        parts = (losses or ssd_losses)(model, images, targets)
    total = torch.stack([*parts.values()]).sum()
    optimizer.zero_grad()
    (total if scaler is None else scaler.scale(total)).backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    return {**{name: part.detach().float() for name, part in parts.items()}, "gradient_norm": norm}


def ssd_losses(model: Any, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The MultiBox loss of a network's predictions for a batch."""
    offsets, logits = model(images)
    return multibox_loss(offsets, logits, targets, model.priors, activation=model.activation)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the moving average of weights and statistics towards those of the model.

    Args:
        average: is changed in place.
        model: of the same architecture.
        step: updates before this one. The first takes the weights whole, and the next ones forget faster than `decay`
            says: the weights of the start are not worth remembering.
        decay: 0 keeps the last weights.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step)) if step else 1.0
    pairs = [*zip(average.state_dict().values(), model.state_dict().values(), strict=True)]
    olds, news = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(olds, news, weight)  # all tensors at once: one call for a GPU, not hundreds
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)
