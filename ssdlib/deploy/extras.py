"""Packages that only some uses need: the core installs and imports without them."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str | None = None) -> Any:
    """Import a package that an extra of ssdlib installs; where there is no such extra, the package itself.

    Raises:
        ValueError: if it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        install = package if extra is None else f"'ssdlib[{extra}]'"
        raise ValueError(f"this needs the package {package}: pip install {install}") from error
