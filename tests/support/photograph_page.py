"""What the page "Your photograph" runs on, for tests; where it cannot be had they are skipped, and say why."""

from __future__ import annotations

from pathlib import Path

import photograph_files
import pytest
from support.openimages import openimages


def detector_files() -> Path:
    """The folder with all files of the page, from the user's cache."""
    openimages()
    try:
        return photograph_files.files(progress=False)
    except OSError as error:
        pytest.skip(f"the runtime of the page cannot be had: {error}")
