"""A disk of 300 kB: a file system in memory where we may mount one, and else a limit on the size of a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = 300_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in which there is little space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform == "win32":
        pytest.skip("Windows has neither such mounts nor such limits")
    if _mounted(folder):
        yield folder
        subprocess.run(["umount", "--lazy", folder], check=True)
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, before[1]))  # Python ignores the signal, so that writing fails
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _mounted(folder: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE // 1000}k", "ssdlib-test", folder]
    return subprocess.run(command, capture_output=True).returncode == 0
