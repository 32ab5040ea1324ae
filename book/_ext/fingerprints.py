"""What the results of a chapter depend on, as checksums: by them a build knows which chapters it has to run.

A notebook is committed with its outputs, and holds in its metadata the fingerprint that was true when it was run. As
long as that is still true, running it again would give the same outputs, and the build takes those that are there.

A fingerprint is a checksum for each part: the code cells; each module of ssdlib from which the chapter takes something,
directly or through other modules; the data that these modules read; the pinned versions of what computes and draws; and
the environment of the kernels. Of Python files only the code counts, so that a better comment makes no chapter run.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

KEY = "fingerprint"
"""Where a notebook's metadata keeps it."""

RECORDS = "ssdlib/engine/records"
DATA = {
    "ssdlib/zoo/outputs": ("ssdlib.zoo.photographs",),
    "ssdlib/zoo/weights": ("ssdlib.zoo.checkpoint",),
    "ssdlib/family/weights": (
        "ssdlib.family.relatives.load_relative",
        "ssdlib.family.relatives.WEIGHTS",
        "ssdlib.family.segmentation.load_segmenter",
    ),
    RECORDS: ("ssdlib.book.recorded", "ssdlib.book.RECORDS"),
    "data/sample": ("ssdlib.data.sample",),
}
"""Folders of data, and what reads each: modules, packages (then any module in them), or names of a module. Of the
records count those that a chapter names, if it names all that it reads.
"""

NO_RESULT = ("ssdlib/widgets/static", "ssdlib/cli/templates", "ssdlib/py.typed")
"""Files that decide nothing in an output: the widgets' scripts and styles, which the build adds to the pages, and the
page of `ssd analyse`, which no chapter makes.
"""

PINS = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "safetensors",
    "matplotlib",
    "matplotlib-inline",
    "ipython",
    "ipykernel",
    "anywidget",
    "ipywidgets",
)
"""Packages that compute, draw or show, as constraints.txt names them."""

ENVIRONMENT = "book/_ext/kernel_environment.py"
SOURCE_IS_SHOWN = re.compile(r"\bgetsource|__doc__|\bhelp\(|--help|^\s*[\w.]+\?", re.MULTILINE)
COMMAND = re.compile(r"-m\W{1,6}ssdlib|^\s*!\s*ssd\b", re.MULTILINE)
DOOR = "SSDLIB_SOURCE"  # in the cell that installs the package elsewhere, and names the repository's address


def fingerprint(notebook: Mapping[str, Any], root: Path) -> dict[str, str]:
    """The parts that decide the outputs of a notebook, each with its checksum.

    Args:
        notebook: as nbformat or json reads it.
        root: folder that holds ssdlib, data and constraints.txt.
    """
    sources = [_text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code = [source.strip() for source in sources if DOOR not in source]
    together = "\n\0\n".join(code)
    modules, names = closure(code, root)
    show = bool(SOURCE_IS_SHOWN.search(together))
    parts = {"code cells": _sha(together.encode())}
    for module in sorted(modules):
        path = module_file(module, root)
        assert path is not None
        parts[path.relative_to(root).as_posix()] = _code_sum(path.read_text(encoding="utf-8"), show)
    for folder, readers in DATA.items():
        if (root / folder).is_dir() and any(_takes(name, reader, modules) for name in names for reader in readers):
            wanted = records_named(code, modules, root) if folder == RECORDS else None
            if wanted is None:
                parts[folder] = _folder_sum(root / folder)
            else:
                files = (path for path in files_of(root / folder) if path.stem in wanted)
                parts |= {path.relative_to(root).as_posix(): _sha(path.read_bytes()) for path in files}
    parts |= pins(root)
    if (root / ENVIRONMENT).is_file():
        parts[ENVIRONMENT] = _code_sum((root / ENVIRONMENT).read_text(encoding="utf-8"), False)
    return parts


def records_named(code: Iterable[str], modules: Iterable[str], root: Path) -> set[str] | None:
    """The records that a chapter reads, where all of its `recorded("speed")` name them; None where one does not."""
    for module in modules:
        path = module_file(module, root)
        taken = imported(path.read_text(encoding="utf-8"), module) if path and module != "ssdlib.book" else ()
        if not {"ssdlib.book", "ssdlib.book.recorded", "ssdlib.book.RECORDS"}.isdisjoint(taken):
            return None  # it may read any
    together = "\n".join(code)
    names = re.findall(r"\brecorded\(\s*\"(\w+)\"\s*\)", together)
    imports = re.findall(r"^from ssdlib\.book import .*\brecorded\b", together, flags=re.MULTILINE)
    without_texts = re.sub(r"\"[^\"\n]*\"", "", together)
    mentioned = re.findall(r"\b(?:recorded|RECORDS)\b", without_texts)
    return set(names) if len(mentioned) == len(names) + len(imports) else None


def _takes(name: str, reader: str, modules: set[str]) -> bool:
    """Whether an import of `name` gets `reader`, or something of it, or the whole module in which it is."""
    return f"{name}.".startswith(f"{reader}.") or (name in modules and reader.startswith(f"{name}."))


def changes(notebook: Mapping[str, Any], root: Path) -> list[str]:
    """Why the outputs of a notebook may be wrong, as "ssdlib/matching.py changed"; empty if its fingerprint holds."""
    saved = notebook.get("metadata", {}).get(KEY)
    if not saved:
        return ["it has no fingerprint"]
    try:
        now = fingerprint(notebook, root)
    except (ImportError, SyntaxError) as error:
        return [f"its imports cannot be followed: {error}"]
    found = [f"{part} changed" for part in now if part in saved and saved[part] != now[part]]
    found += [f"{part} is new" for part in now if part not in saved]
    return found + [f"{part} is gone" for part in saved if part not in now]


def state(notebook: Mapping[str, Any], root: Path) -> dict[str, str]:
    """The fingerprint as it is now, by which a build knows that nothing changed since; empty if there is none."""
    try:
        return fingerprint(notebook, root)
    except (ImportError, SyntaxError):
        return {}


def closure(code: Iterable[str], root: Path) -> tuple[set[str], set[str]]:
    """Follow the imports of a chapter's cells through ssdlib, those inside of functions too.

    Raises:
        ImportError: if a name is neither a module nor in one, or a chapter imports the package as a whole.
        SyntaxError: if a cell or module is no Python.

    Returns:
        The modules that are reached, and all dotted names that are imported from them or on the way to them. A package
        that only passes names on (`from ssdlib.zoo import demo_model`) is looked through, to the module that has it.
    """
    modules: set[str] = set()
    names: set[str] = set()
    todo = [name for source in code for name in imported(source, "")]
    if "ssdlib" in todo:
        raise ImportError("`import ssdlib` does not say which parts the chapter needs; import them by name")
    if any(COMMAND.search(source) for source in code):
        todo.append("ssdlib.__main__")
    while todo:
        name = todo.pop()
        if name in names or name in ("ssdlib", "ssdlib.__version__"):  # of the package alone: a number, no result
            continue
        names.add(name)
        module = name if module_file(name, root) is not None else name.rpartition(".")[0]
        path = module_file(module, root)
        if path is None:
            raise ModuleNotFoundError(f"a chapter needs {name}, and there is no such module in {root}")
        source = path.read_text(encoding="utf-8")
        is_package = path.name == "__init__.py"
        passed_on = _passed_on(source) if is_package and name != module else None
        if passed_on is not None:
            if name.rpartition(".")[2] not in passed_on:
                raise ImportError(f"a chapter needs {name}, and {module} has no such name")
            todo.append(passed_on[name.rpartition(".")[2]])
        elif module not in modules:
            modules.add(module)
            todo += imported(source, module if is_package else module.rpartition(".")[0])
            todo += [package for package in _packages(module) if _does_something(package, root)]
    return modules, names


def _packages(module: str) -> list[str]:
    """The packages that a module is in, which Python runs before it."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _does_something(package: str, root: Path) -> bool:
    path = module_file(package, root)
    return path is not None and _passed_on(path.read_text(encoding="utf-8")) is None


@cache
def imported(source: str, package: str) -> tuple[str, ...]:
    """The dotted names of ssdlib that code imports.

    Args:
        source: the code of a module, or of a cell, in which lines such as `%pip install` may stand.
        package: that the module is in, for its relative imports; empty for a cell.

    Raises:
        SyntaxError: if it is no Python otherwise.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        if package:
            raise
        tree = ast.parse(re.sub(r"^(\s*)(?:[%!]|[\w.]+\?).*$", r"\1pass", source, flags=re.MULTILINE))
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            found += [module if alias.name == "*" else f"{module}.{alias.name}" for alias in node.names]
    return tuple(name for name in found if name.partition(".")[0] == "ssdlib")


def module_file(name: str, root: Path) -> Path | None:
    """The file of a module or package under `root`; None where there is none."""
    path = root.joinpath(*name.split("."))
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None


def pins(root: Path) -> dict[str, str]:
    """The versions that constraints.txt pins, for each package of `PINS`; several where they depend on the Python."""
    path = root / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found: dict[str, list[str]] = {}
    for line in lines:
        name, equals, version = line.partition("==")
        if equals and name.strip().lower() in PINS:
            found.setdefault(f"version of {name.strip().lower()}", []).append(version.strip())
    return {name: ", ".join(versions) for name, versions in sorted(found.items())}


def code_only(source: str) -> str:
    """Python code without comments, docstrings, blank lines and trailing blanks, whichever Python reads it."""
    lines: list[str | None] = [*source.split("\n")]
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    cuts = [(token.start, token.end) for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            cuts.append(_characters(node.body[0], source.split("\n")))
    for (row, column), (last_row, last_column) in sorted(cuts, reverse=True):
        lines[row - 1] = (lines[row - 1] or "")[:column] + (lines[last_row - 1] or "")[last_column:]
        lines[row:last_row] = [None] * (last_row - row)
    ends = {row for (row, _), _ in cuts}
    ends |= {token.start[0] for token in tokens if token.type in (tokenize.NL, tokenize.NEWLINE)}  # not inside a string
    kept = (line.rstrip() if row in ends and line else line for row, line in enumerate(lines, start=1))
    return "\n".join(line for row, line in enumerate(kept, start=1) if line or (line == "" and row not in ends))


def _characters(node: ast.stmt, lines: list[str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and end of a statement as (row, column) in characters; ast counts the bytes of UTF-8."""
    places = ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
    start, end = ((row, len(lines[row - 1].encode()[:column].decode())) for row, column in places)
    return start, end


@cache
def _passed_on(source: str) -> dict[str, str] | None:
    """What a package's __init__.py passes on, name -> where it is from; None if its code does more than that."""
    passed: dict[str, str] = {}
    for statement in ast.parse(source).body:
        module = (statement.module or "") if isinstance(statement, ast.ImportFrom) else ""
        if module.startswith("ssdlib."):
            passed |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in statement.names}
        elif not (module == "__future__" or _is_text(statement) or _sets(statement) <= {"__all__", "__version__"}):
            return None
    return passed


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _sets(statement: ast.stmt) -> set[str]:
    """The names to which a statement gives a value; for any other statement a name that there is not."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)} or {""}


@cache
def _code_sum(source: str, whole: bool) -> str:
    """Checksum of a Python file: of its code, or of its whole text where a chapter shows that."""
    return _sha((source if whole else code_only(source)).encode())


def _folder_sum(folder: Path) -> str:
    """Checksum of the names and contents of all files of a folder."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def files_of(folder: Path) -> Iterator[Path]:
    """All files under a folder, in a fixed order, without what Python compiled."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
