"""The package as others get it: built as `python -m build` does, installed where the repository is not, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from support.repository import ROOT

import ssdlib

pytestmark = pytest.mark.slow
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, f'build_{sys.argv[1]}')(sys.argv[2]))"


def run(*command: str | Path, cwd: Path) -> str:
    """What a program prints, away from the repository and without the caller's paths."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "SSDLIB"))
    }
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an "sdist" or a "wheel" by the backend that pyproject.toml names, with no network."""
    return out / run(sys.executable, "-c", BUILD, kind, out, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def sdist(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    return build("sdist", folder / "source", folder)


@pytest.fixture(scope="module")
def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    return folder / "sdist" / f"ssdlib-{ssdlib.__version__}"


@pytest.fixture(scope="module")
def wheel(unpacked: Path, folder: Path) -> Path:
    """Built from the source distribution, as `python -m build` does."""
    return build("wheel", unpacked, folder)


def test_source_distribution_has_what_the_tests_of_the_package_need(unpacked: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    folders = ("ssdlib/", "data/sample/", "tools/", "tests/support/", *(f"tests/{x}/" for x in ("core", "data", "zoo")))
    wanted = [name for name in tracked if name.startswith(folders) and (ROOT / name).is_file()]
    assert len(wanted) > 200
    assert not [name for name in [*wanted, "tests/conftest.py", "README.md"] if not (unpacked / name).is_file()]
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/data/test_sample.py", cwd=unpacked)


def test_wheel_has_the_package_its_data_and_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"ssdlib-{ssdlib.__version__}.dist-info/METADATA").decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ssdlib", f"ssdlib-{ssdlib.__version__}.dist-info"}
    files = [p for p in (ROOT / "ssdlib").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert not [p for p in files if p.relative_to(ROOT).as_posix() not in names]
    assert "Description-Content-Type: text/markdown" in metadata
    assert "# SSD from scratch" in metadata
    assert "Requires-Python: >=3.10" in metadata


def test_a_detector_is_trained_by_the_installed_package(wheel: Path, folder: Path) -> None:
    """In an environment that has the libraries of this one, and ssdlib from the wheel alone."""
    home = folder / "environment"
    venv.create(home, with_pip=False)
    bin_ = home / ("Scripts" if os.name == "nt" else "bin")
    python = bin_ / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A line of a .pth file comes behind the environment's own packages; those .pth files in it are not read.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    where = run(python, "-c", "import ssdlib; print(ssdlib.__file__)", cwd=folder).strip()
    assert Path(where).is_relative_to(site)

    ssd = bin_ / "ssd"
    run(ssd, "data", "toy", "toy", "--train", 8, "--val", 2, "--test", 4, cwd=folder)  # type: ignore[arg-type]
    options = ["--iterations", "20", "--set", "batch_size=2", "--workers", "0", "--device", "cpu"]
    run(ssd, "train", "--data", "toy", "--out", "run", *options, cwd=folder)
    assert "mAP" in run(ssd, "evaluate", "run", cwd=folder)
    image = next((folder / "toy" / "JPEGImages").glob("test_*.jpg"))
    run(ssd, "detect", "run", image, "--out", "found.png", cwd=folder)
    assert (folder / "found.png").stat().st_size > 1000
    assert json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 20
