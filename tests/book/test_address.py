"""The address of the repository: in one place, stamped everywhere from there, and no other account named anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import address
import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
MADE_UP = "https://github.com/someone-made-up/ssd-book"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the tool reads and writes."""
    (tmp_path / "book").mkdir()
    for path in (ROOT / "_config.yml", ROOT / "CITATION.cff", ROOT / "pyproject.toml", *CHAPTERS[:2]):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def texts(root: Path) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in root.rglob("*") if path.is_file()}


def test_everything_agrees_with_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert address.main(["--check"]) == 0, capsys.readouterr().out


def test_one_command_stamps_it_everywhere_and_takes_it_out_again(copy: Path) -> None:
    before = texts(copy)
    assert address.main([MADE_UP], copy) == 0
    config = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == MADE_UP
    assert config["html"]["use_edit_page_button"] is True
    assert config["html"]["home_page_in_navbar"] is True
    assert set(config["launch_buttons"]) == {"colab_url", "binderhub_url", "notebook_interface"}
    for path in (copy / "CITATION.cff", copy / "pyproject.toml", *(copy / "book").glob("*.ipynb")):
        assert path.read_text(encoding="utf-8").count(MADE_UP) == 1, path.name
    stamped = texts(copy)
    assert address.main([], copy) == 0
    assert texts(copy) == stamped
    assert address.main(["--check"], copy) == 0
    assert address.main(["none"], copy) == 0
    assert texts(copy) == before


def test_other_hosts_get_no_buttons_of_github(copy: Path) -> None:
    assert address.main(["https://git.example.org/group/ssd-book"], copy) == 0
    config = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))
    assert set(config["launch_buttons"]) == {"notebook_interface"}
    assert config["html"]["use_repository_button"] is True


@pytest.mark.parametrize("bad", ["http://example.org/a/b", "https://example.org", 'https://example.org/a"b', "a b", ""])
def test_bad_addresses_change_nothing(copy: Path, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = texts(copy)
    assert address.main([bad], copy) == 2
    assert "not an address" in capsys.readouterr().out
    assert texts(copy) == before


def test_check_names_the_file_that_was_forgotten(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "CITATION.cff"
    path.write_text(address.stamped_citation(path.read_text(encoding="utf-8"), MADE_UP), encoding="utf-8")
    assert address.main(["--check"], copy) == 1
    assert "CITATION.cff" in capsys.readouterr().out


def test_the_door_is_the_first_code_cell_of_every_chapter() -> None:
    for path in CHAPTERS:
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert "SSDLIB_SOURCE" in code[0].source, path.name
        assert sum("SSDLIB_SOURCE" in cell.source for cell in code) == 1
        assert code[0].metadata["tags"] == ["remove-cell"]
        assert code[0].outputs == []


def test_a_reader_without_the_package_is_told_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The door never stops a reader with an error, whether or not it knows the repository."""
    for url in ("", MADE_UP):
        asked: list[str] = []
        code = re.sub(
            r"^( *)%pip (.*)$",
            r"\1install(f'\2')",
            address.DOOR.format(source=url, extras="widgets"),
            flags=re.MULTILINE,
        )
        code = code.replace('importlib.util.find_spec("ssdlib")', "None").replace("SSDLIB_SOURCE", "NOT_SET")
        exec(code, {"install": asked.append})
        said = capsys.readouterr().out
        if url:
            assert asked == [f'install --quiet "ssdlib[widgets] @ {url}"']
        else:
            assert asked == []
            assert "pip install -e .[widgets]" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_boxes", "12_full_scale"])
def test_one_notebook_alone_runs_where_the_package_is_missing(name: str, tmp_path: Path) -> None:
    """As in Colab: other packages are there, `ssdlib` is not, and nothing of the repository but one file."""
    clone, room = tmp_path / "clone", tmp_path / "room"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(clone)], check=True)
    room.mkdir()
    shutil.copy(ROOT / "book" / f"{name}.ipynb", room)
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    # The packages of this environment, but not what it has in development: that is found by a .pth file of its own.
    Path(found.stdout.strip(), "others.pth").write_text(os.path.dirname(os.path.dirname(pytest.__file__)) + "\n")
    environment = {**os.environ, "SSDLIB_SOURCE": clone.as_uri(), "SSDLIB_CACHE": str(tmp_path / "cache")}
    # "0" is how pip takes this one from the environment: build with the setuptools that is there.
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1", "MPLBACKEND": "agg"}
    missing = subprocess.run([python, "-c", "import ssdlib"], capture_output=True, cwd=room)
    assert missing.returncode != 0, "ssdlib must not be there before"
    script = (
        "import sys, nbformat; from nbclient import NotebookClient; path = sys.argv[1];"
        "from jupyter_client.manager import KernelManager as M;"
        "m = M(); m.kernel_spec.argv[0] = sys.executable;"
        "NotebookClient(nbformat.read(path, as_version=4), km=m, timeout=300).execute()"
    )
    done = subprocess.run(
        [python, "-c", script, f"{name}.ipynb"], capture_output=True, text=True, cwd=room, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
