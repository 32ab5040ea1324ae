"""Precision and memory format: what is fastest on a device, and the algorithms that cuDNN tries out."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from tqdm import tqdm

from ssdlib.engine import processes
from ssdlib.engine.config import TrainConfig
from ssdlib.model import SSD
from ssdlib.training import MEMORY_FORMATS, autocast, in_memory

TRIED_IMAGES = 4  # of a step that is tried: enough that the convolutions take its time, as in a whole batch
_HOPELESS = 1.5  # times the best: not tried again
_LONG = 3.0  # seconds of a step that need no second try
_BETTER = 0.9  # of the time of what is usual: less than that is worth to leave it


def precision_for(device: torch.device) -> str:
    """The number format that a device has circuits for.

    It is bfloat16 where it can; else float16 on a GPU that has circuits for that (V100, T4: compute capability 7.0 to
    7.5); else float32.
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
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # also where the environment limits it
            return False
        # Private names, the only ones that tell: where a version of PyTorch lacks them, the answer is no.
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


def with_choices(
    config: TrainConfig, model: SSD, device: torch.device, say: bool = False
) -> tuple[TrainConfig, dict[str, float]]:
    """The configuration with what is fastest in place of a precision or a memory format "auto".

    On a CPU that is measured, as circuits say little: with bfloat16 one network trains in half the time, and another
    takes longer. On a GPU it is the device's format and channels_last.

    Args:
        config: of it, the batch size matters, too.
        model: the network, on the CPU; it is left as it is.
        device: where the network is to be computed.
        say: tell on stderr what was chosen.

    Returns:
        The configuration, the same in every process, and the seconds of processor time of each step that was tried,
        such as {"bfloat16, channels_last": 0.14, ...}; empty where nothing was to be measured.
    """
    if "auto" not in (config.precision, config.memory_format):
        return config, {}
    asked = config.precision
    precisions = [asked] if asked != "auto" else list(dict.fromkeys((precision_for(device), "float32")))
    formats = [config.memory_format] if config.memory_format != "auto" else list(MEMORY_FORMATS)
    options = [(precision, memory_format) for precision in precisions for memory_format in formats]
    seconds: dict[tuple[str, str], float] = {}
    if device.type == "cpu" and len(options) > 1:
        if processes.rank() == 0:
            seconds = step_seconds(model, config.batch_size, options)
        seconds = processes.from_first(seconds)  # noise must not let the processes choose differently
    best = usual = options[0]
    if seconds:
        # What is usual stays where another one wins by little: that may be chance, and the same command the same run.
        best = min(options, key=lambda option: seconds[option] * (_BETTER if option == usual else 1.0))
    if say:
        how = f"the fastest of {len(seconds)} on this CPU" if seconds else f"usual on this {device.type.upper()}"
        tqdm.write(f"precision {best[0]}, memory format {best[1]}: {how}", file=sys.stderr)
    config = replace(config, precision=best[0], memory_format=best[1])
    return config, {", ".join(option): round(taken, 4) for option, taken in seconds.items()}


def step_seconds(model: SSD, batch_size: int, options: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Processor time of a training step without its loss on this CPU.

    It is not the time on the clock, as other programs share the processor.

    Args:
        model: on the CPU; a copy of it is used.
        batch_size: images of a step; four are enough.
        options: precision and memory format of each step to try.

    Returns:
        Seconds: the least of up to three tries, one where the first is long or hopeless.
    """
    model, side = copy.deepcopy(model).train(), model.recipe.image_size
    images = torch.zeros(min(batch_size, TRIED_IMAGES), 3, side, side)
    seconds: dict[tuple[str, str], float] = {}
    for precision, memory_format in options:
        order = in_memory(memory_format)
        model, images = model.to(memory_format=order), images.to(memory_format=order)
        tries: list[float] = []
        while len(tries) < 3 and (not tries or tries[0] < min(_LONG, _HOPELESS * min(seconds.values(), default=_LONG))):
            started = time.process_time()
            with autocast(images.device, precision):
                offsets, logits = model(images)
            (offsets.float().square().mean() + logits.float().square().mean()).backward()
            tries.append(time.process_time() - started)
            model.zero_grad()
        seconds[precision, memory_format] = min(tries)
    return seconds


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """On a GPU, let cuDNN try its algorithms on the first batch and keep the fastest: all batches have one size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
