"""Tests of the committed notebooks and of the tool that saves them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fingerprints
import nbformat
import notebooks
import numpy as np
import pytest
from nbformat import NotebookNode, v4
from PIL import Image
from support.commands import run_tool

TOOL = Path(notebooks.__file__)
BOOK = TOOL.parent.parent / "book"


def made_up(*sources: str) -> NotebookNode:
    """A notebook of code cells that were not run."""
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *(v4.new_code_cell(s) for s in sources)])


def with_output(output: NotebookNode) -> NotebookNode:
    """A notebook of one cell that was run and gave one output."""
    return notebooks.clean(v4.new_notebook(cells=[v4.new_code_cell("f()", execution_count=1, outputs=[output])]))


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.ipynb")), ids=lambda p: p.name)
def test_committed_notebook_is_clean(path: Path) -> None:
    assert notebooks.check(path) == []


@pytest.mark.slow
def test_running_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    notebook = made_up("import sys\nprint(1); sys.stdout.flush(); print(2)", "", "{'b', 'a', 'c'}")
    notebook.cells[1].metadata = {"tags": ["hide-input"], "execution": {"iopub.busy": "now"}, "ExecuteTime": {}}
    notebook.metadata = {"kernelspec": {"name": "other", "display_name": "mine"}, "widgets": {"state": {}}}
    nbformat.write(notebook, path)
    assert notebooks.check(path), "not clean before it was run"

    assert run_tool("run", path).returncode == 0
    first = path.read_bytes()
    assert notebooks.check(path) == []
    assert run_tool("run", path).returncode == 0
    assert path.read_bytes() == first

    saved = json.loads(first)
    assert [cell["id"] for cell in saved["cells"]] == ["cell-001", "cell-002", "cell-003"]
    assert saved["metadata"].keys() == {"kernelspec", "language_info", fingerprints.KEY}
    assert "version" not in saved["metadata"]["language_info"]
    assert saved["cells"][1]["metadata"] == {"tags": ["hide-input"]}
    assert saved["cells"][1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["1\n", "2\n"]}]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]


@pytest.mark.slow
def test_only_stale_notebooks_run_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(made_up("print(1)"), path)
    done = run_tool("run", "--stale", path)
    assert done.stdout == "a.ipynb: running, as it has no fingerprint\n"
    done = run_tool("run", "--stale", path)
    assert (done.returncode, done.stdout) == (0, "")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "print(2)"
    nbformat.write(notebook, path)
    done = run_tool("run", "--stale", path)
    assert done.stdout == "a.ipynb: running, as code cells changed\n"
    assert '"2\\n"' in path.read_text(encoding="utf-8")
    assert run_tool("check", "--stale", path).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print('careful', file=sys.stderr)", "wrote to stderr"),
        ("import os; print(os.getcwd())", "depends on the machine"),
        ("object()", "depends on the machine"),
    ],
)
def test_flawed_run_fails_and_leaves_the_file_alone(tmp_path: Path, source: str, complaint: str) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(made_up(source), path)
    before = path.read_bytes()
    done = run_tool("run", path)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (v4.new_output("error", ename="KeyError", evalue="'x'"), "raised KeyError"),
        (v4.new_output("stream", name="stderr", text="careful"), "wrote to stderr"),
        (v4.new_output("stream", name="stdout", text="saved in /home/somebody/runs"), "depends on the machine"),
        (v4.new_output("display_data", {"text/html": "<img src='/tmp/x.png'>"}), "depends on the machine"),
        (v4.new_output("execute_result", {"text/plain": "<Box at 0x7f12ab34>"}), "depends on the machine"),
        (v4.new_output("stream", name="stdout", text="x" * 600_000), "more than 500000"),
    ],
    ids=["error", "stderr", "path", "path in html", "address", "size"],
)
def test_flaws_are_named(output: NotebookNode, complaint: str) -> None:
    (found,) = notebooks.flaws(with_output(output))
    assert complaint in found


@pytest.mark.parametrize("text", ["1/2 of a/home/run", "https://example.org/home/", "{'/': 1}", "ratio 2/1"])
def test_ordinary_text_is_no_machine_path(text: str) -> None:
    assert notebooks.flaws(with_output(v4.new_output("stream", name="stdout", text=text))) == []


def test_encoded_pictures_are_not_searched_for_paths() -> None:
    data = "A" * 200 + "/tmp/" + "A" * 200
    assert (
        notebooks.flaws(
            with_output(v4.new_output("display_data", {"text/html": f"<img src='data:image/png;base64,{data}'>"}))
        )
        == []
    )


def test_order_of_running_and_missing_outputs_are_seen() -> None:
    notebook = notebooks.clean(made_up("1", "2"))
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1
    assert len(notebooks.flaws(notebook)) == 3


def test_live_view_of_a_widget_is_left_out_where_it_has_its_own_html() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "4f5e"}, "text/plain": "Slider"}
    with_html = with_output(v4.new_output("display_data", {**view, "text/html": "<div></div>"}))
    assert with_html.cells[0].outputs[0].data.keys() == {"text/plain", "text/html"}
    alone = with_output(v4.new_output("display_data", view))
    assert alone.cells[0].outputs[0].data.keys() == view.keys()


def test_glued_values_are_kept() -> None:
    glued = v4.new_output("display_data", {"application/papermill.record/text/plain": "0.5"})
    glued.metadata = {"scrapbook": {"mime_prefix": "application/papermill.record/", "name": "half"}}
    assert with_output(glued).cells[0].outputs == [glued]


def test_compact_png_keeps_few_colours_exactly_and_shrinks_many() -> None:
    few = np.zeros((64, 96, 4), dtype=np.uint8)
    few[..., 3] = 255
    for step in range(50):
        few[step, step:] = (5 * step, 114, 178 - step, 255)
    small = notebooks.compact_png(png(few))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(small)).convert("RGBA")), few)

    many = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    large = png(many)
    small = notebooks.compact_png(large)
    assert len(small) < 0.5 * len(large)
    assert Image.open(io.BytesIO(small)).size == (96, 64)


def test_compact_png_keeps_transparency() -> None:
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[8:24, 8:24] = (230, 159, 0, 255)
    kept = np.asarray(Image.open(io.BytesIO(notebooks.compact_png(png(pixels)))).convert("RGBA"))
    assert np.array_equal(kept[..., 3], pixels[..., 3])


@pytest.mark.slow
def test_notebook_survives_the_way_through_text(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    notebook = made_up("x = 1", "x + 1")
    notebook.cells.insert(1, v4.new_markdown_cell("Two cells of text in a row, $a^2$."))
    notebook.cells[2].metadata["tags"] = ["hide-input"]
    path.write_text(notebooks.dump(notebooks.clean(notebook)), encoding="utf-8")
    before = path.read_bytes()
    assert run_tool("to-md", path).returncode == 0
    path.unlink()
    assert run_tool("from-md", path.with_suffix(".md")).returncode == 0
    assert path.read_bytes() == before
