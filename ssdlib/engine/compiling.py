"""Compilation: the network, and on a GPU the loss, through torch.compile, where that works."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from ssdlib.engine import processes
from ssdlib.engine.config import GRAPH_MODES, TrainConfig
from ssdlib.engine.device_loss import device_sums, matched_sums, pad_targets
from ssdlib.model import SSD
from ssdlib.training import Losses, autocast, in_memory

_Batch = TypeVar("_Batch")

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # of what the network says


def compiled(model: SSD, config: TrainConfig) -> nn.Module:
    """The model through torch.compile; where that does not work, the model itself, and a warning that says why.

    One batch of black images is tried at once, so that a failure comes now and not in the first step.
    """
    before = copy.deepcopy(model.state_dict())
    device, size = model.priors.device, model.recipe.image_size
    images = torch.zeros(max(1, config.batch_size // processes.world_size()), 3, size, size, device=device)
    network: nn.Module = model.train()
    try:
        network = torch.compile(model, mode=config.compile_mode)  # type: ignore[assignment]
        with autocast(device, config.precision):
            offsets, logits = network(images.to(memory_format=in_memory(config.memory_format)))
        (offsets.sum() + logits.sum()).backward()
    except Exception as error:  # whatever a compiler can raise
        _warn_of(error)
        network = model
    model.load_state_dict(before)
    model.zero_grad()
    return network


def compiled_losses(model: SSD, config: TrainConfig) -> Losses:
    """`ssdlib.engine.processes.shared_losses`, on a GPU with its part of fixed shapes through torch.compile.

    What is compiled reads the scores of all priors once, and not once for each operation. The match of objects with
    priors stays as it is: it would be compiled anew for each number of objects that there is room for.
    """
    priors = model.priors
    if priors.device.type not in processes.ON_DEVICE:
        return processes.shared_losses
    images, kind = max(1, config.batch_size // processes.world_size()), _DTYPES.get(config.precision, torch.float32)
    offsets, logits = (
        torch.zeros(images, len(priors), last, device=priors.device, dtype=kind, requires_grad=True)
        for last in (4, model.num_classes)
    )
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    try:
        of_matched = torch.compile(matched_sums, fullgraph=True, mode=config.compile_mode)
        with autocast(priors.device, config.precision):
            padded = pad_targets([nothing] * images, model.num_classes, priors.device)
            sums = device_sums(offsets, logits, padded, priors, activation=model.activation, of_matched=of_matched)
        (sums.localization + sums.confidence).backward()
    except Exception as error:  # whatever a compiler can raise
        _warn_of(error)
        return processes.shared_losses
    return partial(processes.shared_losses, of_matched=of_matched)


def steps_marked(batches: Iterable[_Batch], config: TrainConfig) -> Iterator[_Batch]:
    """Pass the batches of steps on; if there may be CUDA graphs, tell PyTorch at each that a step begins.

    From then on the graphs may put what they compute into the memory that has the gradient of the step before, which
    has moved the weights by then.
    """
    graphs = config.compile and config.compile_mode in GRAPH_MODES
    for batch in batches:
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        yield batch


def _warn_of(error: Exception) -> None:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"torch.compile does not work here ({reason}); the run goes on without it", stacklevel=3)
