"""A GPU that is pretended: tensors of the device "cuda:0" whose numbers the CPU holds and computes.

What runs on a GPU runs on it, operation by operation, with the right numbers, on a machine that has none. It is strict.
Tensors of two devices in one operation are an error, as on a GPU. So is, within `without_waiting`, what makes the host
wait for a GPU: `torch.cuda.set_sync_debug_mode("error")`, and a copy to the GPU out of memory that is not pinned. And
what was sent to the host without waiting is garbage until its event was waited for.

It has no kernels of CUDA, neither their rounding nor their time; no streams beside one, no memory, graphs or compiler.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

GPU = torch.device("cuda", 0)
NAMES = ("cuda", "meta")  # of the device: PyTorch's core, which would look for a driver, takes it for "meta"

# Operations whose result, or the size of whose result, the host must read.
QUESTIONS = {
    "_local_scalar_dense": "item(), or the truth of a tensor",
    "is_nonzero": "the truth of a tensor",
    "equal": "torch.equal",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "unique_dim": "unique",
    "_unique": "unique",
    "_unique2": "unique",
    "unique_consecutive": "unique",
    "bincount": "bincount",
    "repeat_interleave": "repeat_interleave",
}
PICKS = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")

# What torch.autocast computes in half precision, of what a detector has.
HALVED = (torch.conv2d, F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm)


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    held: Tensor  # its numbers

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        with torch._C._DisableTorchDispatch(), torch.inference_mode(False):
            shell = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device="meta")
            made: OnGpu = Tensor._make_subclass(cls, shell, False, device_for_backend_keys=GPU)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    def tolist(self) -> Any:
        waits("tolist()")
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = OnGpu(self.held.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a plain tensor, as `torch.load` gives it with map_location="cpu"."""
        return self.held.detach().__reduce_ex__(protocol)


class Transfers:
    """What is on its way to the host, and whether anybody may wait for it."""

    def __init__(self) -> None:
        self.may_wait = True
        self.under_way: list[tuple[Tensor, Tensor]] = []

    def arrive(self, count: int) -> None:
        for target, numbers in self.under_way[:count]:
            target.copy_(numbers)
        del self.under_way[:count]


_transfers = Transfers()


def waits(what: str) -> None:
    """The host waits for the GPU, which has done all then; an error where it must not."""
    if not _transfers.may_wait:
        raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
    _transfers.arrive(len(_transfers.under_way))


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives on the GPU, or, if it has a tensor of the GPU and is to give one of the CPU, there."""
    name = func.overloadpacket.__name__
    if name in ("_to_copy", "copy_"):
        return transferred(func, args, dict(kwargs))
    leaves, spec = tree_flatten((args, kwargs))
    on_host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnGpu)]
    on_gpu = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, OnGpu)}
    if on_gpu:
        if any(tensor.dim() for tensor in on_host):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
        if name in QUESTIONS:
            waits(QUESTIONS[name])
        if name in PICKS and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            waits("a mask as an index")
    asked = kwargs.get("device")
    there = bool(on_gpu) if asked is None else torch.device(asked).type in NAMES
    result = func(*(call := tree_unflatten([_on_cpu(leaf) for leaf in leaves], spec))[0], **call[1])
    # What was changed in place is the tensor that was given.
    return tree_map_only(Tensor, lambda t: on_gpu[id(t)] if id(t) in on_gpu else OnGpu(t), result) if there else result


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        return leaf.held
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type in NAMES else leaf


def transferred(func: Any, args: Any, options: dict[str, Any]) -> Any:
    """A copy to another device, memory format or number format (`_to_copy`), or into a tensor (`copy_`)."""
    into = func.overloadpacket.__name__ == "copy_"
    source = args[1] if into else args[0]
    non_blocking = args[2] if len(args) > 2 else options.pop("non_blocking", False)
    from_gpu = isinstance(source, OnGpu)
    to = args[0].device if into else options.get("device")
    to_gpu = from_gpu if to is None else torch.device(to).type in NAMES
    if to_gpu and not from_gpu and not non_blocking:
        waits("a blocking copy to the GPU")
    if to_gpu and not from_gpu and not source.is_pinned():
        waits("a copy to the GPU out of memory that is not pinned")
    if from_gpu and not to_gpu and not non_blocking:
        waits("a blocking copy to the host")
    later = from_gpu and not to_gpu and non_blocking
    if into:
        copy = _on_cpu(args[0])
        numbers = _on_cpu(source).to(copy.dtype, copy=True).expand_as(copy)
    else:
        options.pop("pin_memory", None)
        numbers = copy = func(_on_cpu(source), **{name: _on_cpu(option) for name, option in options.items()})
    if later:
        _transfers.under_way.append((copy, numbers.clone()))
        copy.fill_(math.nan if copy.is_floating_point() else copy.dtype is torch.bool or torch.iinfo(copy.dtype).min)
        copy.pinned = True  # type: ignore[attr-defined]
    elif into:
        copy.copy_(numbers)
    return args[0] if into else OnGpu(copy) if to_gpu else copy


class _Operations(TorchDispatchMode):
    """Operations that have no tensor of the GPU and are to give one."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = NAMES if self.calls.of_the_gpu else NAMES[:1]
        asked = kwargs.get("device")
        if any(issubclass(each, OnGpu) for each in types) or (asked is not None and torch.device(asked).type in names):
            return computed(func, args, kwargs)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Functions with a tensor of the GPU. What else they need, such as the 0.0 of torch.where(mask, tensor, 0.0),
    PyTorch puts where it believes the tensor is. And torch.autocast, which would not know such tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_the_gpu = 0  # how many of them are being called, one by the other

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HALVED and torch.is_autocast_enabled("cuda"):
            kind = torch.get_autocast_dtype("cuda")

            def halved(tensor: Tensor) -> Tensor:
                return tensor.to(kind) if isinstance(tensor, OnGpu) and tensor.is_floating_point() else tensor

            args, kwargs = tree_map_only(Tensor, halved, (args, kwargs))
        given = [*args, *kwargs.values()]
        here = any(isinstance(part, OnGpu) for each in given for part in (each if type(each) is list else (each,)))
        self.of_the_gpu += here
        try:
            return func(*args, **kwargs)
        finally:
            self.of_the_gpu -= here


class _Event:
    def __init__(self) -> None:
        self.count = len(_transfers.under_way)

    def synchronize(self) -> None:
        _transfers.arrive(self.count)
        self.count = 0


class _Stream:
    def record_event(self) -> _Event:
        return _Event()


def _pinned(tensor: Tensor, device: Any = None) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within this block there is a GPU."""
    if torch.cuda.is_available():
        torch.cuda.init()  # a machine that has one is not to believe later that this was done
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in {
            "_lazy_init": None,
            "is_available": True,
            "is_bf16_supported": True,
            "is_current_stream_capturing": False,
            "device_count": 1,
            "current_device": 0,
            "set_device": None,
            "current_stream": _Stream(),
            "synchronize": None,
            "empty_cache": None,
            "get_device_capability": (9, 0),
            "get_device_name": "pretended GPU",
            "reset_peak_memory_stats": None,
            "max_memory_allocated": 0,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
        patch.setattr(torch.accelerator, "is_available", lambda: True)  # asks the DataLoader that pins memory
        patch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
        for name in ("current_device_index", "set_device_index"):
            patch.setattr(torch.accelerator, name, lambda *_: 0, raising=False)
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            patch.setattr(torch.optim.Optimizer, name, lambda _: None, raising=False)
        patch.setattr(torch.backends.cudnn, "enabled", False)  # else batch normalisation calls it by its name
        patch.setattr(Tensor, "pin_memory", _pinned)
        patch.setattr(Tensor, "is_pinned", lambda tensor: getattr(tensor, "pinned", False))
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") goes by way of the CPU, as it does
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with _Operations(calls := _Calls()), calls:
                yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
            torch._C._set_only_lift_cpu_tensors(lifted)
            _transfers.under_way.clear()


def without_waiting(work: Callable[[], Any]) -> Any:
    """Do the work; what would make the host wait for the GPU is an error."""
    _transfers.may_wait = False
    try:
        return work()
    finally:
        _transfers.may_wait = True
