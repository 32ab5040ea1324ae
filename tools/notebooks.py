"""Run the book's notebooks and save them clean, or look whether they are.

    python tools/notebooks.py run [FILE ...]       run top to bottom, save with outputs (all of book/ by default)
    python tools/notebooks.py run --stale          only those with results that may have changed, and say why
    python tools/notebooks.py check [FILE ...]     report whatever is not as `run` leaves it
    python tools/notebooks.py to-md FILE.ipynb     write FILE.md beside it, for editing as text
    python tools/notebooks.py from-md FILE.md      write FILE.ipynb beside it, without outputs; then `run` it
    python tools/notebooks.py new FILE.ipynb TITLE start a chapter from tools/chapter.md; then `run` it

A clean notebook holds only what its reader needs: no times, no random ids, no widget state, no path of the machine
that ran it. So two runs with equal results give equal files, and a difference between commits is a real one. It also
holds the fingerprint of what its results depend on (book/_ext/fingerprints.py), so that a build need not run it.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book" / "_ext"))

import fingerprints
import kernel_environment

from ssdlib.data.files import write_text

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
TEMPLATE = ROOT / "tools" / "chapter.md"
MAX_BYTES = 500_000
CELL_TIMEOUT = 600  # seconds
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = {"title", "description", "myst", "mystnb", "html_meta", fingerprints.KEY}
KEPT_CELL_METADATA = {"tags", "mystnb", "name", "jupyter"}
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|tmp|private|var/folders|content)/|[A-Z]:\\+Users\\")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
BASE64_RUN = re.compile(r"[A-Za-z0-9+/=]{200,}")


class NotebookError(Exception):
    """A notebook that must not be saved or committed as it is."""


def clean(notebook: NotebookNode) -> NotebookNode:
    """Copy a notebook without anything that depends on when, where and in which editor it was run."""
    cells = []
    for cell in notebook.cells:
        if not cell.source.strip():
            continue
        kept = {k: v for k, v in cell.metadata.items() if k in KEPT_CELL_METADATA and v}
        new = {"cell_type": cell.cell_type, "id": f"cell-{len(cells) + 1:03d}", "metadata": kept, "source": cell.source}
        if cell.get("attachments"):
            new["attachments"] = cell.attachments
        if cell.cell_type == "code":
            new["execution_count"] = cell.get("execution_count")
            new["outputs"] = list(_clean_outputs(cell.get("outputs", [])))
        cells.append(new)
    metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    result = {"cells": cells, "metadata": {**metadata, **NOTEBOOK_METADATA}, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(result)


def _clean_outputs(outputs: Iterable[NotebookNode]) -> Iterator[dict[str, Any]]:
    """Join pieces of one stream, and drop the live view of a widget that also brings its own HTML."""
    held: dict[str, Any] | None = None  # a stream that may go on
    for output in outputs:
        if output.output_type == "stream":
            if held is not None and held["name"] == output.name:
                held["text"] += output.text
                continue
            if held is not None:
                yield held
            held = dict(output)
            continue
        if held is not None:
            yield held
            held = None
        new = dict(output)
        if "data" in new:
            live = WIDGET_VIEW in new["data"] and "text/html" in new["data"]
            new["data"] = {k: v for k, v in new["data"].items() if not (live and k == WIDGET_VIEW)}
        yield new
    if held is not None:
        yield held


def compact_png(data: bytes) -> bytes:
    """Save a PNG smaller: 256 colours where it is opaque, no comments; the original when that does not help."""
    image = Image.open(io.BytesIO(data))
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 255:
        image = image.convert("RGB")
    if image.mode == "RGB":
        image = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return min(buffer.getvalue(), data, key=len)


def _compact_images(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                small = compact_png(base64.b64decode(output["data"]["image/png"]))
                output["data"]["image/png"] = base64.b64encode(small).decode("ascii")


def dump(notebook: NotebookNode) -> str:
    """Serialize as Jupyter does, ending with one newline."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _texts(output: NotebookNode) -> Iterator[str]:
    """All text of an output in which a path or an address could stand, without encoded images."""
    if "text" in output:
        yield output.text
    for mime, content in output.get("data", {}).items():
        if not mime.startswith("image/") or mime == "image/svg+xml":
            yield BASE64_RUN.sub("", content if isinstance(content, str) else str(content))


def flaws(notebook: NotebookNode) -> list[str]:
    """List what is wrong with the results of a notebook, cell by cell; empty when nothing is."""
    found = []
    own = [str(p) for p in (Path.home(), ROOT, Path(tempfile.gettempdir())) if len(p.parts) > 1]
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        if cell.execution_count != number:
            found.append(f"code cell {number}: run as number {cell.execution_count}, not top to bottom")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"code cell {number}: raised {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"code cell {number}: wrote to stderr: {output.text.strip()[:200]!r}")
            for text in _texts(output):
                hits = [MACHINE_PATH.search(text), ADDRESS.search(text)]
                places = [m.start() for m in hits if m] + [text.find(p) for p in own if p in text]
                found += [f"code cell {number}: depends on the machine: {text[at : at + 60]!r}" for at in places[:1]]
    if code and not any(c.outputs for c in code):
        found.append("has no outputs: it was never run")
    size = len(dump(notebook).encode())
    if size > MAX_BYTES:
        found.append(f"{size} bytes, more than {MAX_BYTES}: make its figures smaller or fewer")
    return found


def check(path: Path) -> list[str]:
    """List how a saved notebook differs from a clean one; empty when it does not."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    found = flaws(notebook)
    if text != dump(clean(notebook)):
        found.append("not saved clean: run `make notebooks`")
    return found


def run(path: Path) -> None:
    """Run a notebook in this environment and save it clean; leave the file alone when it has flaws."""
    notebook = clean(nbformat.read(path, as_version=4))
    parts = fingerprints.state(notebook, ROOT)  # before it runs: what is changed meanwhile shall count as changed
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IPYTHONDIR"] = folder  # nobody's startup files and figure settings
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise NotebookError(str(error)) from error
    notebook = clean(notebook)
    if parts:
        notebook.metadata[fingerprints.KEY] = parts
    _compact_images(notebook)
    found = flaws(notebook)
    if found:
        raise NotebookError("\n".join(found))
    write_text(path, dump(notebook))


def new(path: Path, title: str) -> None:
    """Write a chapter with the headings, exercises and figures of the template, to be filled in."""
    if not re.fullmatch(r"\d\d_[a-z]\w*\.ipynb", path.name):
        raise NotebookError(f"a chapter is named like 13_transfer.ipynb, not {path.name}")
    if path.exists():
        raise NotebookError("is there already, and was left as it is")
    text = TEMPLATE.read_text(encoding="utf-8").replace("TITLE", title).replace("LABEL", path.stem[3:])
    write_text(path, dump(clean(jupytext.reads(text, fmt="md:myst"))))


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the number of notebooks with flaws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "check", "to-md", "from-md", "new"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--stale", action="store_true", help="run only those whose fingerprint does not hold")
    options = parser.parse_intermixed_args(arguments)  # run --stale FILE, too
    if options.stale and options.action != "run":
        parser.error("--stale is for run")
    title = ""
    if options.action == "new":
        if len(options.files) != 2:
            parser.error('new needs a file and a title: new book/13_transfer.ipynb "Transfer"')
        title = str(options.files.pop())
    if not options.files and options.action in {"to-md", "from-md"}:
        parser.error(f"{options.action} needs a file")
    kernel_environment.settle()
    bad = 0
    for path in options.files or sorted(BOOK.glob("*.ipynb")):
        try:
            if options.action == "run":
                why = fingerprints.changes(nbformat.read(path, as_version=4), ROOT) if options.stale else []
                if options.stale and not why:
                    continue
                print(f"{path.name}: running" + (f", as {', '.join(why)}" if why else ""), flush=True)
                run(path)
            elif options.action == "check" and (found := check(path)):
                raise NotebookError("\n".join(found))
            elif options.action == "to-md":
                write_text(path.with_suffix(".md"), jupytext.writes(clean(jupytext.read(path)), fmt="md:myst"))
            elif options.action == "new":
                new(path, title)
            elif options.action == "from-md":
                write_text(path.with_suffix(".ipynb"), dump(clean(jupytext.read(path, fmt="md:myst"))))
        except NotebookError as error:
            bad += 1
            print(f"{path}:\n{error}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
