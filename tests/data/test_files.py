from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssdlib.data import files
from ssdlib.data.files import replaced, write_text


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
