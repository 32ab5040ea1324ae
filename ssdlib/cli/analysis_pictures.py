"""The pictures of the page of `ssd analyse`: figures as SVG, examples as JPEG, both as data: addresses in the page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from ssdlib import plotting
from ssdlib.engine.analysis import OverlapRow
from ssdlib.engine.reliability import ScoreGroup
from ssdlib.metrics import ConfusionMatrix

MOST_CLASSES = 24
"""Of a drawn confusion matrix: more could not be read."""

_SIDE = 320  # pixels of the longer side of an example


class Box(NamedTuple):
    """A box of an example, in pixels of the image."""

    corners: Sequence[float]  # x_min, y_min, x_max, y_max
    label: int
    score: float = 0.0


def confusion_figure(matrix: ConfusionMatrix, classes: Sequence[str]) -> tuple[Figure, int]:
    """The confusion matrix, drawn; of many classes those with most errors. Also returns how many are drawn.

    It is the caller's to close.
    """
    kept = most_confused(matrix, MOST_CLASSES)
    rows = [0, *kept]
    part = ConfusionMatrix(matrix.counts[np.ix_(rows, rows)], matrix.duplicates[rows], matrix.misplaced[rows])
    plotting.use_book_style()
    names = [classes[label - 1] for label in kept]
    axes = plotting.show_confusion(part, [name if len(name) <= 24 else f"{name[:23]}…" for name in names])
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure, len(kept)


def most_confused(matrix: ConfusionMatrix, limit: int) -> list[int]:
    """Labels, in their order, of at most `limit` classes: those with most errors in their row and column."""
    wrong = matrix.counts.sum(axis=0) + matrix.counts.sum(axis=1) - 2 * matrix.counts.diagonal()
    ranked = 1 + np.argsort(-wrong[1:], kind="stable")[:limit]
    return sorted(ranked.tolist())


def overlap_figure(rows: Sequence[OverlapRow]) -> Figure:
    """What is left of mAP and recall as the overlap threshold rises."""
    plotting.use_book_style()
    figure = plt.figure(figsize=(5.2, 3.2))
    ax = figure.add_subplot()
    thresholds = [row.iou_threshold for row in rows]
    lines = (
        ("recall, any score", "recall_at_any_score", plotting.PALETTE[2], "^", ":"),
        ("recall in use", "recall", plotting.PALETTE[3], "s", "--"),
        ("mAP", "mean", plotting.PALETTE[0], "o", "-"),
    )
    for name, field, color, marker, style in lines:
        values = [getattr(row, field) for row in rows]
        ax.plot(thresholds, values, marker=marker, markersize=4, linestyle=style, color=color, label=name)
    ax.set(xlabel="IoU threshold", xlim=(0.48, 0.97), ylim=(0, 1.03))
    ax.legend(loc="lower left")
    return figure


def reliability_figure(groups: Sequence[ScoreGroup]) -> Figure:
    """The share of right detections against their mean score, with 95 % intervals, and the diagonal."""
    plotting.use_book_style()
    figure = plt.figure(figsize=(4.2, 3.6))
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.8, label="a chance")
    there = [group for group in groups if group.count]
    x, y = [group.mean_score for group in there], [group.share_right for group in there]
    reach = [[g.share_right - g.interval[0] for g in there], [g.interval[1] - g.share_right for g in there]]
    ax.errorbar(x, y, np.maximum(reach, 0), marker="o", capsize=2, linewidth=1.2, label="detections, 95 % intervals")
    ax.set(xlabel="mean score of a group", ylabel="fraction that is right", xlim=(0, 1.02), ylim=(0, 1.05))
    ax.legend(loc="upper left")
    return figure


def as_svg(figure: Figure) -> str:
    """A figure as a data: address; it is closed.

    A letter that the font lacks is drawn as a box: the tables beside the figure have it.
    """
    buffer = io.BytesIO()
    try:
        with plt.rc_context({"svg.hashsalt": "ssd analyse"}), warnings.catch_warnings():  # the same bytes each time
            warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from")
            figure.savefig(buffer, format="svg", metadata={"Date": None})
    finally:
        plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def example_picture(
    image: Tensor, around: Box, detection: Box | None, objects: Iterable[Box], classes: Sequence[str]
) -> tuple[str, bool]:
    """A part of an image with a detection, drawn solid, and labelled objects, dashed.

    Args:
        image: (3, H, W) uint8.
        around: the box that it is about: the part has it in the middle, with what is near it.
        detection: drawn with its class and score; None for none.
        objects: of the image; those outside of the part do not show.
        classes: names of the labels 1, 2, ...

    Returns:
        The JPEG as a data: address, and whether it is a part of the image, not all of it.
    """
    whole = plotting.to_pil(image).convert("RGB")
    left, top, right, bottom = window(around.corners, whole.size)
    zoom = _SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom))
    part = whole.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))

    def inside(box: Box) -> list[float]:
        corners = [(c - o) * zoom for c, o in zip(box.corners, (left, top, left, top), strict=True)]
        return [min(max(c, -9.0), limit + 9.0) for c, limit in zip(corners, (*size, *size), strict=True)]

    for each in objects:
        _draw_dashed(part, inside(each))
    if detection is not None:
        found = {
            "boxes": torch.tensor([inside(detection)]),
            "labels": torch.tensor([detection.label]),
            "scores": torch.tensor([detection.score]),
        }
        part = plotting.draw_on_image(part, found, classes, min_score=0)
    buffer = io.BytesIO()
    part.save(buffer, format="JPEG", quality=78, optimize=True)
    address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return address, (right - left) * (bottom - top) < whole.width * whole.height


def window(corners: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of an image that shows a box: four times as large, at least a third of the image; all if that is most.

    >>> window([100, 100, 120, 110], (600, 300))
    (10, 55, 210, 155)
    >>> window([0, 0, 200, 150], (600, 300))
    (0, 0, 600, 300)
    """
    edges = []
    for low, high, limit in ((corners[0], corners[2], size[0]), (corners[1], corners[3], size[1])):
        middle, half = (low + high) / 2, max(2 * (high - low), limit / 6)
        edges.append((max(0, round(middle - half)), min(limit, round(middle + half))))
    (left, right), (top, bottom) = edges
    if right <= left or bottom <= top or (right - left) * (bottom - top) > 0.6 * size[0] * size[1]:
        return 0, 0, *size
    return left, top, right, bottom


def _draw_dashed(image: Image.Image, corners: Sequence[float]) -> None:
    """A rectangle in black and white by turns: it shows on every ground."""
    canvas = ImageDraw.Draw(image)
    left, top, right, bottom = corners
    for (x0, y0), (x1, y1) in (
        ((left, top), (right, top)),
        ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)),
        ((left, bottom), (left, top)),
    ):
        canvas.line((x0, y0, x1, y1), fill="black", width=2)
        steps = max(1, round(max(abs(x1 - x0), abs(y1 - y0)) / 6))
        for k in range(0, steps, 2):
            a, b = k / steps, min(1.0, (k + 1) / steps)
            canvas.line((x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0)), "white", 2)
