"""Every widget in JupyterLab: one notebook is run whole, then traits and page are seen to follow each other.

A key press or a click on the page must change a value that a later cell prints; putting that value back in a still
later cell must bring the page back to what it was.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page
from support.jupyterlab import running_lab

from ssdlib import widgets

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = [name for name in widgets.__all__ if hasattr(getattr(widgets, name), "_module")]
FIRST = """\
import json

import torch

from ssdlib import widgets
from ssdlib.book import recorded
from ssdlib.family.overfeat import OverFeat
from ssdlib.family.window_classifier import WindowClassifier
from ssdlib.zoo.checkpoint import demo_model
from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import prepare
from ssdlib.widgets.base import plain

dataset = VOCDataset(sample_root(), "test")
image, target = dataset[31]
width, height = dataset.size(31)
shares = {**target, "boxes": target["boxes"] / torch.tensor([width, height, width, height])}
model = demo_model()
with torch.no_grad():
    offsets, logits = model(prepare(image, 256)[None])
record = recorded("checkpoints")
answers = [{"text": text, "right": text == "0", "why": "Objects count from 1."} for text in "01"]
windows = OverFeat(WindowClassifier(model.backbone.stages[0][:5], 7, 64, model.mean, model.std))
"""
ARGUMENTS = {  # of the widgets that have no default for all of them
    "Flipbook": "[(image, 'a scene'), (255 - image, 'its negative')]",
    "GridExplorer": "image, target['boxes'], [dataset.classes[label - 1] for label in target['labels']]",
    "HardNegativeMiner": "image, shares, offsets, logits, model.priors, model.classes",
    "MatchingExplorer": "image, target['boxes'], [dataset.classes[label - 1] for label in target['labels']]",
    "Quiz": "[{'question': 'Which label has the background?', 'answers': answers}]",
    "TrainingPlayer": "record",
    "WindowExplorer": "windows, image / 255, dataset.classes",
}
CELLS = (  # for each widget, in this order
    "w_{name} = widgets.{name}({arguments})\n"
    "before_{name} = {{key: getattr(w_{name}, key) for key in w_{name}.state()}}\n"
    "w_{name}",
    "changed = {{k: plain(getattr(w_{name}, k)) for k, v in before_{name}.items() if getattr(w_{name}, k) != v}}\n"
    "print(json.dumps(changed))",
    "with w_{name}.hold_trait_notifications():\n"
    "    for key in changed:\n"
    "        setattr(w_{name}, key, before_{name}[key])",
)
# What is seen of a widget: its visible elements, without the sentence that follows a moment later, and its inputs.
SEEN = """(root) => {
    const copy = root.cloneNode(true);
    const all = [...copy.querySelectorAll("*")];
    root.querySelectorAll("*").forEach((one, i) => one.checkVisibility() || all[i].remove());
    copy.querySelectorAll("[role=status]").forEach((one) => one.remove());
    copy.querySelectorAll("[class='']").forEach((one) => one.removeAttribute("class"));
    copy.querySelectorAll(".ssd-stage").forEach((stage) => stage.removeAttribute("style")); // its width on the screen
    const inputs = [...root.querySelectorAll("input, select")].map((one) => [one.value, one.checked]);
    return JSON.stringify([copy.outerHTML, inputs]);
}"""
# Controls to try, and how to move each.
CONTROLS = (
    (".ssd-movable-box", "ArrowRight"),
    ("input[type=range]", "ArrowRight"),
    ("input[type=radio]:not(:checked)", "Space"),
    ("button:not(:disabled)", "Enter"),
)


@dataclass
class Notebook:
    """The notebook on the page of JupyterLab."""

    page: Page
    problems: list[str]

    def cell(self, name: str, number: int) -> int:
        return 1 + len(CELLS) * NAMES.index(name) + number

    def widget(self, name: str) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(self.cell(name, 0)).locator(".ssd-widget")

    def run(self, name: str, number: int) -> str:
        """Run one cell and give the text that it printed; an error in it fails the test."""
        self.page.evaluate(
            """async (index) => {
                window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
                await window.jupyterapp.commands.execute("notebook:run-cell");
            }""",
            self.cell(name, number),
        )
        return self.printed(name, number)

    def printed(self, name: str, number: int) -> str:
        """The text that a cell has printed."""
        outputs = self.page.evaluate(
            "(index) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.toJSON()",
            self.cell(name, number),
        )
        errors = [output for output in outputs if output["output_type"] == "error"]
        assert not errors, f"{errors[0]['ename']}: {errors[0]['evalue']}"
        return "".join("".join(output.get("text", "")) for output in outputs)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab in an empty home of its own; the address of the notebook."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed, so that no widget can be tried in it")
    home = tmp_path_factory.mktemp("lab")
    sources = [cell.format(name=name, arguments=ARGUMENTS.get(name, "")) for name in NAMES for cell in CELLS]
    tags = {"tags": ["raises-exception"]}  # an error in the cell of one widget does not stop the others
    cells = [nbformat.v4.new_code_cell(source, metadata=tags) for source in (FIRST, *sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "all.ipynb")
    with running_lab(home) as open_:
        yield open_("all.ipynb")


@pytest.fixture(scope="module")
def notebook(lab: str, browser: Browser) -> Iterator[Notebook]:
    """The notebook in the browser, run from the first cell to the last; all but the server is out of reach."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    own = lab.split("/")[2]

    def route(request: Any) -> None:
        address = request.request.url
        if address.split("/")[2:3] == [own] or address.startswith(("data:", "blob:")):
            request.continue_()
        else:
            problems.append(f"asked for {address}")
            request.abort()

    context.route("**/*", route)
    page.on("pageerror", lambda error: problems.append(f"error on the page: {error}"))
    page.goto(lab)
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=60_000,
    )
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    yield Notebook(page, problems)
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_and_python_follow_each_other(notebook: Notebook, name: str) -> None:
    assert notebook.printed(name, 0) == ""
    widget = notebook.widget(name)
    widget.wait_for(timeout=15_000)
    assert widget.count() == 1
    before = widget.evaluate(SEEN)
    assert notebook.run(name, 1).strip() == "{}"

    for selector, key in CONTROLS:
        if widget.locator(selector).count():
            widget.locator(selector).first.focus()
            notebook.page.keyboard.press(key)
            if widget.evaluate(SEEN) != before:
                break
    else:
        pytest.fail("no control of the widget moves anything")
    changed: dict[str, Any] = {}
    for _ in range(20):  # what was moved twice is sent in two messages
        if changed := json.loads(notebook.run(name, 1)):
            break
        notebook.page.wait_for_timeout(100)
    assert changed, "the page moved, and no trait followed"

    notebook.run(name, 2)
    for _ in range(30):
        if (after := widget.evaluate(SEEN)) == before:
            break
        notebook.page.wait_for_timeout(100)
    assert after == before, f"{changed} was put back, and the page did not follow"
    assert notebook.run(name, 1).strip() == "{}"


def test_nothing_was_asked_of_other_machines_and_nothing_broke(notebook: Notebook) -> None:
    assert notebook.problems == []
    assert notebook.page.locator(".ssd-widget").count() == len(NAMES)
    assert notebook.page.locator(".ssd-widget-place").count() == 0  # the live view, not the page's HTML
