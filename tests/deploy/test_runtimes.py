"""What the programs that run a network leave behind in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
