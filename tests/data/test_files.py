from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssdlib.data import files
from ssdlib.data.files import folder_aside, replaced, space_for, write_text


def test_writes_and_replaces_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    write_text(path, "first")
    write_text(path, "zweitens: über")
    assert path.read_text(encoding="utf-8") == "zweitens: über"
    assert [entry.name for entry in path.parent.iterdir()] == ["table.json"]


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_text(path, "old")

    def write_half() -> None:
        with replaced(path) as aside:
            aside.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.json"]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with replaced(tmp_path / "curve.png") as aside:
        assert aside.suffix == ".png"
        aside.write_bytes(b"")
    assert (tmp_path / "curve.png").exists()


def test_of_two_writers_the_last_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with replaced(path) as first:
        first.write_text("first, ")
        with replaced(path) as second:
            second.write_text("second, written in one go")
        assert path.read_text() == "second, written in one go"
        with first.open("a") as file:
            file.write("continued")
    assert path.read_text() == "first, continued"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.json"]


def test_what_is_synchronised_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised = []

    def fsync(descriptor: int) -> None:
        os.write(descriptor, b"")  # refused where the file was opened for reading, as Windows refuses to synchronise it
        synchronised.append(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "a")
    assert len(synchronised) == 1


@pytest.mark.parametrize("name", ["state.pt", "model", f"{'long' * 60}.json"])
def test_what_a_killed_writer_left_is_cleared_away_when_nobody_can_be_writing_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    killed = [replaced(path), replaced(path)]  # they never come to their end
    recent, old = (writer.__enter__() for writer in killed)
    for aside, age in ((recent, 10), (old, 7200)):
        aside.write_text("half")
        os.utime(aside, (aside.stat().st_atime, aside.stat().st_mtime - age))
    write_text(path, "whole")
    assert set(tmp_path.iterdir()) == {path, recent}
    assert recent.match(".*.part.*")  # as the folder of a run is cleaned, at once


def a_little_at_a_time(path: Path) -> None:
    with open(path, "wb") as file:
        for _ in range(400):
            file.write(bytes(1000))


def with_torch(path: Path) -> None:
    torch.save({"weights": torch.zeros(100_000)}, path)  # raises RuntimeError: "unexpected pos 576 vs 534"


def with_pillow(path: Path) -> None:
    Image.effect_noise((700, 700), 100).save(path)


@pytest.mark.parametrize("write", [a_little_at_a_time, with_torch, with_pillow])
def test_a_full_disk_is_named_and_nothing_half_stays(
    write: Callable[[Path], None], small_disk: Path, tmp_path: Path
) -> None:
    (small_disk / "a.png").write_bytes(b"old")
    with (
        pytest.raises(OSError, match=rf"^no space to write {small_disk / 'a.png'}$"),
        replaced(small_disk / "a.png") as aside,
    ):
        write(aside)
    assert (small_disk / "a.png").read_bytes() == b"old"
    assert [entry.name for entry in small_disk.iterdir()] == ["a.png"]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def fail(error: Exception) -> None:
        with replaced(tmp_path / "a") as aside:
            aside.write_text("half")
            raise error

    for error in (RuntimeError("out of luck"), OSError("no such thing"), PermissionError(1, "not allowed")):
        with pytest.raises(type(error), match=str(error.args[-1])):
            fail(error)
    assert list(tmp_path.iterdir()) == []


def test_space_for_names_what_is_written(small_disk: Path) -> None:
    with pytest.raises(OSError, match=rf"^no space to write {small_disk / 'log'}$"), space_for(small_disk / "log"):
        a_little_at_a_time(small_disk / "log")
    with pytest.raises(FileNotFoundError), space_for(small_disk / "log"):
        a_little_at_a_time(small_disk / "nowhere" / "log")


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Another process, which is at work on a folder aside of `set` for ever; its number, and that folder."""
    read, write = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            with folder_aside(tmp_path / "set") as folder:
                (folder / "half").mkdir()
                os.write(write, b"x")
                time.sleep(1000)
        finally:
            os._exit(1)
    assert os.read(read, 1) == b"x"
    (folder,) = tmp_path.iterdir()
    yield number, folder
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_folder_aside_that_a_killed_process_left_goes_and_no_other_one(
    tmp_path: Path, other_process: tuple[int, Path]
) -> None:
    number, theirs = other_process
    others = [tmp_path / name for name in (".set.part.", ".set.part.mine", "set", ".sett.part.x")]  # without our lock
    for other in others:
        other.mkdir()
    past = time.time() - 60
    os.utime(theirs / ".lock", (past, past))
    with folder_aside(tmp_path / "set") as ours:
        os.utime(ours / ".lock", (past, past))
        with folder_aside(tmp_path / "set"):  # in another thread, say
            assert ours.exists()
        assert theirs.exists()
    assert sorted(tmp_path.iterdir()) == sorted([theirs, *others])
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    (theirs / ".lock").touch()
    with folder_aside(tmp_path / "set"):
        assert theirs.exists()  # a second ago somebody made it, and may be about to lock it
    os.utime(theirs / ".lock", (past, past))
    with folder_aside(tmp_path / "set") as ours:
        assert sorted(tmp_path.iterdir()) == sorted([ours, *others])
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_without_locks_nothing_of_others_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".set.part.x"
    left.mkdir()
    (left / ".lock").touch()
    os.utime(left / ".lock", (1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(files, "lock", lambda _: None)
        with folder_aside(tmp_path / "set"):
            assert left.exists()
    with folder_aside(tmp_path / "set"):
        assert not left.exists()
