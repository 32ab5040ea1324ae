"""Several processes: small functions around `torch.distributed`, which do nothing where there is one process.

`torchrun` starts the processes and says in the environment which is which. Rank 0 is the one that writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssdlib.engine.device_loss import device_sums, pad_targets
from ssdlib.loss import LossSums, multibox_sums

_Item = TypeVar("_Item")
_Module = TypeVar("_Module", bound=nn.Module)


def rank() -> int:
    """Number of this process, 0 where there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, for the time of the block; without torchrun this does nothing.

    Args:
        device: "cuda" gives each process of a machine its own GPU, joined by NCCL; on a CPU they are joined by gloo.

    Yields:
        The device of this process.

    Raises:
        ValueError: if a machine has fewer GPUs than processes.
    """
    if "WORLD_SIZE" not in os.environ or "MASTER_ADDR" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}: "
                f"lower --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        if device.type != "cuda":
            # gloo's thread needs the interpreter to let go of the last tensor, and the destructor waits for that thread
            # while it holds the interpreter: seen with PyTorch 2.6, now and then.
            time.sleep(0.1)
        dist.destroy_process_group()


def with_shared_statistics(model: _Module, device: torch.device) -> _Module:
    """On GPUs, let batch normalisation take its statistics from the images of all processes.

    On a CPU PyTorch cannot do that: there each process normalises by its own images, so that a run depends on the
    number of processes a little.
    """
    if world_size() == 1 or device.type != "cuda":
        return model
    return cast(_Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))


class _SharedModel(DistributedDataParallel):
    @property
    def priors(self) -> Any:
        """Those of the network inside."""
        return self.module.priors

    @property
    def activation(self) -> Any:
        """That of the network inside."""
        return self.module.activation


def shared(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with gradients that are averaged over all processes, which starts from the weights of rank 0."""
    if world_size() == 1:
        return network
    return _SharedModel(network, device_ids=[device.index] if device.type == "cuda" else None)


ON_DEVICE = ("cuda", "meta")
"""Devices whose loss is `device_sums`; "meta" has shapes and no numbers, and refuses whatever asks for one."""


def shared_losses(
    model: Any,
    images: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    of_matched: Callable[..., LossSums] | None = None,
) -> dict[str, Tensor]:
    """As `ssdlib.training.ssd_losses`, for a batch that the processes share.

    Each loss has the value of the whole batch, the same in every process, and the gradient of this process's images,
    times the number of processes: `shared` averages the gradients, and the loss of the whole batch is a sum.
    `of_matched` is for `device_sums`.
    """
    offsets, logits = model(images)
    sums = batch_sums(model, offsets, logits, targets, of_matched)
    positives = all_reduce_sum(sums.num_positives).clamp(min=1)
    parts = {"localization": sums.localization / positives, "confidence": sums.confidence / positives}
    if world_size() == 1:
        return parts
    scaled = {name: world_size() * part for name, part in parts.items()}
    return {name: scaled[name] + (all_reduce_sum(part) - scaled[name]).detach() for name, part in parts.items()}


def batch_sums(
    model: Any,
    offsets: Tensor,
    logits: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    of_matched: Callable[..., LossSums] | None = None,
) -> LossSums:
    """The losses of this process's images, by `device_sums` on a GPU, else by `ssdlib.loss.multibox_sums`."""
    if offsets.device.type in ON_DEVICE:
        padded = pad_targets(targets, logits.shape[-1], offsets.device)
        return device_sums(offsets, logits, padded, model.priors, activation=model.activation, of_matched=of_matched)
    return multibox_sums(offsets, logits, targets, model.priors, activation=model.activation)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all processes, the same in each; no gradient flows through it."""
    if world_size() == 1:
        return tensor
    summed = tensor.detach().clone()
    dist.all_reduce(summed)
    return summed


def from_first(value: _Item) -> _Item:
    """The value that rank 0 has, in every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def in_turn(read: Callable[[], _Item]) -> _Item:
    """What `read` gives, in every process: first in rank 0, so that the others find what it keeps in files."""
    if rank() == 0:
        try:
            return read()
        finally:
            barrier()
    barrier()
    return read()


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def share_of(length: int) -> range:
    """Which of `length` items are for this process: every item is for exactly one."""
    return range(rank(), length, world_size())


def gather(mine: list[_Item], length: int) -> list[_Item]:
    """Put the results of `share_of` together, in every process, in the order of the items.

    Args:
        mine: one result for each item of `share_of(length)`; CPU tensors inside.
        length: the number of all items.
    """
    if world_size() == 1:
        return mine
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, mine)
    return [parts[i % world_size()][i // world_size()] for i in range(length)]
