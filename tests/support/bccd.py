"""Where the blood-cell photographs (BCCD) are, for the tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BCCD_ROOT = Path(os.environ.get("SSDLIB_BCCD") or Path(__file__).parents[3] / "shared" / "data" / "bccd" / "BCCD")

needs_bccd = pytest.mark.skipif(
    not (BCCD_ROOT / "Annotations").is_dir(),
    reason=f"the blood cells are not at {BCCD_ROOT}: set SSDLIB_BCCD to the folder that holds Annotations",
)
