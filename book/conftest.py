"""Settings for ``pytest --nbval book``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import kernel_environment
import pytest

kernel_environment.settle()


def pytest_configure(config: pytest.Config) -> None:
    """Compare outputs by the rules of nbval_sanitize.cfg, whoever calls pytest from wherever."""
    if getattr(config.option, "nbval_sanitize_with", "") is None:
        config.option.nbval_sanitize_with = str(Path(__file__).parent / "nbval_sanitize.cfg")
