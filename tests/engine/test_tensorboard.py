"""The curves of a run on a disk that is full; the curves themselves are tested with the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_run import sample_images

from ssdlib.engine.tensorboard import tensorboard_log
from ssdlib.zoo.checkpoint import demo_model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own imports
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # its thread fails, too
def test_a_full_disk_is_named(small_disk: Path):
    pytest.importorskip("tensorboard")
    folder = small_disk / "events"
    add, model = tensorboard_log(folder, sample_images()), demo_model()

    def until_it_is_full() -> None:
        for step in range(1, 20):
            add(model, {"epoch": step, "step": step, "confidence": 1.0})

    with pytest.raises(OSError, match=f"^no space to write {folder}$"):
        until_it_is_full()
