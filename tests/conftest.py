"""Settings that every test shares: reproducible properties, one thread, a fresh seed for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from support.browser import browser, open_page, show  # noqa: F401
from support.gpus import gpu  # noqa: F401
from support.small_disk import small_disk  # noqa: F401

# No deadline: a busy machine is no failure. Derandomised: the same examples on every machine and every day.
settings.register_profile(
    "ssdlib",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
# Other examples each time, and more of them: what the nightly job runs. A failure prints how to repeat it.
settings.register_profile(
    "random", settings.get_profile("ssdlib"), derandomize=False, max_examples=300, print_blob=True
)
settings.load_profile("random" if os.environ.get("SSDLIB_EXAMPLES") == "random" else "ssdlib")


# The runs that are killed are copies of the process that tests, and autograd refuses to work in a copy once an exported
# or compiled network has started its threads: first of all. Then what takes longest.
FIRST = [
    "test_run_folder.py",
    "test_validation.py",
    "test_site_accessible.py",
    "11_training.ipynb",
    "test_package.py",
    "test_benchmarks.py",
]


def pytest_configure() -> None:
    """Sum in the same order on every machine. Tensors this small gain nothing from a second thread; on a busy machine
    it makes them ten times slower.
    """
    torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m gpu` reads only modules that have such tests: a borrowed machine with a GPU lacks what others need."""
    wanted = config.option.markexpr != "gpu" or collection_path.suffix != ".py"
    return None if wanted or "gpu" in collection_path.read_text(encoding="utf-8") else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser, and begin with the modules that take long, the longest first: by themselves at the
    end, they would keep one process busy while the others wait.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    long = {item.path for item in items if item.path.suffix == ".ipynb" or item.get_closest_marker("slow")}
    items.sort(key=lambda item: (FIRST.index(item.path.name) if item.path.name in FIRST else 99, item.path not in long))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)
