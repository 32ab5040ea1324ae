"""Plotting: images with boxes, priors, grids and curves, in one style and one palette for the whole book."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.metrics import IGNORED, ConfusionMatrix, Evaluation

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is kept for text and annotations.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")


def color_of(label: int) -> str:
    """The colour of a class (labels 1, 2, ...), of a feature map, or of anything else that is counted from 1."""
    return PALETTE[(label - 1) % len(PALETTE)]


def use_book_style() -> None:
    """Set matplotlib's defaults for the figures of the book: small, sharp, without needless ink.

    In a notebook, also the form of its figures: drawings, which are sharp at every size (`ssdlib.book`).
    """
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 110,
            "savefig.facecolor": "white",
            "axes.prop_cycle": plt.cycler(color=PALETTE[:6]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "font.size": 9,
        }
    )
    if "IPython" in sys.modules:
        from ssdlib.book import show_figures_sharp

        show_figures_sharp()


def show_image(image: Any, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Show an image in its own pixel coordinates: x from 0 to the width, y downwards from 0 to the height.

    Args:
        image: a PIL image, a tensor (3, H, W) of uint8 or of floats in 0..1, or an array (H, W, 3).
        ax: where to draw; a new figure if None.
        title: above the image, taken as it is: names of files and classes may hold what matplotlib reads as a formula.

    Returns:
        The axes, to draw boxes on.
    """
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    height, width = pixels.shape[:2]
    if ax is None:
        ax = plt.figure(figsize=(4.4, 4.4 * height / width)).add_subplot()
    # The extent puts the corner of the first pixel, not its centre, at (0, 0): boxes are measured from there.
    ax.imshow(pixels, extent=(0, width, height, 0))
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, parse_math=False)
    return ax


def draw_boxes(
    ax: Axes,
    boxes_xyxy: Tensor,
    labels: Sequence[int] | Tensor | None = None,
    texts: Sequence[str] | None = None,
    *,
    color: str | None = None,
    **style: Any,
) -> None:
    """Draw boxes on axes.

    Args:
        ax: axes in the unit of the boxes.
        boxes_xyxy: (K, 4).
        labels: (K,), colours each box by its class.
        texts: (K,), written as they are at each box's upper left corner.
        color: one colour for all boxes; goes before `labels`.
        style: further options of matplotlib's Rectangle (linewidth, linestyle, alpha, facecolor, ...).
    """
    style = {"linewidth": 1.8, "facecolor": "none", **style}
    top, height = min(ax.get_ylim()), abs(ax.get_ylim()[1] - ax.get_ylim()[0])
    for i, (x_min, y_min, x_max, y_max) in enumerate(torch.as_tensor(boxes_xyxy).reshape(-1, 4).tolist()):
        own = color or (PALETTE[0] if labels is None else color_of(int(labels[i])))
        ax.add_patch(Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, edgecolor=own, **style))
        if texts is not None and texts[i]:
            ax.text(
                x_min,
                y_min,
                texts[i],
                fontsize=7,
                color="white" if _is_dark(own) else "black",
                va="bottom" if y_min > top + 0.07 * height else "top",
                bbox={"facecolor": own, "edgecolor": "none", "pad": 1.2},
                clip_on=True,
                parse_math=False,
            )


def draw_priors(ax: Axes, priors_cxcywh: Tensor, width: float = 1.0, height: float = 1.0, **style: Any) -> None:
    """Draw priors, given in fractions, on an image of `width` x `height`; `style` as for `draw_boxes`."""
    scale = priors_cxcywh.new_tensor([width, height, width, height])
    draw_boxes(ax, cxcywh_to_xyxy(priors_cxcywh.reshape(-1, 4)) * scale, **style)


def draw_grid(ax: Axes, cells: int, width: float = 1.0, height: float = 1.0, **style: Any) -> None:
    """Draw the cells of a feature map of `cells` x `cells` over an image of `width` x `height`."""
    style = {"color": "white", "linewidth": 0.6, "alpha": 0.7, **style}
    ax.vlines(np.linspace(0, width, cells + 1), 0, height, **style)
    ax.hlines(np.linspace(0, height, cells + 1), 0, width, **style)


def show_detections(
    image: Any,
    detection: Mapping[str, Tensor],
    classes: Sequence[str],
    *,
    min_score: float = 0.5,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Show an image with its detections, each with its class and score.

    Args:
        image: as for `show_image`.
        detection: "boxes" in pixels, "labels", "scores".
        classes: names of the labels 1, 2, ...
        min_score: detections below it are not drawn.
        ax: where to draw; a new figure if None.
        title: above the image.
    """
    ax = show_image(image, ax, title)
    shown = detection["scores"] >= min_score
    labels = detection["labels"][shown].tolist()
    scores = detection["scores"][shown].tolist()
    texts = [f"{classes[label - 1]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    draw_boxes(ax, detection["boxes"][shown], labels, texts)
    return ax


def show_images(images: Sequence[Any], titles: Sequence[str] | None = None, *, columns: int = 4) -> list[Axes]:
    """Show images side by side, in rows of `columns`; returns the axes of each, to draw on."""
    rows = -(-len(images) // columns)
    axes = plt.figure(figsize=(1.9 * columns, 1.75 * rows)).subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    return [show_image(image, axes.flat[i], titles[i] if titles else None) for i, image in enumerate(images)]


def plot_precision_recall(result: Evaluation, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw the precision-recall curve of each class, with its AP in the legend."""
    ax = ax or plt.figure(figsize=(4.4, 3.4)).add_subplot()
    for label, curve in result.curves.items():
        counted = curve.outcome != IGNORED
        # The number first: a legend leaves out labels that begin with an underscore, as a class name may.
        name = f"{result.per_class[label]:.2f}  {classes[label - 1]}"
        ax.plot(curve.recall[counted], curve.precision[counted], color=color_of(label), label=name)
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
    legend = ax.legend(title=f"AP at IoU {result.iou_threshold:g} ({result.ap})", loc="lower left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return ax


def plot_log(run: str | Path) -> Figure:
    """Draw the two losses and the learning rate of a run from its log.jsonl.

    Raises:
        FileNotFoundError: if the folder holds no log.
    """
    lines = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    for name in ("localization", "confidence"):
        left.plot(epochs, [line[name] for line in lines], label=name)
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    left.legend()
    right.plot(epochs, [line["learning_rate"] for line in lines], color=PALETTE[2])
    right.set(xlabel="epoch", ylabel="learning rate")
    return figure


def draw_on_image(
    image: Image.Image, detection: Mapping[str, Tensor], classes: Sequence[str], *, min_score: float = 0.5
) -> Image.Image:
    """A copy of a PIL image, in its own resolution, with detections drawn on it; the arguments of `show_detections`.

    Labels lie on all boxes. One that would cover the label of a surer detection goes down inside its own box, if there
    is room.
    """
    drawn = image.convert("RGB")
    canvas = ImageDraw.Draw(drawn)
    size = max(11, round(min(drawn.size) / 36))
    font = ImageFont.load_default(size)
    rows = zip(detection["boxes"].tolist(), detection["labels"].tolist(), detection["scores"].tolist(), strict=True)
    shown = [row for row in rows if row[2] >= min_score]
    frames: list[tuple[float, float, float, float]] = []  # of the labels
    for box, label, score in shown:
        text = f"{classes[label - 1]} {score:.2f}"
        right = drawn.width - canvas.textlength(text, font=font)  # a label does not run out of the image
        left, top = max(0.0, min(box[0], right)), max(0.0, box[1] - 1.35 * size)
        frame = canvas.textbbox((left, top), text, font=font)
        while any(_overlap(frame, other) for other in frames) and frame[3] + 1.35 * size < box[3]:
            top += 1.35 * size
            frame = canvas.textbbox((left, top), text, font=font)
        frames.append(frame)
    for box, label, _ in reversed(shown):  # the best last, on top
        canvas.rectangle(box, outline=color_of(label), width=max(2, size // 6))
    for frame, (_, label, score) in reversed(list(zip(frames, shown, strict=True))):
        color = color_of(label)
        canvas.rectangle(frame, fill=color, outline=color, width=2)
        fill = "white" if _is_dark(color) else "black"
        canvas.text(frame[:2], f"{classes[label - 1]} {score:.2f}", fill=fill, font=font, anchor="lt")
    return drawn


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two rectangles, xyxy, have an area in common."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def show_confusion(matrix: ConfusionMatrix, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix: a row for each true class, a column for each predicted one, background last.

    The shade of a cell is its fraction of the objects of the row; in the last row, of the detections of nothing.

    Args:
        matrix: of `ssdlib.metrics.confusion_matrix`.
        classes: names of the labels 1, 2, ...
        ax: where to draw.
    """
    order = [*range(1, len(classes) + 1), 0]
    counts = matrix.counts[np.ix_(order, order)]
    side = 1.4 + 0.42 * len(order)
    ax = plt.figure(figsize=(side + 0.8, side)).add_subplot() if ax is None else ax
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        color = "white" if shares[row, column] > 0.5 else "black"
        ax.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=color)
    ax.set_xticks(range(len(order)), [*classes, "missed"], rotation=40, ha="right", parse_math=False)
    ax.set_yticks(range(len(order)), [*classes, "background"], parse_math=False)
    ax.set(xlabel="predicted", ylabel="true")
    ax.spines[:].set_visible(False)
    return ax


def show_growth(series: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draw how seconds grow with the size of the work: one of the "series" of ssdlib/engine/records/growth.json.

    Args:
        series: "work", "what" grows, and "points" with "size", "ours" and, if there is a rival, "theirs", in seconds.
        ax: where to draw, with logarithmic scales, so that a straight line at 45 degrees is linear growth.
    """
    ax = plt.figure().add_subplot() if ax is None else ax
    sizes = [point["size"] for point in series["points"]]
    for side, color, marker in (("theirs", PALETTE[1], "s"), ("ours", PALETTE[0], "o")):
        if side in series["points"][0]:
            times = [1e3 * point[side] for point in series["points"]]
            label = "torchvision" if side == "theirs" else "ssdlib"
            ax.plot(sizes, times, marker=marker, markersize=4, color=color, label=label)
    ax.set(xscale="log", yscale="log", xlabel=series["what"], ylabel="milliseconds")
    ax.set_title(series["work"].split(",")[0])
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30 if len(sizes) > 5 else 0)
    ax.minorticks_off()
    ax.legend()
    return ax


def show_ratios(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw our time as a share of the rival's: a bar for each row of the record speed.json, a tick its target.

    Args:
        rows: with "work", "ratio" and "target".
        ax: where to draw.
    """
    ax = plt.figure(figsize=(6.4, 0.8 + 0.36 * len(rows))).add_subplot() if ax is None else ax
    places = range(len(rows), 0, -1)
    ax.barh(places, [row["ratio"] for row in rows], color=PALETTE[0], height=0.4)
    ax.plot([row["target"] for row in rows], places, "|", color="black", markersize=12, label="target")
    for place, row in zip(places, rows, strict=True):
        end = max(row["ratio"], row["target"]) if 0 < row["target"] - row["ratio"] < 0.08 else row["ratio"]
        ax.text(end + 0.01, place, f"{row['ratio']:.2f}", va="center", fontsize=7)  # not across the tick
        ax.text(0, place + 0.24, row["work"], va="bottom", fontsize=7, parse_math=False)
    ax.axvline(1, color="gray", linewidth=0.8)
    ax.set_yticks([])
    ax.set(xlabel="our time / the rival's", xlim=(0, max(1.05, *(row["ratio"] + 0.1 for row in rows))))
    ax.legend(loc="upper right", bbox_to_anchor=(1, 1.08))
    return ax


def _is_dark(color: str) -> bool:
    """Whether white text has more contrast than black on a colour "#RRGGBB": by the relative luminance of WCAG 2."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) ** 2 < 1.05 * 0.05


def to_pil(image: Tensor) -> Image.Image:
    """A tensor (3, H, W), uint8 or floats in 0..1, as a PIL image."""
    picture: Image.Image = TF.to_pil_image(image)
    return picture
