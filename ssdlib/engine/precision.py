"""Precision: the number format that is fast on a device, and the algorithms that cuDNN tries out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def precision_for(device: torch.device) -> str:
    """The number format that "auto" stands for on a device.

    It is bfloat16 where the device has circuits for it; else float16 on a GPU that has circuits for that (V100, T4:
    compute capability 7.0 to 7.5); else float32.
    """
    if has_bfloat16(device):
        return "bfloat16"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return "float16"
    return "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has circuits for bfloat16; where it only imitates it, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Private names, the only ones that tell: where a version of PyTorch lacks them, the answer is no.
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """On a GPU, let cuDNN try its algorithms on the first batch and keep the fastest: all batches have one size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
