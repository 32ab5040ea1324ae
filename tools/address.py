"""Write the address of the book's repository, which _config.yml holds, into everything that names it.

    python tools/address.py                       write the address of _config.yml everywhere
    python tools/address.py https://HOST/OWNER/REPO   put it into _config.yml first
    python tools/address.py none                  take it out again: no button and no cell names an account
    python tools/address.py --check               only report what does not agree with _config.yml

It turns on the buttons of the pages (repository, edit, issue; Colab and Binder for an address on GitHub), and it is
in the first code cell of every chapter, which installs the package where it is missing, in CITATION.cff and in
pyproject.toml. A changed cell has no results to lose; the results of the other cells are kept.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import notebooks
from nbformat import v4

from ssdlib.data.files import write_text

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://[\w.-]+(/[\w.-]+)+")
BUTTONS = ("use_edit_page_button", "use_repository_button", "use_issues_button")
DOOR = """\
# In the book's own environment this does nothing. Elsewhere, as in Colab, it installs the book's package.
import importlib.util
import os

source = os.environ.get("SSDLIB_SOURCE", "{source}")
if importlib.util.find_spec("ssdlib") is not None:
    pass
elif source:
    %pip install --quiet "ssdlib[{extras}] @ {{source}}"
else:
    print("This chapter needs the book's package. In a clone of it, run")
    print("    pip install -e .[{extras}]")
    print("and then restart the kernel of this notebook.")"""
"""The first code cell of a chapter; SSDLIB_SOURCE names a clone on this machine instead, as file:///PATH."""
EXTRAS = {"15_tracks": "video,widgets", "16_runtimes": "onnx,openvino,widgets"}
"""What a chapter needs of the package's extras, where that is more than "widgets"."""


def address_in(config: str) -> str:
    """The address in the text of _config.yml; empty while no owner has set one."""
    found = re.search(r'^repository:\n  url: "([^"]*)"', config, re.MULTILINE)
    if found is None:
        raise ValueError('_config.yml must have the lines `repository:` and `  url: "..."`')
    return found[1]


def site_in(config: str) -> str:
    """The address of the built site: `baseurl` of _config.yml if it is there, else GitHub's; empty if unknown."""
    if found := re.search(r"^  baseurl: [\"']?(https?://[^\s\"']+)", config, re.MULTILINE):
        return found[1].rstrip("/")
    on_github = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?/?", address_in(config))
    if on_github is None:
        return ""
    host = f"{on_github[1].lower()}.github.io"
    return f"https://{host}" if on_github[2].lower() == host else f"https://{host}/{on_github[2]}"


def stamped_config(config: str, address: str) -> str:
    """The text of _config.yml with an address, and with the buttons that it makes possible."""
    config = re.sub(r'^(repository:\n  url: )"[^"]*"', rf'\1"{address}"', config, flags=re.MULTILINE)
    for button in BUTTONS:
        config = re.sub(rf"^(  {button}:) \w+", rf"\1 {str(bool(address)).lower()}", config, flags=re.MULTILINE)
    config = re.sub(r"^  (colab_url|binderhub_url): .*\n", "", config, flags=re.MULTILINE)
    if address.startswith("https://github.com/"):
        buttons = "  colab_url: https://colab.research.google.com\n  binderhub_url: https://mybinder.org\n"
        config = re.sub(r"^(launch_buttons:\n)", rf"\1{buttons}", config, flags=re.MULTILINE)
    return config


def stamped_citation(text: str, address: str) -> str:
    """The text of CITATION.cff with an address, or without one."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    return text.rstrip("\n") + "\n" + (f'repository-code: "{address}"\n' if address else "")


def stamped_project(text: str, address: str) -> str:
    """The text of pyproject.toml with an address, or without one."""
    text = re.sub(r'^\[project\.urls\]\nRepository = "[^"]*"\n\n', "", text, flags=re.MULTILINE)
    urls = f'[project.urls]\nRepository = "{address}"\n\n' if address else ""
    return text.replace("[project.scripts]\n", f"{urls}[project.scripts]\n")


def stamped_notebook(text: str, address: str, extras: str = "widgets") -> str:
    """The text of a notebook whose first code cell installs the package, with its extras, from an address."""
    notebook = nbformat.reads(text, as_version=4)
    source = DOOR.format(source=f"git+{address}" if address else "", extras=extras)
    doors = [cell for cell in notebook.cells if "SSDLIB_SOURCE" in cell.source]
    if doors:
        doors[0].source = source
    else:
        notebook.cells.insert(1, v4.new_code_cell(source, metadata={"tags": ["remove-cell"]}))
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, cell in enumerate(code, start=1):
            cell.execution_count = number  # the door has no outputs, and the others keep theirs
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number
    return notebooks.dump(notebooks.clean(notebook))


def stamped(root: Path, address: str | None = None) -> dict[Path, str]:
    """What the files that name the address should hold; `address` is that of _config.yml if not given."""
    config = (root / "_config.yml").read_text(encoding="utf-8")
    address = address_in(config) if address is None else address
    texts = {root / "_config.yml": stamped_config(config, address)}
    for name, stamp in (("CITATION.cff", stamped_citation), ("pyproject.toml", stamped_project)):
        texts[root / name] = stamp((root / name).read_text(encoding="utf-8"), address)
    for path in sorted((root / "book").glob("*.ipynb")):
        extras = EXTRAS.get(path.stem, "widgets")
        texts[path] = stamped_notebook(path.read_text(encoding="utf-8"), address, extras)
    return texts


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Do what the command line says; return 0, or 1 when --check found something, or 2 for a bad address."""
    if set(arguments) & {"-h", "--help"}:
        print(__doc__)
        return 0
    if arguments not in ([], ["--check"], ["none"]) and not (len(arguments) == 1 and ADDRESS.fullmatch(arguments[0])):
        print(f"not an address: {' '.join(arguments)}\n\n{__doc__}")
        return 2
    given = {"--check": None, "none": ""}.get(arguments[0], arguments[0].removesuffix(".git")) if arguments else None
    differ = {path: text for path, text in stamped(root, given).items() if path.read_text(encoding="utf-8") != text}
    for path, text in differ.items():
        print(f"{path.relative_to(root)}: {'does not agree with _config.yml' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            write_text(path, text)
    return 1 if differ and "--check" in arguments else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
