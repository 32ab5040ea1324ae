"""The widgets' scripts pass a linter and a type checker, whose versions tools/javascript pins."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.repository import ROOT

from ssdlib.widgets.base import STATIC

FOLDER = ROOT / "tools" / "javascript"


def npm(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tools() -> None:
    """Linter and type checker, installed once into a folder that git ignores."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node or npm to check the scripts with")
    locked = json.loads((FOLDER / "package-lock.json").read_text())["packages"][""]["devDependencies"]
    for name, version in locked.items():
        package = FOLDER / "node_modules" / name / "package.json"
        if not package.is_file() or json.loads(package.read_text())["version"] != version:
            break
    else:
        return
    installed = npm("ci", "--no-audit", "--no-fund", "--fetch-retries=1")
    if installed.returncode:
        pytest.skip(f"linter and type checker cannot be installed: {installed.stderr.strip().splitlines()[:1]}")


@pytest.mark.slow
def test_scripts_are_clean(tools: None) -> None:
    checked = npm("run", "check")
    assert checked.returncode == 0, checked.stdout[-4000:] + checked.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("const unused = 1;\nexport default {};\n", "noUnusedVariables"),
        ("export const f = () => iou([0, 0, 1, 1], 5);\n", "not assignable to parameter of type 'number[]'"),
        ("export const f = () => areaa([0, 0, 1, 1]);\n", "Cannot find name 'areaa'"),
        ("export function f(x) {\n" + "  x += 1;\n" * 81 + "  return x;\n}\n", "noExcessiveLinesPerFunction"),
    ],
)
def test_what_is_wrong_is_found(tools: None, tmp_path: Path, broken: str, complaint: str) -> None:
    scripts = tmp_path / "ssdlib" / "widgets" / "static"
    shutil.copytree(STATIC, scripts)
    for page in ("playground", "photograph", "progress", "toys"):
        shutil.copytree(ROOT / "book" / page, tmp_path / "book" / page)
    folder = tmp_path / "tools" / "javascript"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    (scripts / "broken.mjs").write_text(broken)
    checked = npm("run", "check", folder=folder)
    assert checked.returncode != 0
    assert complaint in checked.stdout + checked.stderr


def test_lock_file_names_no_host() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in packages.items() if name)
