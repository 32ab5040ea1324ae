"""Figures: what is drawn, where and in which colour; and the numbers that chapters glue into their prose."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from ssdlib import book, plotting
from ssdlib.metrics import ConfusionMatrix, evaluate

HOSTILE = ("$\\frac{", "<b>cat</b>", "_dog", "[red]fish[/red]", "100 $")
DETECTION = {
    "boxes": torch.tensor([[10.0, 20, 60, 70], [80, 30, 120, 90]]),
    "labels": torch.tensor([1, 2]),
    "scores": torch.tensor([0.9, 0.3]),
}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    with matplotlib.rc_context():
        yield
    plt.close("all")


def patches(ax: plt.Axes) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


# ---- images and boxes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PIL", "uint8", "float", "array"])
def test_an_image_is_shown_in_its_own_pixels(kind: str):
    array = np.zeros((30, 40, 3), dtype=np.uint8)
    array[:, 20:] = 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    image = {"PIL": Image.fromarray(array), "uint8": tensor, "float": tensor / 255, "array": array}[kind]
    ax = plotting.show_image(image, title="half")
    (shown,) = ax.images
    assert shown.get_extent() == [0, 40, 30, 0]
    assert ax.get_xlim() == (0, 40)
    assert ax.get_ylim() == (30, 0)  # y downwards
    assert np.asarray(shown.get_array()).shape == (30, 40, 3)
    assert np.asarray(shown.get_array())[0, 0, 0] == 0
    assert np.asarray(shown.get_array())[0, 39, 0] == (1 if kind == "float" else 255)
    assert ax.get_title() == "half"


def test_boxes_are_where_they_say():
    ax = plt.figure().add_subplot()
    plotting.draw_boxes(ax, DETECTION["boxes"], labels=[1, 2], texts=["one", ""], linestyle="--")
    first, second = patches(ax)
    assert (first.get_xy(), first.get_width(), first.get_height()) == ((10, 20), 50, 50)
    assert (second.get_xy(), second.get_width(), second.get_height()) == ((80, 30), 40, 60)
    assert [to_hex(p.get_edgecolor()) for p in (first, second)] == [c.lower() for c in plotting.PALETTE[:2]]
    assert first.get_linestyle() == "--"
    assert [t.get_text() for t in ax.texts] == ["one"]  # an empty text is none


def test_one_colour_goes_before_labels_and_no_boxes_are_fine():
    ax = plt.figure().add_subplot()
    plotting.draw_boxes(ax, DETECTION["boxes"], labels=[1, 2], color="#123456")
    assert {to_hex(p.get_edgecolor()) for p in patches(ax)} == {"#123456"}
    plotting.draw_boxes(ax, torch.zeros(0, 4))
    plotting.draw_boxes(ax, torch.tensor([1.0, 2, 3, 4]))  # a single box
    assert len(patches(ax)) == 3


def test_colours():
    assert plotting.color_of(1) == plotting.PALETTE[0]
    assert plotting.color_of(len(plotting.PALETTE) + 2) == plotting.PALETTE[1]
    assert len(set(plotting.PALETTE)) == len(plotting.PALETTE)


def test_priors_and_grid_are_scaled_to_the_image():
    ax = plt.figure().add_subplot()
    plotting.draw_priors(ax, torch.tensor([[0.5, 0.5, 0.2, 0.4]]), width=200, height=100)
    (patch,) = patches(ax)
    box = (*patch.get_xy(), patch.get_width(), patch.get_height())
    assert box == pytest.approx((80, 30, 40, 40), abs=1e-4)
    plotting.draw_grid(ax, 4, width=200, height=100)
    columns, rows = ax.collections
    assert [path.vertices[0, 0] for path in columns.get_paths()] == [0, 50, 100, 150, 200]
    assert [path.vertices[0, 1] for path in rows.get_paths()] == [0, 25, 50, 75, 100]


def test_only_sure_detections_are_shown():
    image = torch.zeros(3, 100, 140, dtype=torch.uint8)
    ax = plotting.show_detections(image, DETECTION, ["cat", "dog"])
    assert [t.get_text() for t in ax.texts] == ["cat 0.90"]
    assert len(patches(ax)) == 1
    ax = plotting.show_detections(image, DETECTION, ["cat", "dog"], min_score=0.3)
    assert [t.get_text() for t in ax.texts] == ["cat 0.90", "dog 0.30"]


def test_images_in_rows():
    axes = plotting.show_images([torch.zeros(3, 8, 8)] * 5, list("abcde"), columns=3)
    assert [ax.get_title() for ax in axes] == list("abcde")
    figure = axes[0].get_figure()
    assert figure is not None
    assert len(figure.axes) == 6
    assert not figure.axes[5].axison


# ---- curves ----------------------------------------------------------------------------------------------------


def result_for(num_classes: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Each class has two objects, of which the first is found, and then a false positive."""
    count = num_classes - 1
    labels = torch.arange(1, num_classes)
    boxes = torch.tensor([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(count)])
    far = boxes + torch.tensor([0.0, 500, 0, 500])
    targets = [{"boxes": torch.cat((boxes, boxes + 50_000)), "labels": labels.repeat(2)}]
    targets[0]["difficult"] = torch.zeros(2 * count, dtype=torch.bool)
    scores = torch.cat((torch.full((count,), 0.9), torch.full((count,), 0.5)))
    return [{"boxes": torch.cat((boxes, far)), "labels": labels.repeat(2), "scores": scores}], targets


def test_a_precision_recall_curve_for_each_class():
    result = evaluate(*result_for(3), num_classes=3)
    ax = plotting.plot_precision_recall(result, ["cat", "dog"])
    assert len(ax.lines) == 2
    for line, color in zip(ax.lines, plotting.PALETTE, strict=False):
        assert np.asarray(line.get_xdata()).tolist() == [0.5, 0.5]
        assert np.asarray(line.get_ydata()).tolist() == [1.0, 0.5]
        assert line.get_color() == color
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["0.50  cat", "0.50  dog"]
    assert legend.get_title().get_text() == "AP at IoU 0.5 (area)"


def test_detections_that_do_not_count_are_no_part_of_the_curve():
    detections, targets = result_for(2)
    targets[0]["difficult"][0] = True
    (line,) = plotting.plot_precision_recall(evaluate(detections, targets, 2), ["cat"]).lines
    assert len(np.asarray(line.get_xdata())) == 1


def test_class_names_are_text_and_nothing_else(tmp_path: Path):
    """matplotlib reads $...$ as a formula and hides legend entries that begin with an underscore."""
    num_classes = len(HOSTILE) + 1
    ax = plotting.plot_precision_recall(evaluate(*result_for(num_classes), num_classes), HOSTILE)
    legend = ax.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len(HOSTILE)
    figure = ax.get_figure()
    assert figure is not None
    figure.savefig(tmp_path / "curves.png")
    twice = ["$\\frac{$", "$\\nonsense$"]  # two dollars: a formula, and a wrong one
    ax = plotting.plot_precision_recall(evaluate(*result_for(3), 3), twice)
    ax.get_figure().savefig(tmp_path / "curves.png")  # type: ignore[union-attr]
    ax = plotting.show_detections(torch.zeros(3, 100, 140), DETECTION, twice, min_score=0)
    ax.get_figure().savefig(tmp_path / "detections.png")  # type: ignore[union-attr]
    plotting.draw_on_image(Image.new("RGB", (140, 100)), DETECTION, twice, min_score=0)
    ax = plotting.show_image(torch.zeros(3, 100, 140), title=f"{twice[0]} {twice[1]}.jpg")
    ax.get_figure().savefig(tmp_path / "title.png")  # type: ignore[union-attr]
    assert ax.get_title() == "$\\frac{$ $\\nonsense$.jpg"


def test_the_log_of_a_run(tmp_path: Path):
    lines = [
        {"epoch": e, "step": 5 * e, "learning_rate": 0.1 / e, "localization": 2.0 / e, "confidence": 3.0 / e}
        for e in (1, 2, 3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses, rate = plotting.plot_log(tmp_path).axes
    assert [line.get_label() for line in losses.lines] == ["localization", "confidence"]
    for ax, name, line in [(losses, "localization", 0), (losses, "confidence", 1), (rate, "learning_rate", 0)]:
        assert np.asarray(ax.lines[line].get_xdata()).tolist() == [1, 2, 3]
        assert np.asarray(ax.lines[line].get_ydata()).tolist() == [entry[name] for entry in lines]
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        plotting.plot_log(tmp_path / "nowhere")


def test_book_style_sets_defaults():
    plotting.use_book_style()
    assert plt.rcParams["figure.constrained_layout.use"]
    assert plt.figure().add_subplot().spines["top"].get_visible() is False


# ---- pictures --------------------------------------------------------------------------------------------------


def changed(first: Image.Image, second: Image.Image) -> np.ndarray:
    return (np.asarray(first.convert("RGB")) != np.asarray(second.convert("RGB"))).any(axis=2)


def test_drawing_on_a_picture():
    image = Image.new("RGB", (140, 100), "white")
    before = image.copy()
    drawn = plotting.draw_on_image(image, DETECTION, ["cat", "dog"])
    assert drawn.size == image.size
    assert not changed(image, before).any()  # a copy
    difference = changed(drawn, image)
    assert difference[20, 10:60].all()  # the upper edge of the box that is sure enough
    assert drawn.getpixel((35, 70)) == tuple(int(plotting.PALETTE[0][i : i + 2], 16) for i in (1, 3, 5))
    assert not difference[:, 80:].any()  # nothing of the other one
    assert not difference[30:60, 20:50].any()  # the inside stays visible
    both = changed(plotting.draw_on_image(image, DETECTION, ["cat", "dog"], min_score=0.3), image)
    assert both[90, 80:120].all()
    none = plotting.draw_on_image(image, DETECTION, ["cat", "dog"], min_score=0.95)
    assert not changed(none, image).any()
    assert none is not image


def test_drawing_on_a_gray_picture_and_beyond_its_border():
    detection = {"boxes": torch.tensor([[-10.0, -10, 300, 300]]), "labels": torch.tensor([9]), "scores": torch.ones(1)}
    drawn = plotting.draw_on_image(Image.new("L", (50, 40)), detection, [str(i) for i in range(9)])
    assert drawn.mode == "RGB"
    assert drawn.size == (50, 40)


def test_tensors_become_pictures():
    tensor = torch.zeros(3, 5, 7, dtype=torch.uint8)
    tensor[0] = 200
    picture = plotting.to_pil(tensor)
    assert picture.size == (7, 5)
    assert picture.getpixel((6, 4)) == (200, 0, 0)
    assert plotting.to_pil(tensor / 255).getpixel((0, 0)) == (200, 0, 0)


# ---- measurements ----------------------------------------------------------------------------------------------


def test_a_confusion_matrix_says_every_count_in_its_cell():
    counts = np.array([[0, 5, 0], [3, 7, 1], [0, 2, 4]])  # background, cat, dog
    nothing = np.zeros(3, dtype=np.int64)
    ax = plotting.show_confusion(ConfusionMatrix(counts, nothing, nothing), ("cat", "$d$"))
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "7", (1, 0): "1", (2, 0): "3", (0, 1): "2", (1, 1): "4", (0, 2): "5"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["cat", "$d$", "missed"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "$d$", "background"]
    shades = ax.images[0].get_array()
    assert shades.sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert shades[1].tolist() == pytest.approx([2 / 6, 4 / 6, 0])


def test_growth_draws_every_point_of_both_sides():
    points = [{"size": 21, "ours": 0.002, "theirs": 0.01}, {"size": 81, "ours": 0.004, "theirs": 0.04}]
    ax = plotting.show_growth({"work": "detection", "what": "classes", "points": points})
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert lines.keys() == {"ssdlib", "torchvision"}
    assert lines["ssdlib"].get_xdata().tolist() == [21, 81]
    assert lines["ssdlib"].get_ydata().tolist() == pytest.approx([2, 4])
    assert lines["torchvision"].get_ydata().tolist() == pytest.approx([10, 40])
    alone = [{"size": 5, "ours": 1.0, "ours_peak": None}]
    ax = plotting.show_growth({"work": "evaluation", "what": "images", "points": alone})
    assert [line.get_label() for line in ax.get_lines()] == ["ssdlib"]


def test_ratios_are_bars_with_their_targets():
    ax = plotting.show_ratios(
        [{"work": "a", "ratio": 0.25, "target": 0.5}, {"work": "$b", "ratio": 1.5, "target": 0.6}]
    )
    assert [bar.get_width() for bar in ax.patches] == [0.25, 1.5]
    assert ax.get_lines()[0].get_xdata().tolist() == [0.5, 0.6]
    assert ax.get_xlim()[1] > 1.5
    ax.figure.canvas.draw()
    ax = plotting.show_ratios([{"work": "a number across the tick", "ratio": 0.27, "target": 0.3}])
    (label,) = [text for text in ax.texts if text.get_text() == "0.27"]
    assert label.get_position()[0] > 0.3


# ---- glue ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), ("8,732", "8,732"), ("1.00", "1.00"), (7, "7"), ("'", "'")]
)
def test_glue_is_a_record_that_the_book_collects(value: object, text: str, monkeypatch: pytest.MonkeyPatch):
    """MyST-NB looks for the prefix, strips it from the type, and reads the text as a Python literal."""
    shown: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(book, "display", lambda *data, **options: shown.append((data, options)))
    book.glue("boxes_iou_shifted", value)
    prefix = "application/papermill.record/"
    record = {"name": "boxes_iou_shifted", "mime_prefix": prefix}
    (((data,), options),) = shown
    assert options == {"raw": True, "metadata": {"scrapbook": record}}
    assert data.keys() == {f"{prefix}text/plain"}
    assert literal_eval(data[f"{prefix}text/plain"]) == text


def test_labels_can_be_read_on_every_colour():
    """Contrast of at least 4.5, which WCAG 2 asks of text."""
    for color in plotting.PALETTE:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
        contrast = 1.05 / (luminance + 0.05) if plotting._is_dark(color) else (luminance + 0.05) / 0.05
        assert contrast >= 4.5, color


def test_a_label_does_not_run_out_of_the_image():
    image = Image.new("RGB", (200, 100))
    detection = {"boxes": torch.tensor([[190.0, 60, 199, 90]]), "labels": torch.tensor([2]), "scores": torch.ones(1)}
    ours = changed(plotting.draw_on_image(image, detection, ["a", "long name"], min_score=0), image)
    assert ours[:58, :150].any()  # it begins well to the left of its box


def filled(drawn: Image.Image, color: str) -> int:
    """How many pixels have that colour."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(drawn) == channels).all(axis=2).sum())


def found(boxes: list[list[float]], labels: list[int]) -> dict[str, torch.Tensor]:
    scores = torch.linspace(0.9, 0.6, len(boxes))
    return {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "scores": scores}


def test_no_label_hides_another_one():
    image = Image.new("RGB", (200, 160))
    box = [20.0, 40, 180, 150]
    alone = [
        filled(plotting.draw_on_image(image, found([box], [k]), "abc"), plotting.PALETTE[k - 1]) for k in (1, 2, 3)
    ]
    drawn = plotting.draw_on_image(image, found([box] * 3, [1, 2, 3]), "abc")
    outline = 2 * 2 * (160 + 110)
    for color, before in zip(plotting.PALETTE, alone, strict=False):
        assert filled(drawn, color) > (before - outline) * 0.9 > 50  # the label; of the outlines one is seen


def test_a_label_that_finds_no_room_in_its_box_stays_at_its_corner():
    image, low = Image.new("RGB", (200, 160)), [20.0, 40, 180, 45]
    one = plotting.draw_on_image(image, found([low], [1]), "ab")
    two = plotting.draw_on_image(image, found([low, low], [1, 2]), "ab")
    assert not changed(one, two)[46:].any()  # nothing below the box


def test_labels_lie_on_the_boxes():
    """The left edge of the surer box goes through the label of the other one."""
    image, box, color = Image.new("RGB", (200, 160)), [20.0, 60, 180, 150], plotting.PALETTE[1]
    across = plotting.draw_on_image(image, found([[30.0, 5, 60, 150], box], [1, 2]), "ab")
    apart = plotting.draw_on_image(image, found([[150.0, 5, 190, 50], box], [1, 2]), "ab")
    label = (0, 30, 100, 58)
    assert filled(across.crop(label), color) == filled(apart.crop(label), color) > 50
