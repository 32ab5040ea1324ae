"""Compilation: the network through torch.compile, where that works."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from ssdlib.engine.config import TrainConfig
from ssdlib.engine.processes import world_size
from ssdlib.model import SSD
from ssdlib.training import autocast, in_memory


def compiled(model: SSD, config: TrainConfig) -> nn.Module:
    """The model through torch.compile; where that does not work, the model itself, and a warning that says why.

    One batch of black images is tried at once, so that a failure comes now and not in the first step.
    """
    before = copy.deepcopy(model.state_dict())
    device, size = model.priors.device, model.recipe.image_size
    images = torch.zeros(max(1, config.batch_size // world_size()), 3, size, size, device=device)
    network: nn.Module = model.train()
    try:
        network = torch.compile(model)  # type: ignore[assignment]
        with autocast(device, config.precision):
            offsets, logits = network(images.to(memory_format=in_memory(config.memory_format)))
        (offsets.sum() + logits.sum()).backward()
    except Exception as error:  # whatever a compiler can raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"torch.compile does not work here ({reason}); the run goes on without it", stacklevel=2)
        network = model
    model.load_state_dict(before)
    model.zero_grad()
    return network
