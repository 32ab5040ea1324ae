"""Tests of the scaffolding: the layers of the package, its versions, the pages of the book, and what is committed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pybtex.database import parse_file
from support.repository import PYTHONS, ROOT

import ssdlib

PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")] if not path.match("_build/*"))

CHAPTERS: list[set[str]] = [
    {"boxes"},
    {"priors", "coding", "matching", "nms"},
    {"loss", "detection"},
    {"backbones"},
    {"model"},
    {"metrics", "training"},
]
"""The chapters' modules, lowest first. Each imports only modules of the sets before its own."""

CORE = set().union(*CHAPTERS)
MAY_IMPORT: dict[str, set[str]] = {
    "plotting": CORE | {"book"},
    "book": set(),
    "exercises": CORE,
    "family": CORE,
    "data": CORE,
    "zoo": CORE | {"data"},
    "engine": CORE | {"data", "zoo", "plotting"},
    "deploy": CORE | {"data", "zoo", "plotting"},
    "widgets": CORE | {"data", "zoo", "engine", "family", "deploy", "plotting", "book", "exercises"},
    "cli": CORE | {"data", "zoo", "engine", "family", "deploy", "plotting"},
    "__main__": {"cli"},
}
"""What the other parts of ssdlib may import."""

SUMMED_UP = {"cli", "exercises", "widgets"}
"""Packages that the API page shows as a whole."""

FOR_FEW = {
    "matplotlib": {"plotting", "book", "widgets", "cli"},
    "typer": {"cli"},
    "anywidget": {"widgets"},
    "ipywidgets": {"widgets"},
    "IPython": {"book", "widgets"},
    "urllib": {"data"},  # the network
}
"""Libraries that only some parts may import."""


def may_import(part: str) -> set[str]:
    """The parts that a part of ssdlib may import, besides itself."""
    for level, modules in enumerate(CHAPTERS):
        if part in modules:
            return set().union(*CHAPTERS[:level])
    return MAY_IMPORT[part]


def library_files() -> Iterator[tuple[str, Path]]:
    """All files of the package with the name of the module, or folder of modules, that they belong to."""
    for path in sorted((ROOT / "ssdlib").rglob("*.py")):
        name = path.relative_to(ROOT / "ssdlib").parts[0].removesuffix(".py")
        if name != "__init__":
            yield name, path


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*folder, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def chapters_of_toc() -> list[str]:
    """Paths of all pages in _toc.yml, in their order, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *pages]


def on_python(python: str) -> dict[str, str]:
    """What markers ask of an environment, for one version of Python on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    environment |= {"platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    return environment | {"implementation_name": "cpython", "platform_python_implementation": "CPython"}


def pins(python: str) -> dict[str, str]:
    """The versions of constraints.txt that hold for one version of Python on Linux."""
    environment = on_python(python)
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert name not in found, f"{name} is pinned twice for Python {python}"
                (specifier,) = requirement.specifier
                assert specifier.operator == "==", line
                found[name] = specifier.version
    return found


def requirements() -> list[Requirement]:
    """What requirements.txt and the package's metadata, with its extras, ask for."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return asked + [Requirement(line) for line in importlib.metadata.requires("ssdlib") or []]


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*f, id=f[1].relative_to(ROOT).as_posix()) for f in library_files()]
)
def test_imports_go_one_way(module: str, path: Path) -> None:
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "ssdlib" and rest and rest != "__version__":
            other = rest.split(".")[0]
            assert other in may_import(module) | {module}, f"{path.name} imports {name}, which {module} must not"
        if top in FOR_FEW:
            assert module in FOR_FEW[top], f"{path.name} imports {top}, which is for {FOR_FEW[top]}"


def test_the_shelf_shows_the_table_of_contents() -> None:
    shelf = {path.name.removesuffix(".py") for path in (ROOT / "ssdlib").iterdir() if path.name != "__pycache__"}
    assert shelf <= CORE | set(MAY_IMPORT) | {"__init__", "py.typed"}
    assert shelf >= CORE


def test_version_is_the_same_everywhere() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (declared,) = re.findall(r'^version = "(.+)"$', text, flags=re.MULTILINE)
    assert ssdlib.__version__ == declared == importlib.metadata.version("ssdlib")


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_everything_that_is_asked_for(python: str) -> None:
    pinned = pins(python)
    extras = ["", *(importlib.metadata.metadata("ssdlib").get_all("Provides-Extra") or [])]
    for requirement in requirements():
        name, marker = canonicalize_name(requirement.name), requirement.marker
        if marker and not any(marker.evaluate({**on_python(python), "extra": extra}) for extra in extras):
            continue  # there is no such package for this Python
        assert name in pinned, f"{requirement} has no pin for Python {python}: run `make constraints`"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} is pinned to {pinned[name]}"


@pytest.mark.parametrize("python", PYTHONS)
def test_torch_and_torchvision_belong_together(python: str) -> None:
    pinned = pins(python)
    torch, torchvision = pinned["torch"], pinned["torchvision"]
    assert "+" not in torch + torchvision, "a build for one machine, not the index's own"
    if importlib.metadata.version("torchvision").split("+")[0] != torchvision:
        pytest.skip(f"torchvision {torchvision} is not installed here, so its needs are not known")
    for line in importlib.metadata.requires("torchvision") or []:
        needs = Requirement(line)
        if needs.name == "torch":
            assert needs.specifier.contains(torch), f"torchvision {torchvision} needs {needs}, and {torch} is pinned"
            return
    pytest.fail(f"torchvision {torchvision} does not say which torch it needs")


def test_pages_of_the_table_of_contents_exist() -> None:
    for page in chapters_of_toc():
        assert [p for s in (".md", ".ipynb") if (p := ROOT / f"{page}{s}").is_file()], f"_toc.yml names {page}: no file"


def test_every_chapter_is_in_the_table_of_contents_in_order() -> None:
    there = sorted(f"book/{path.stem}" for path in (ROOT / "book").glob("*.ipynb"))
    assert [page for page in chapters_of_toc() if (ROOT / f"{page}.ipynb").is_file()] == there


def test_api_pages_show_every_module() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("api*.md"))
    shown = re.findall(r"automodule:: (\S+)", text)
    modules = [path.relative_to(ROOT).with_suffix("").parts for name, path in library_files() if name not in SUMMED_UP]
    shown = [name for name in shown if name.split(".")[1] not in SUMMED_UP]
    assert sorted(shown) == sorted(".".join(parts) for parts in modules if parts[-1][0] != "_")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_of_the_package_that_a_page_mentions_exist(page: Path) -> None:
    """Such as `ssdlib.engine.train`, wherever it stands."""
    for name in sorted(set(re.findall(r"\bssdlib(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8")))):
        assert pkgutil.resolve_name(name) is not None, name


def test_bibliography_is_complete_and_plausible() -> None:
    entries = parse_file(ROOT / "book" / "references.bib").entries
    assert entries
    for key, entry in entries.items():
        assert {"title", "year"} <= set(entry.fields), f"{key} lacks a field"
        assert entry.persons["author"], f"{key} has no author"
        assert re.fullmatch(rf"[a-z]+{entry.fields['year']}[a-z0-9]*", key), f"{key}: not author, year, word"
        if "eprint" in entry.fields:
            number = entry.fields["eprint"]
            assert re.fullmatch(r"\d{4}\.\d{4,5}", number), f"{key}: {number} is not an arXiv number"
            assert 2000 + int(number[:2]) <= int(entry.fields["year"]), f"{key} appeared before its preprint"


def committed_files() -> list[Path]:
    """All files that are, or will be, in the repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a place-holder": re.compile("TO" + "DO|FIX" + "ME|Not" + "Implemented" + r"Error"),
    "the host of a package registry": re.compile("py" + r"pi\.org|python" + r"hosted\.org|npm" + r"js\.(org|com)"),
    "a folder of this machine": re.compile(
        "|".join(re.escape(str(p)) + r"\b" for p in {ROOT, Path.home()} if len(p.parts) > 1)
    ),
    "a merge left half done": re.compile("^(<<<<<<<|>>>>>>>) ", flags=re.MULTILINE),
}


def test_nothing_forbidden_is_committed() -> None:
    found = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        text = re.sub(r"[A-Za-z0-9+/]{200,}", "", text)  # pictures in notebooks spell every word by chance
        found += [
            f"{path.relative_to(ROOT)}: {m.group()!r}, {what}" for what, p in FORBIDDEN.items() if (m := p.search(text))
        ]
    assert not found, "\n".join(found)


def test_committed_files_are_small() -> None:
    large = {
        path.relative_to(ROOT).as_posix(): size
        for path in committed_files()
        if (size := path.stat().st_size) > 1_500_000
    }
    assert not large


def test_ci_entry_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
