"""A stand-in for a GPU that must not be waited for: operations whose outcome the host would have to know are errors.

On a GPU `torch.cuda.set_sync_debug_mode("error")` does this. Here the same is asked of each operation on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

QUESTIONS = (
    "_local_scalar_dense",  # .item(), .tolist(), bool(tensor), int(tensor)
    "is_nonzero",
    "equal",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "lift_fresh",  # torch.tensor([...]): numbers of the host, which a GPU is waited for to take
)


class NoQuestions(TorchDispatchMode):
    """Within this block an operation whose result, or the size of its result, must be read is an AssertionError.

    Args:
        but: names of questions that may be asked, as they are about what is on the host.
    """

    def __init__(self, *but: str) -> None:
        super().__init__()
        self.but = but

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        picks = name in ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")
        masks = [each for each in args[1] if isinstance(each, Tensor) and each.dtype is torch.bool] if picks else []
        if (name in QUESTIONS and name not in self.but) or masks:
            raise AssertionError(f"{func} asks the device")
        return func(*args, **(kwargs or {}))
