"""The state of a run that is read from a file: judged before any of it reaches the network or its optimizer.

A tensor of another shape than its parameter would be read and written beyond its end by the optimizer's fused step, and
a field that nobody expects would become an attribute of the schedule. So nothing of a file is taken over as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssdlib.data.names import shown
from ssdlib.training import TrainState
from ssdlib.zoo.description import is_number

MOST_ENTRIES = 100_000  # some hundred tensors, each with three of the optimizer's
SCALER = ("scale", "_growth_tracker")  # what changes in a gradient scaler
MOMENTS = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}


def checksum(saved: Any) -> str:
    """A text that is another one for another state: SHA-256 of all numbers, texts and names in it, in their order.

    Raises:
        ValueError: if this is nothing that `run_folder.save_state` writes.
    """
    digest, waiting, entries = hashlib.sha256(), [saved], 0
    while waiting:  # no recursion and a limit, as a file can hold a list that holds itself
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.numel() * value.itemsize > value.untyped_storage().nbytes():
                raise ValueError("a tensor in it has fewer numbers than it claims")
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            flat = value.detach().cpu().contiguous()
            flat = flat.as_strided((flat.numel(),), (1,))  # one number may come with any stride
            digest.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(value, dict | list | tuple):
            entries += len(value)
            if entries > MOST_ENTRIES:
                raise ValueError(f"it has more than {MOST_ENTRIES} entries")
            digest.update(f"{'dict' if isinstance(value, dict) else 'list'} {len(value)} ".encode())
            items = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
            waiting.extend(reversed(items))
        else:
            digest.update(f"{value!a} ".encode())
    return digest.hexdigest()


def checked_tensors(found: Any, expected: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a network, copied.

    Raises:
        ValueError: if one is missing, too many, of another shape or type than expected, or not finite.
    """
    mapping = _mapping(found, set(expected), where)
    return {name: _like(mapping[name], tensor, f"{where}.{name}") for name, tensor in expected.items()}


def checked_optimizer(found: Any, state: TrainState, step: int) -> dict[int, dict[str, Tensor]]:
    """What the optimizer remembers of each parameter, by the parameter's number, copied; its groups are not read.

    Raises:
        ValueError: if it is not what this optimizer remembers of these parameters after `step` steps.
    """
    skips = state.scaler is not None  # the optimizer may have done fewer steps, or none at all
    if skips and found == {}:
        return {}
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    kind = type(state.optimizer).__name__
    wanted = MOMENTS[kind] if step and (kind != "SGD" or state.optimizer.param_groups[0]["momentum"]) else set()
    moments = _mapping(found, set(range(len(parameters))) if wanted else set(), "optimizer")
    checked = {}
    for number, parameter in enumerate(parameters if wanted else []):
        where = f"optimizer.{number}"
        entry = _mapping(moments[number], wanted, where)
        checked[number] = {
            name: _like(entry[name], torch.zeros(()) if name == "step" else parameter, f"{where}.{name}")
            for name in entry
        }
        done = float(checked[number]["step"]) if "step" in wanted else step
        if done != step and not (skips and 0 <= done < step):
            raise ValueError(f"{where}.step is {done}, and the run has done {step} steps")
        if "exp_avg_sq" in wanted and bool((checked[number]["exp_avg_sq"] < 0).any()):
            raise ValueError(f"{where}.exp_avg_sq holds a mean of squares below 0")
    return checked


def checked_step(found: Any, iterations: int) -> int:
    """The number of steps done.

    Raises:
        ValueError: if it is no whole number from 0 to `iterations`.
    """
    if type(found) is not int or not 0 <= found <= iterations:
        raise ValueError(f"step must be a whole number from 0 to {iterations}, got {_kind(found)}")
    return found


def checked_numbers(found: Any, names: set[str], where: str) -> dict[str, float]:
    """Finite numbers that are not below 0, by their names.

    Raises:
        ValueError: if one is missing, too many, or no such number.
    """
    for name, value in _mapping(found, names, where).items():
        if not is_number(value) or not 0 <= value < 1e15:
            raise ValueError(f"{where}.{name} must be a number of at least 0, got {_kind(value)}")
    return dict(found)


def checked_scaler(found: Any, state: TrainState) -> dict[str, Any]:
    """What a gradient scaler is to be loaded with; nothing where the run has none.

    Raises:
        ValueError: if it is nothing that a scaler can have come to.
    """
    scaler = _mapping(found, set(SCALER) if state.scaler is not None else set(), "scaler")
    if scaler:
        scale, grown = (scaler[name] for name in SCALER)
        if not is_number(scale) or not 0 < scale < 2**128:
            raise ValueError(f"scaler.scale must be a number above 0, got {_kind(scale)}")
        if type(grown) is not int or not 0 <= grown < 2**31:
            raise ValueError(f"scaler._growth_tracker must be a whole number, got {_kind(grown)}")
    return dict(scaler)


def checked_random(found: Any) -> Tensor:
    """The state of PyTorch's random numbers.

    Raises:
        ValueError: if it is none.
    """
    now = torch.get_rng_state()
    copy = _like(found, now, "random")
    try:
        torch.Generator().set_state(copy)
    except RuntimeError as error:
        raise ValueError(f"random is no state of random numbers: {str(error).splitlines()[0]}") from error
    return copy


def _mapping(found: Any, names: set[Any], where: str) -> Mapping[Any, Any]:
    if not isinstance(found, Mapping):
        raise ValueError(f"{where} must be a mapping, got {_kind(found)}")
    if set(found) != names:
        missing, extra = names - set(found), set(found) - names
        which, name = ("lacks", min(missing, key=str)) if missing else ("has an entry too many,", min(extra, key=str))
        raise ValueError(f"{where} {which} {shown(name)}")
    return found


def _like(found: Any, expected: Tensor, where: str) -> Tensor:
    """A copy of a tensor that was found, with the layout in memory of the one that was expected."""
    if not isinstance(found, Tensor) or found.layout is not torch.strided or found.device.type != "cpu":
        raise ValueError(f"{where} must be a tensor, got {_kind(found)}")
    if found.shape != expected.shape or found.dtype is not expected.dtype:
        wanted = f"{expected.dtype} {tuple(expected.shape)}"
        raise ValueError(f"{where} must be {wanted}, got {found.dtype} {shown(tuple(found.shape))}")
    copy = torch.empty_like(expected, device="cpu", requires_grad=False).copy_(found.detach())
    if copy.is_floating_point() and not copy.isfinite().all():
        raise ValueError(f"{where} holds a number that is not finite")
    return copy


def _kind(found: Any) -> str:
    return f"a tensor {shown(tuple(found.shape))}" if isinstance(found, Tensor) else shown(found)
