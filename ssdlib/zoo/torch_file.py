"""Files of torch.save: read as data, never as a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssdlib.data.names import said


def read_torch_file(path: Path) -> Any:
    """What torch.save wrote: tensors, numbers, texts, and lists and dictionaries of them; on the CPU.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, or of another kind, or would have to be run; the message says why, without the
            name of the file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a file of anything raises when it is taken for a pickle
        raise ValueError(said(str(error).partition("\n")[0])) from error
