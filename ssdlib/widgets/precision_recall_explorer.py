"""PrecisionRecallExplorer: a detector's curve over a test set, a threshold to move on it, and the errors behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.detection import Detection
from ssdlib.metrics import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    APRule,
    ClassCurve,
    Evaluation,
    average_precision,
    evaluate,
)
from ssdlib.plotting import PALETTE, to_pil
from ssdlib.widgets.base import BookWidget, image_url, is_number
from ssdlib.zoo.checkpoint import demo_model

THRESHOLDS = (0.5, 0.75)
RULES: tuple[APRule, APRule] = ("area", "11point")
SIGNS = {FALSE_POSITIVE: "-", TRUE_POSITIVE: "+", IGNORED: "o"}
PICTURES = 5  # false positives of a class, and of a threshold, that have a picture
TILE, COLUMNS, QUALITY = 80, 8, 50  # pixels of a picture, pictures in a row of the sheet, JPEG quality


class PrecisionRecallExplorer(BookWidget):
    """Precision and recall of a detector at any score threshold, the curve that they draw, and the false positives.

    Args:
        dataset: images and objects, without a transform; by default the test set of the sample.
        detections: one dict an image, boxes in pixels; by default those of the small detector of the package.

    Attributes:
        classes: names of the labels 1, 2, ...
        label: the class whose curve is shown, one that has objects.
        min_score: detections with at least this score count, 0..1, in thousandths.
        iou_threshold: the overlap that is enough to find an object, 0.5 or 0.75.
        ap: how the curve becomes one number, "area" or "11point".
        error: number of the false positive that is shown, counted from 0, best score first.
        curves, averages, errors, sheet: what the page draws, from :func:`ssdlib.metrics.evaluate`.

    Example:
        >>> explorer = PrecisionRecallExplorer(label=2, min_score=0.5)
        >>> round(explorer.recall, 3), round(explorer.precision, 3)
        (0.812, 1.0)
        >>> explorer.min_score = 0.1  # more is found, at the price of false positives
        >>> explorer.recall > 0.82, explorer.precision < 1
        (True, True)
    """

    _module = "precision_recall_explorer"
    _from_network = True

    title = traitlets.Unicode("Precision and recall: one threshold, and what lies behind it").tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    curves = traitlets.Dict().tag(sync=True)
    averages = traitlets.Dict().tag(sync=True)
    errors = traitlets.List(traitlets.Dict()).tag(sync=True)
    sheet = traitlets.Unicode().tag(sync=True)
    tile = traitlets.Int(TILE).tag(sync=True)
    columns = traitlets.Int(COLUMNS).tag(sync=True)
    label = traitlets.Int().tag(sync=True)
    min_score = traitlets.Float(0.25).tag(sync=True)
    iou_threshold = traitlets.Enum(THRESHOLDS, default_value=0.5).tag(sync=True)
    ap = traitlets.Enum(RULES, default_value=RULES[0]).tag(sync=True)
    error = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, dataset: AnnotatedDataset | None = None, detections: Sequence[Detection] | None = None, **traits: Any
    ) -> None:
        dataset = VOCDataset(sample_root(), "test") if dataset is None else dataset
        if detections is None:
            detections = demo_model().predict([dataset[i][0] for i in range(len(dataset))])
        targets = [dataset.target(i) for i in range(len(dataset))]
        count = len(dataset.classes) + 1
        self._results = {t: evaluate(detections, targets, count, iou_threshold=t) for t in THRESHOLDS}
        curves = self._results[THRESHOLDS[0]].curves
        if not curves:
            raise ValueError("no class has an object that counts, so that there is no precision-recall curve")
        shown: dict[tuple[int, int, int], dict[str, Any]] = {}  # by label, image and row in that image
        for threshold, result in self._results.items():
            for label, curve in result.curves.items():
                for rank in np.flatnonzero(curve.outcome == FALSE_POSITIVE)[:PICTURES].tolist():
                    place = (label, int(curve.image[rank]), int(curve.index[rank]))
                    entry = shown.setdefault(place, {"label": label, "rank": rank, "why": {}})
                    entry["score"] = int(_thousandths(curve)[rank])
                    entry["overlap"] = round(float(curve.overlap[rank]), 3)
                    box = detections[place[1]]["boxes"][place[2]]
                    entry["why"][str(threshold)] = why_false(box, entry["overlap"], targets[place[1]], threshold)
        pictures = []
        for number, ((_, image, row), entry) in enumerate(sorted(shown.items())):
            picture, geometry = _cut_out(dataset, image, detections[image]["boxes"][row], targets[image])
            pictures.append(picture)
            entry.update(geometry, tile=number, image=dataset.image_path(image).name)
        traits.setdefault("label", min(curves))
        super().__init__(
            classes=list(dataset.classes),
            curves={
                str(label): {
                    "scores": _thousandths(curve).tolist(),
                    "objects": curve.num_objects,
                    "outcomes": {str(t): _signs(result.curves[label]) for t, result in self._results.items()},
                }
                for label, curve in curves.items()
            },
            averages={str(t): _averages(result) for t, result in self._results.items()},
            errors=sorted(shown.values(), key=lambda entry: (entry["label"], entry["rank"])),
            sheet=image_url(_on_one_sheet(pictures), quality=QUALITY),
            **traits,
        )

    @property
    def recall(self) -> float:
        """Share of the objects that are found by detections with a score of at least `min_score`."""
        rows = self._above()
        return float(self._curve.recall[rows - 1]) if rows else 0.0

    @property
    def precision(self) -> float:
        """Share of true ones among the detections with a score of at least `min_score`; nan where none counts."""
        rows = self._above()
        counted = (self._curve.outcome[:rows] != IGNORED).any()
        return float(self._curve.precision[rows - 1]) if counted else math.nan

    @property
    def average_precision(self) -> float:
        """AP of the class by the present rules, from all detections."""
        return average_precision(self._curve.recall, self._curve.precision, self.ap)

    @property
    def average_precision_above(self) -> float:
        """AP of the class when the detections below `min_score` are thrown away before."""
        rows = self._above()
        return average_precision(self._curve.recall[:rows], self._curve.precision[:rows], self.ap)

    @property
    def false_positives(self) -> list[dict[str, Any]]:
        """Those of the present class and rules above `min_score` that have a picture; "why" says what is wrong."""
        least = round(1000 * self.min_score)
        return [
            {"image": entry["image"], "score": entry["score"] / 1000, "why": entry["why"][str(self.iou_threshold)]}
            for entry in self.errors
            if entry["label"] == self.label and str(self.iou_threshold) in entry["why"] and entry["score"] >= least
        ]

    def describe(self) -> str:
        """The curve and the point on it, in words."""
        precision = "undefined" if math.isnan(self.precision) else f"{self.precision:.2f}"
        return (
            f"Precision-recall curve of the class {self.classes[self.label - 1]} at an IoU of {self.iou_threshold:g}. "
            f"AP ({self.ap}) is {self.average_precision:.3f}. "
            f"At a score of {self.min_score:.2f} recall is {self.recall:.2f} and precision {precision}."
        )

    def picture(self) -> Figure:
        """The curve, its envelope as an area, and the point of the threshold."""
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        ax = figure.add_subplot()
        counted = self._curve.outcome != IGNORED
        recall, precision = self._curve.recall[counted], self._curve.precision[counted]
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        ax.fill_between(
            np.r_[0, recall], np.r_[envelope[:1], envelope], step="pre", color=PALETTE[5], alpha=0.35, linewidth=0
        )
        ax.plot(recall, precision, color=PALETTE[0], linewidth=1.5)
        if not math.isnan(self.precision):
            ax.plot(self.recall, self.precision, "o", color=PALETTE[3], markersize=8)
        ax.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="recall", ylabel="precision")
        name = self.classes[self.label - 1]
        ax.set_title(f"{name}: AP ({self.ap}) {self.average_precision:.3f}", parse_math=False)
        return figure

    @property
    def _curve(self) -> ClassCurve:
        return self._results[self.iou_threshold].curves[self.label]

    def _above(self) -> int:
        """How many detections of the class have a score of at least `min_score`."""
        return int((_thousandths(self._curve) >= round(1000 * self.min_score)).sum())

    @traitlets.validate("label")
    def _check_label(self, proposal: Any) -> int:
        if proposal["value"] not in self._results[THRESHOLDS[0]].curves:
            labels = sorted(self._results[THRESHOLDS[0]].curves)
            raise traitlets.TraitError(f"label must be one of those with objects, {labels}; got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("min_score")
    def _check_min_score(self, proposal: Any) -> float:
        if not (is_number(proposal["value"]) and 0 <= proposal["value"] <= 1):
            raise traitlets.TraitError(f"min_score must be a number from 0 to 1; got {proposal['value']!r}")
        return round(float(proposal["value"]), 3)

    @traitlets.validate("error")
    def _check_error(self, proposal: Any) -> int:
        last = max(0, len(self.false_positives) - 1)
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(f"error must be 0 to {last}; got {proposal['value']}")
        return proposal["value"]

    @traitlets.observe("label", "min_score", "iou_threshold")
    def _stay_in_range(self, change: Any) -> None:
        self.error = min(self.error, max(0, len(self.false_positives) - 1))


def why_false(box: Tensor, overlap: float, target: dict[str, Tensor], threshold: float) -> str:
    """What is wrong with a false positive, by what it overlaps.

    Args:
        box: (4,), in the unit of the target.
        overlap: its largest IoU with an object of its class.
        target: "boxes" (M, 4) of all objects in the image.
        threshold: the overlap that would have been enough.

    Returns:
        "duplicate" (a better detection found the object before), "badly placed" (an object of its class is near, with
        an IoU of at least 0.1), "wrong class" (half of an object of another class or more), or "background".

    Source: the kinds of Hoiem et al. (2012), "Diagnosing error in object detectors", without similar classes.
    """
    if overlap >= threshold:
        return "duplicate"
    if overlap >= 0.1:
        return "badly placed"
    others = iou(box[None].double(), target["boxes"].double())
    return "wrong class" if others.numel() and float(others.max()) >= 0.5 else "background"


def _thousandths(curve: ClassCurve) -> Any:
    """Scores rounded down to whole thousandths: on either side of a threshold in thousandths as they were before.

    A float32 may be a little less than the number that it stands for; the 1e-4 is more than that.
    """
    return np.floor(1000 * curve.scores + 1e-4).astype(int)


def _signs(curve: ClassCurve) -> str:
    return "".join(SIGNS[outcome] for outcome in curve.outcome.tolist())


def _averages(result: Evaluation) -> dict[str, dict[str, float]]:
    """AP by both rules, of each class and as a "mean" over them."""
    averages: dict[str, dict[str, float]] = {}
    for rule in RULES:
        each = {str(k): average_precision(curve.recall, curve.precision, rule) for k, curve in result.curves.items()}
        averages[rule] = {**each, "mean": math.fsum(each.values()) / len(each)}
    return averages


def _cut_out(
    dataset: AnnotatedDataset, image: int, box: Tensor, target: dict[str, Tensor]
) -> tuple[Image.Image, dict[str, Any]]:
    """A square of the image around a box, and in its pixels the box and the objects, [[x, y, x, y], ...]."""
    width, height = dataset.size(image)
    x_min, y_min, x_max, y_max = box.tolist()
    side = min(width, height, max(1.7 * max(x_max - x_min, y_max - y_min), 24))
    left = min(max((x_min + x_max - side) / 2, 0), width - side)
    top = min(max((y_min + y_max - side) / 2, 0), height - side)
    window = (left, top, left + side, top + side)
    picture = to_pil(dataset[image][0]).resize((TILE, TILE), Image.Resampling.LANCZOS, box=window)
    shift = torch.tensor([left, top, left, top])

    def in_tile(boxes: Tensor) -> list[list[float]]:
        return ((boxes - shift) * TILE / side).clamp(0, TILE).double().round(decimals=1).tolist()

    objects = [
        corners
        for corners in in_tile(target["boxes"])
        if min(corners[2] - corners[0], corners[3] - corners[1]) >= 5  # no slivers at the edge
    ]
    overlaps = iou(box[None].double(), target["boxes"].double())[0]
    geometry: dict[str, Any] = {"box": in_tile(box[None])[0], "objects": objects}
    if len(overlaps) and float(overlaps.max()) > 0:  # the object that it overlaps most, of whatever class
        geometry["nearest"] = [int(target["labels"][overlaps.argmax()]), round(float(overlaps.max()), 3)]
    return picture, geometry


def _on_one_sheet(pictures: list[Image.Image]) -> Image.Image:
    """All pictures in rows of `COLUMNS`: one JPEG is smaller than many."""
    sheet = Image.new("RGB", (COLUMNS * TILE, max(1, math.ceil(len(pictures) / COLUMNS)) * TILE))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % COLUMNS * TILE, number // COLUMNS * TILE))
    return sheet
