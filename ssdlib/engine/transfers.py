"""From the device to the host without waiting: tensors are sent off, and waited for only when they are needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sent(*tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Send tensors of one device to the host.

    Returns:
        A function that waits until they are there, not for what the device was asked to do since, and gives them.
    """
    on_host = tuple(tensor.detach().to("cpu", non_blocking=True) for tensor in tensors)  # a GPU's: into pinned memory
    gpu = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    arrived = None if gpu is None else torch.cuda.current_stream(gpu).record_event()

    def arrival() -> tuple[Tensor, ...]:
        if arrived is not None:
            arrived.synchronize()
        return on_host

    return arrival
