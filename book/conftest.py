"""Settings for ``pytest --nbval book``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import kernel_environment

kernel_environment.settle()
