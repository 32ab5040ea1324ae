"""The GPU of a test: a pretended one on every machine, and the real one where there is one (`pytest -m gpu`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from support import pretended_gpu


class Gpu(NamedTuple):
    """A GPU, and a way to do work that must not make the host wait for it."""

    real: bool
    device: torch.device
    without_waiting: Callable[[Callable[[], Any]], Any]


REAL = pytest.param(
    True, id="real", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)


@pytest.fixture(params=[pytest.param(False, id="pretended"), REAL])
def gpu(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    if request.param:
        yield Gpu(True, torch.device("cuda"), without_waiting)
    else:
        with pretended_gpu.pretended_gpu():
            yield Gpu(False, pretended_gpu.GPU, pretended_gpu.without_waiting)


def without_waiting(work: Callable[[], Any]) -> Any:
    """Do the work; what makes the host wait for the GPU is an error."""
    with warnings.catch_warnings():  # PyTorch says at the first call that it does not notice all that waits
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
        torch.cuda.set_sync_debug_mode("error")
    try:
        return work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
