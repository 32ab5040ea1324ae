"""Packages that only some uses need: the core installs and imports without them."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import a package that an extra of ssdlib installs.

    Raises:
        ValueError: if it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"this needs the package {module.split('.')[0]}: pip install 'ssdlib[{extra}]'") from error
