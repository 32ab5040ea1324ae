from __future__ import annotations

from pathlib import Path

import pytest

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
