"""The environment in which every notebook runs: in the build, in the tests and when its outputs are saved."""

from __future__ import annotations

import os


def settle() -> None:
    """Give the kernels that this process starts the same beginning on every machine.

    This environment's Python before any other kernel; figures inline; one order of sets; two threads, because the
    number of threads decides in which order sums are made, and so the last digits.
    """
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("MPLBACKEND", None)
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ.setdefault("OMP_NUM_THREADS", "2")
