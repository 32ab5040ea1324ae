"""The pages without cells: their numbers are computed again, and what they name is there."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch

from ssdlib.boxes import iou
from ssdlib.coding import encode
from ssdlib.data import VOCDataset, sample_root
from ssdlib.detection import detect
from ssdlib.loss import multibox_loss
from ssdlib.matching import best_priors
from ssdlib.metrics import average_precision, evaluate, recall_precision
from ssdlib.model import prepare
from ssdlib.priors import SSD300_VOC
from ssdlib.zoo.checkpoint import demo_model

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"


def page(name: str) -> str:
    """Text of a page, with lines joined."""
    return re.sub(r"\s+", " ", (BOOK / f"{name}.md").read_text(encoding="utf-8"))


def glued(chapter: str) -> dict[str, str]:
    """What the cells of a chapter hand to its sentences."""
    cells = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    marked = [(output["metadata"]["scrapbook"], output["data"]) for output in outputs if output.get("metadata")]
    return {book["name"]: str(data[f"{book['mime_prefix']}text/plain"]).strip("'") for book, data in marked}


def table(text: str, head: str) -> torch.Tensor:
    """The numbers of the table whose head has this text, without its first column."""
    lines = text[text.index(head) :].splitlines()[2:]
    rows = [line.strip().strip("|").split("|")[1:] for line in lines[: [*map(str.strip, lines), ""].index("")]]
    return torch.tensor([[float(cell) for cell in row] for row in rows])


def test_numbers_of_the_faq() -> None:
    text = page("faq")
    said = re.search(
        r"mean AP is (0\.\d\d)\. If a prior only counts .* best class, it is (0\.\d\d)\. .*? it is (0\.\d\d)\.", text
    )
    assert said
    dataset, model = VOCDataset(sample_root(), "test"), demo_model()
    with torch.no_grad():
        offsets, logits = model(torch.stack([prepare(dataset[i][0], 256) for i in range(len(dataset))]))
    probabilities = logits.softmax(dim=-1)

    def mean_ap(kept: torch.Tensor) -> float:
        left = torch.where(kept, probabilities, 1e-12)  # what is not kept falls below every threshold
        left[..., 0] = 1 - left[..., 1:].sum(dim=-1)
        found = detect(offsets, left.log(), model.priors)
        for i, one in enumerate(found):
            width, height = dataset.size(i)
            one["boxes"] = one["boxes"] * torch.tensor([width, height, width, height])
        return evaluate(found, [dataset.target(i) for i in range(len(dataset))], num_classes=7).mean

    best = torch.nn.functional.one_hot(probabilities.argmax(dim=-1), 7).bool()
    best_object = torch.nn.functional.one_hot(probabilities[..., 1:].argmax(dim=-1) + 1, 7).bool()
    computed = [mean_ap(torch.ones_like(best)), mean_ap(best), mean_ap(best_object)]
    assert [float(number) for number in said.groups()] == pytest.approx(computed, abs=0.01)


def test_chapters_agree_how_much_larger_ssd300_is() -> None:
    text = (BOOK / "08_network.ipynb").read_text(encoding="utf-8")
    said = re.search(r"SSD300 has (\d+) times the parameters and (\d+) times the work", text)
    assert said
    full = glued("12_full_scale")
    assert (full["full_ratio"], full["full_more_work"]) == said.groups()


def test_answers_about_boxes_priors_and_offsets() -> None:
    text = page("teaching_answers")
    a, b = torch.tensor([[0.0, 0, 6, 4]]), torch.tensor([[4.0, 1, 8, 5]])
    by = torch.tensor([10.0, 5, 10, 5])
    assert iou(a, b).item() == pytest.approx(3 / 17)
    assert iou(a / by, b / by).item() == pytest.approx(3 / 17)
    assert r"3/17 \approx 0.176" in text

    ratios = tuple(SSD300_VOC.ratios[:6])
    recipe = dataclasses.replace(
        SSD300_VOC, name="exam", image_size=320, map_sizes=(40, 20, 10, 5, 3, 1), ratios=ratios
    )
    assert recipe.priors_per_cell == (4, 6, 6, 6, 4, 4)
    assert recipe.num_priors == 9590
    assert recipe.locate(7000) == (1, 5, 0, 0)
    assert "together $9590$" in text
    assert "row 5, column 0, the first shape" in text

    offsets = encode(torch.tensor([120.0, 90, 60, 30]), torch.tensor([100.0, 100, 40, 40]))
    said = re.search(r"/ 0.1 = (5)\$.*/ 0.1 = (-2.5)\$.*\\approx (2.03)\$.*\\approx (-1.44)\$", text)
    assert said
    assert [float(number) for number in said.groups()] == pytest.approx(offsets.tolist(), abs=0.005)


def test_answers_about_matching_and_nms() -> None:
    exam = (BOOK / "teaching.md").read_text(encoding="utf-8")
    overlaps = table(exam, "| overlap | prior 0 |")
    assert overlaps.shape == (3, 4)
    assert best_priors(overlaps).tolist() == [0, 1, 3]
    best, objects = overlaps.max(dim=0)
    assert [(k, int(objects[k])) for k in range(4) if best[k] >= 0.5] == [(0, 0), (2, 0)]
    naive = overlaps.argmax(dim=1).tolist()
    assert naive == [0, 1, 1]
    assert overlaps[1].max() < 0.5, "object 1 is lost"

    candidates = table(exam, "| candidate | score | A |")
    scores, theirs = candidates[:, 0], candidates[:, 1:]
    assert torch.equal(theirs, theirs.T)
    for max_overlap, expected in ((0.45, "ACD"), (0.55, "ABD")):
        kept: list[int] = []
        for k in scores.argsort(descending=True).tolist():
            if all(theirs[k, other] <= max_overlap for other in kept):
                kept.append(k)
        assert "".join("ABCD"[k] for k in kept) == expected
        assert f"Result {', '.join(expected)}" in page("teaching_answers")


def test_answers_about_loss_and_precision() -> None:
    text = page("teaching_answers")
    priors = torch.cat((torch.full((10, 4), 0.2), torch.full((90, 4), 0.2) + torch.tensor([0.5, 0.5, 0, 0])))
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.3, 0.3]]), "labels": torch.tensor([1])}
    loss = multibox_loss(torch.zeros(1, 100, 4), torch.zeros(1, 100, 5), [target], priors)["confidence"].item()
    assert loss == pytest.approx(4 * math.log(5))
    assert r"\approx 6.44" in text
    assert loss == pytest.approx(6.44, abs=0.005)

    recall, precision = recall_precision([1, 1, 0, 1, 0], 5)
    assert recall.tolist() == pytest.approx([0.2, 0.4, 0.4, 0.6, 0.6])
    assert precision.tolist() == pytest.approx([1, 1, 2 / 3, 0.75, 0.6])
    assert average_precision(recall, precision, "area") == pytest.approx(0.55)
    assert average_precision(recall, precision, "11point") == pytest.approx(0.591, abs=0.0005)
    assert "= 0.55$" in text
    assert r"\approx 0.591$" in text


def test_points_of_the_exam_add_up() -> None:
    exam, answers = page("teaching"), (BOOK / "teaching_answers.md").read_text(encoding="utf-8")
    asked = [int(points) for points in re.findall(r"\d+\. \((\d+) points\)", exam)]
    assert sum(asked) == int(re.search(r"; (\d+) points", exam)[1])  # type: ignore[index]
    given = re.split(r"^\d+\. ", answers, flags=re.MULTILINE)[1:]
    assert [sum(map(float, re.findall(r"\((\d(?:\.\d)?)\)", answer))) for answer in given] == asked


def test_answers_are_linked_for_teachers_only() -> None:
    linking = [path.name for path in BOOK.glob("*.*") if path.suffix in (".md", ".ipynb") and path.stem != "teaching"]
    linking = [name for name in linking if "teaching_answers" in (BOOK / name).read_text(encoding="utf-8")]
    assert linking == []
    assert "teaching_answers.md" in (BOOK / "teaching.md").read_text(encoding="utf-8")


def test_changes_that_a_check_should_catch_can_be_made() -> None:
    text = (BOOK / "testing.md").read_text(encoding="utf-8")
    rows = [
        line.strip("|").split("|") for line in text[text.index("| change | in |") :].splitlines()[2:] if "|" in line
    ]
    assert len(rows) >= 10
    for change, where, *_ in rows:
        old, file = re.search("`([^`]+)`", change), re.search("`([^`]+)`", where)
        if old and file and "at the top" not in change:
            assert old[1] in (ROOT / file[1]).read_text(encoding="utf-8"), f"{file[1]} has no {old[1]}"


def test_files_named_on_the_page_about_tests_exist() -> None:
    named = re.findall(r"`(tests/[\w*./]+|\.ci/run|ssdlib/[\w/.]+)`", (BOOK / "testing.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for name in named:
        assert list(ROOT.glob(name)), f"{name}: no such file"


def test_glossary_has_each_term_once_in_order() -> None:
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    entries = re.search(r"```\{glossary\}\n(.*?)```\n", text, flags=re.DOTALL)
    assert entries
    blocks = [block.splitlines() for block in entries[1].strip().split("\n\n")]
    terms = [[line for line in block if not line.startswith(" ")] for block in blocks]
    names = [name.lower() for group in terms for name in group]
    assert len(names) == len(set(names)) > 60
    first = [group[0].lower() for group in terms]
    assert first == sorted(first)
    for block in blocks:
        assert re.search(r"\{doc\}`\d\d_\w+`\.$", block[-1]), f"{block[0]}: its chapter is missing"
