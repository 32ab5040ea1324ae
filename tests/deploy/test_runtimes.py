"""The programs that run a network: for how many images, what they give, and what they leave behind in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlib.deploy import runtimes

PROGRAM = """
import gc, os, signal, sys
import numpy as np, openvino
from openvino import opset13
from ssdlib.deploy.runtimes import openvino_runtime

given = opset13.parameter([1, 3], np.float32)
openvino.save_model(openvino.Model([opset13.relu(given)], [given]), sys.argv[1])
first, second = openvino_runtime(sys.argv[1]), openvino_runtime(sys.argv[1])
print(second(np.full((1, 3), -1, np.float32))[0])
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_after_openvino_is_handled(tmp_path: Path):
    """As of the keyboard, of an alarm, of a loader's process. Two cores of OpenVINO, deleted in the order in which they
    were made, end the process at its next signal.
    """
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model.xml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "handled"), done.stderr[-2000:]


def test_openvino_is_compiled_for_the_first_number_of_images_and_once_for_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    openvino = pytest.importorskip("openvino")
    from openvino import opset13

    given = opset13.parameter([-1, 3], np.float32)
    file = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([opset13.relu(given)], [given]), file)
    compile_it, shapes = runtimes.openvino_model, []

    def noted(path: Any, threads: int, shape: Any, **settings: Any) -> Any:
        shapes.append(shape)
        return compile_it(path, threads, shape, **settings)

    monkeypatch.setattr(runtimes, "openvino_model", noted)
    run = runtimes.openvino_runtime(file)
    images = np.arange(-9, 9, dtype=np.float32).reshape(6, 3)
    results = []
    for count in (2, 1, 2, 6, 1):
        batch = images[-count:].copy()
        results.append((run(batch)[0], batch.clip(0)))
        batch[:] = -1  # what came out is a copy, also of what was given without one
    for found, wanted in results:  # and no later call changes it
        np.testing.assert_array_equal(found, wanted)
    backwards = images[::-1, ::-1]
    backwards.flags.writeable = False
    np.testing.assert_array_equal(run(backwards)[0], backwards.clip(0))
    assert shapes == [(2, 3), None]
