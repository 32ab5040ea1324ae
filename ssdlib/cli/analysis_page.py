"""The page of `ssd analyse`: one HTML file with all its pictures, without a script and without the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

import ssdlib
from ssdlib.cli.analysis_pictures import (
    Box,
    as_svg,
    confusion_figure,
    example_picture,
    overlap_figure,
    reliability_figure,
)
from ssdlib.cli.analysis_words import MEANINGS, TITLES, advice, percent, reading_of_scores, verdict
from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.names import printable
from ssdlib.engine.analysis import Analysis, FalseAlarm, Miss, RecallRow
from ssdlib.engine.error_kinds import KINDS
from ssdlib.metrics import FALSE_POSITIVE, ConfusionMatrix, Images

_MOST_PAIRS = 12  # rows of the table of confusions


def page(
    analysis: Analysis,
    dataset: AnnotatedDataset,
    detections: Images,
    *,
    run: str,
    how: Sequence[tuple[str, str]],
    min_score: float,
    max_overlap: float,
    progress: bool = True,
) -> str:
    """The page as HTML.

    Args:
        analysis: of the detections, with its examples.
        dataset: the images, with the classes of the detector.
        detections: of each image, boxes in pixels.
        run: what was analysed, for the title.
        how: (name, value) of what the figures depend on.
        min_score, max_overlap: least score, and of NMS, with which the detections were made.
        progress: show a bar on stderr while the examples are drawn.

    Raises:
        OSError, ValueError: an image of an example cannot be read.
    """
    classes = dataset.classes
    environment = Environment(
        loader=PackageLoader("ssdlib.cli"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    figure, drawn = confusion_figure(analysis.confusion, classes)
    bar = tqdm(
        total=len(analysis.false_alarms) + len(analysis.misses), desc="drawing", leave=False, disable=not progress
    )
    with bar:
        alarms = [_alarm(each, dataset, detections, bar) for each in analysis.false_alarms]
        misses = [_miss(each, dataset, detections, bar) for each in analysis.misses]
    errors = analysis.errors
    return environment.get_template("analysis.html").render(
        run=printable(run),
        verdict=verdict(analysis, classes),
        advice=advice(analysis, classes, min_score=min_score, max_overlap=max_overlap),
        mean=_number(analysis.mean),
        score=f"{analysis.score:g}",
        iou=f"{errors.iou_threshold:g}",
        least=f"{errors.least_overlap:g}",
        kinds=_kinds(analysis),
        sides=_sides(analysis),
        per_class=_classes(analysis, classes),
        confusion_picture=as_svg(figure),
        drawn_classes=drawn,
        all_classes=len(classes),
        confusions=confusions(analysis.confusion, classes, _MOST_PAIRS),
        sizes=[
            {
                "caption": "By the root of the area, as a share of the image's",
                "rows": [_recall(row, _share_range(row)) for row in analysis.by_size],
            },
            {
                "caption": "By COCO's areas, in pixels of the image",
                "rows": [
                    _recall(row, name)
                    for row, name in zip(
                        analysis.by_area, ("small, below 32²", "medium, below 96²", "large"), strict=True
                    )
                ],
            },
        ],
        overlap_picture=as_svg(overlap_figure(analysis.by_overlap)) if analysis.objects else "",
        overlaps=[
            {
                "threshold": f"{row.iou_threshold:.2f}",
                "mean": _number(row.mean),
                "recall": _number(row.recall),
                "any": _number(row.recall_at_any_score),
            }
            for row in analysis.by_overlap
        ],
        reading=reading_of_scores(analysis),
        bins=len(analysis.groups),
        ece=_number(analysis.calibration_error),
        ece_used=_number(analysis.calibration_error_in_use),
        reliability_picture=as_svg(reliability_figure(analysis.groups))
        if any(g.count for g in analysis.groups)
        else "",
        groups=[
            {
                "name": f"{group.low:g} to {group.high:g}",
                "count": f"{group.count:,}",
                "mean": _number(group.mean_score),
                "right": _number(group.share_right),
            }
            for group in analysis.groups
        ],
        alarms=alarms,
        all_alarms=f"{analysis.alarm_count:,}",
        misses=misses,
        all_misses=f"{analysis.miss_count:,}",
        how=how,
        version=ssdlib.__version__,
        date=date.today().isoformat(),
    )


def confusions(matrix: ConfusionMatrix, classes: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The largest entries off the diagonal, in words."""
    counts = matrix.counts.copy()
    np.fill_diagonal(counts, 0)
    ranked = np.argsort(-counts, axis=None, kind="stable")[:limit]
    rows = []
    for true, taken in zip(*np.unravel_index(ranked, counts.shape), strict=True):
        if counts[true, taken]:
            rows.append(
                {
                    "true": classes[true - 1] if true else "no object of its own",
                    "taken": classes[taken - 1] if taken else "missed",
                    "count": f"{counts[true, taken]:,}",
                }
            )
    return rows


def _kinds(analysis: Analysis) -> list[dict[str, Any]]:
    counts, used = analysis.counts(), analysis.counts(analysis.score)
    costs = analysis.costs
    return [
        {
            "title": TITLES[kind],
            "cost": _number(costs[kind]),
            "share": _share(costs[kind], _longest(analysis)),
            "count": f"{counts[kind]:,}",
            "used": "–" if kind == "missed" else f"{used[kind]:,}",
            "meaning": MEANINGS[kind],
        }
        for kind in KINDS
    ]


def _sides(analysis: Analysis) -> list[dict[str, Any]]:
    errors = analysis.errors
    false = (errors.outcome == FALSE_POSITIVE) & errors.seen_by_ap
    lost = int((~errors.objects["difficult"] & (errors.found_by < 0)).sum())
    rows = (
        (
            "All false detections",
            "false_positives",
            int(false.sum()),
            int((false & (errors.found["scores"] >= analysis.score)).sum()),
        ),
        ("All objects not found", "false_negatives", lost, None),
    )
    meanings = (
        "The five kinds of false detections together, all removed.",
        "No detection found them, whatever its score.",
    )
    return [
        {
            "title": title,
            "cost": _number(analysis.sides[side]),
            "share": _share(analysis.sides[side], _longest(analysis)),
            "count": f"{count:,}",
            "used": "–" if used is None else f"{used:,}",
            "meaning": meaning,
        }
        for (title, side, count, used), meaning in zip(rows, meanings, strict=True)
    ]


def _longest(analysis: Analysis) -> float:
    """The cost that has the longest bar."""
    return max([*analysis.costs.values(), *analysis.sides.values()])


def _classes(analysis: Analysis, classes: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for label, ap in sorted(analysis.per_class.items(), key=lambda item: item[1]):
        kind = max(KINDS, key=lambda kind: analysis.class_costs[kind][label])
        cost = analysis.class_costs[kind][label]
        rows.append(
            {
                "name": classes[label - 1],
                "objects": f"{analysis.errors.num_objects[label]:,}",
                "ap": _number(ap),
                "share": ap,
                "worst": f"{TITLES[kind].lower()} ({cost:.3f})" if cost >= 0.0005 else "–",
            }
        )
    return rows


def _recall(row: RecallRow, name: str) -> dict[str, Any]:
    if not row.objects:
        return {"name": name, "objects": "0", "found": "–", "any": "–", "share": None}
    share = row.found / row.objects
    return {
        "name": name,
        "objects": f"{row.objects:,}",
        "found": percent(share),
        "any": percent(row.found_at_any_score / row.objects),
        "share": share,
    }


def _share_range(row: RecallRow) -> str:
    return f"{row.low:g} and more" if math.isinf(row.high) else f"{row.low:g} to {row.high:g}"


def _alarm(alarm: FalseAlarm, dataset: AnnotatedDataset, detections: Images, bar: Any) -> dict[str, str]:
    found = _detection(detections, alarm.image, alarm.index)
    name = dataset.classes[alarm.label - 1]
    text = f"Found: {name}, score {alarm.score:.2f}."
    if alarm.object_index >= 0:
        text += f" There: {dataset.classes[alarm.object_label - 1]}, IoU {alarm.overlap:.2f}."
    return _example(alarm.image, TITLES[alarm.kind], text, found, found, dataset, bar)


def _miss(miss: Miss, dataset: AnnotatedDataset, detections: Images, bar: Any) -> dict[str, str]:
    target = dataset.target(miss.image)
    box = Box(target["boxes"][miss.index].tolist(), miss.label)
    nearest = None if miss.by < 0 else _detection(detections, miss.image, miss.by)
    by = dataset.classes[miss.by_label - 1] if miss.by_label else ""
    title, text = {
        "missed": (TITLES["missed"], "No detection is near it."),
        "score": ("Score too low", f"Found with a score of {miss.score:.2f}, IoU {miss.overlap:.2f}."),
        "localization": (TITLES["localization"], f"Nearest: score {miss.score:.2f}, IoU {miss.overlap:.2f}."),
        "class": (TITLES["class"], f"Found as {by}, score {miss.score:.2f}, IoU {miss.overlap:.2f}."),
    }[miss.why]
    text = f"There: {dataset.classes[miss.label - 1]}, size {miss.size:.2f}. {text}"
    return _example(miss.image, title, text, box, nearest, dataset, bar)


def _example(
    image: int, title: str, text: str, around: Box, found: Box | None, dataset: AnnotatedDataset, bar: Any
) -> dict[str, str]:
    pixels, target = dataset[image]
    objects = [Box(box, label) for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)]
    picture, is_part = example_picture(pixels, around, found, objects, dataset.classes)
    bar.update()
    file = printable(dataset.image_path(image).name)
    there = ", ".join(dataset.classes[each.label - 1] for each in objects[:8]) or "none"
    more = f" and {len(objects) - 8} more" if len(objects) > 8 else ""
    return {
        "picture": picture,
        "alt": f"{title}: {'part of ' if is_part else ''}{file}. {text} Labelled objects of the image: {there}{more}.",
        "title": title,
        "text": text,
        "file": file,
        "part": " (part)" if is_part else "",
    }


def _detection(detections: Images, image: int, index: int) -> Box:
    found = detections[image]
    return Box(found["boxes"][index].tolist(), int(found["labels"][index]), float(found["scores"][index]))


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _share(value: float, longest: float) -> float | None:
    return value / longest if longest > 0 and math.isfinite(value) else None
