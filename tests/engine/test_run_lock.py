"""The lock of a run: two processes never train into one folder, and a lock of the dead holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_run import Images, quick, sample_images

from ssdlib.engine import run_lock, train
from ssdlib.engine.run_lock import LOCK, locked

pytestmark = pytest.mark.slow

HOLD = "import sys; from pathlib import Path; from ssdlib.engine.run_lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('locked', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that has the folder, until its standard input ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield other
        other.kill()


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images(2)


def test_a_run_that_is_going_on_is_left_alone(holder: subprocess.Popen[str], sample: Images, tmp_path: Path):
    out = tmp_path / "run"
    for resume in (True, False):
        with pytest.raises(BlockingIOError, match=rf"a run is going on in {out} \(process {holder.pid} on .+\)"):
            train(quick(iterations=1), sample, out, progress=False, resume=resume)
    assert [path.name for path in out.iterdir()] == [LOCK]
    holder.communicate("", timeout=60)  # it ends, and takes its lock and the empty folder away
    assert not out.exists()
    train(quick(iterations=1), sample, out, progress=False)
    assert (out / "model.safetensors").exists()
    assert not (out / LOCK).exists()


def test_the_lock_of_a_killed_process_is_stale(holder: subprocess.Popen[str], tmp_path: Path):
    out = tmp_path / "run"
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    assert (out / LOCK).read_text().startswith(f"process {holder.pid} on ")  # it could not clean up
    with locked(out):
        assert (out / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert list(out.iterdir()) == []


def test_a_lock_that_is_removed_while_we_wait_for_it_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its owner ended after we opened the file and before we locked it: another one could lock the name again."""
    real, calls = run_lock.lock, 0

    def late(descriptor: int) -> bool | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / LOCK).unlink()
        return real(descriptor)

    monkeypatch.setattr(run_lock, "lock", late)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert calls == 2


def test_only_folders_that_were_made_and_stayed_empty_are_removed(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "mine", tmp_path / "a" / "b"):
        with pytest.raises(ValueError, match="no"), locked(out):
            raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_text("kept")
    assert (tmp_path / "a" / "file").exists()
    assert not (tmp_path / "a" / "b").exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
