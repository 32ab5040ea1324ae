"""What `ssd analyse` says in words: what costs most, and what to try.

Each sentence is said only where the numbers bear it, and says which they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ssdlib.data.names import counted
from ssdlib.engine.analysis import Analysis, RecallRow
from ssdlib.engine.error_kinds import KINDS, LOCALIZATION
from ssdlib.engine.reliability import ScoreGroup, reliability
from ssdlib.metrics import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE

TITLES = {
    "class": "Wrong class",
    "localization": "Bad place",
    "both": "Class and place",
    "duplicate": "Duplicate",
    "background": "Background",
    "missed": "Missed",
}
MEANINGS = {
    "class": "The box fits an object, but of another class.",
    "localization": "The class is right, but the box fits its object badly.",
    "both": "The box fits an object badly, and of another class.",
    "duplicate": "A detection with a better score had found the object.",
    "background": "Nothing is labelled there.",
    "missed": "An object that is not found, and that no wrong class or bad place is about.",
}
_OF = {
    "class": "detections with the wrong class",
    "localization": "boxes that fit badly",
    "both": "boxes that fit badly and have the wrong class",
    "duplicate": "duplicates",
    "background": "detections where nothing is labelled",
    "missed": "missed objects",
}
_LEAST_COST = 0.005  # of an mAP: below it, a kind is not worth a sentence
_FEW_OBJECTS = 500  # two standard errors of a share are up to 1 / sqrt(objects): several hundredths below
_VERY_FEW_OBJECTS = 100  # a tenth and more below
_ENOUGH = 20  # objects or detections that a comparison needs on each side


def verdict(analysis: Analysis, classes: Sequence[str]) -> str:
    """The first paragraph: how good, what costs most, and how far to trust it."""
    errors, score = analysis.errors, analysis.score
    images = counted(analysis.images, "image")
    if not analysis.objects:
        false = int(((errors.outcome == FALSE_POSITIVE) & (errors.found["scores"] >= score)).sum())
        return (
            f"No object that counts is labelled in {images}, so that there is no AP, and no cost of any error. "
            f"{counted(false, 'detection')} with a score of {score:g} or more found nothing that is labelled."
        )
    said = [
        f"On {images} with {counted(analysis.objects, 'object')}, the mAP is {analysis.mean:.3f} at an IoU of "
        f"{errors.iou_threshold:g}."
    ]
    (first, cost), (second, next_cost) = _ranked(analysis.costs)[:2]
    if cost < _LEAST_COST:
        said.append(f"No kind of error by itself costs as much as {_LEAST_COST:g} of it.")
    elif next_cost > 0.8 * cost:
        said.append(
            f"No one kind of error stands out: {_OF[first]} cost {cost:.3f} of mAP and {_OF[second]} {next_cost:.3f}, "
            f"each of them mended alone."
        )
    else:
        then = f" Next come {_OF[second]}, with {next_cost:.3f}." if next_cost >= _LEAST_COST else ""
        said.append(
            f"What costs most are {_OF[first]}: with these alone mended, the mAP would be {analysis.mean + cost:.3f}, "
            f"which is {cost:.3f} more.{then}"
        )
    said += _by_few_objects(analysis, classes, first)
    alarms, lost = analysis.sides["false_positives"], analysis.sides["false_negatives"]
    if max(alarms, lost) >= _LEAST_COST:
        said.append(f"All false detections together cost {alarms:.3f}, all objects that are not found {lost:.3f}.")
    if analysis.objects < _FEW_OBJECTS:
        much = "a tenth or more" if analysis.objects < _VERY_FEW_OBJECTS else "several hundredths"
        said.append(
            f"With {counted(analysis.objects, 'object')}, another set of images could move these figures by {much}."
        )
    return " ".join(said)


def _by_few_objects(analysis: Analysis, classes: Sequence[str], first: str) -> list[str]:
    """What makes the ranking doubtful: classes with few objects weigh as much as the others in an mAP."""
    said = []
    objects, of_class = analysis.errors.num_objects, analysis.class_costs[first]
    rare = {label: cost for label, cost in of_class.items() if objects[label] < _ENOUGH}
    if analysis.costs[first] >= _LEAST_COST and sum(rare.values()) > sum(of_class.values()) / 2:
        label = max(rare, key=lambda label: rare[label])
        said.append(
            f"Mind that more than half of the cost of {_OF[first]} comes from classes with fewer than {_ENOUGH} "
            f"objects, most from {classes[label - 1]}, which has {objects[label]}."
        )
    top, cost = _ranked(analysis.costs_by_object)[0]
    if top != first and cost >= _LEAST_COST:
        said.append(f"If every object weighed the same, in place of every class, {_OF[top]} would cost most.")
    return said


def _ranked(costs: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(costs.items(), key=lambda item: -item[1])


def advice(analysis: Analysis, classes: Sequence[str], *, min_score: float, max_overlap: float) -> list[str]:
    """What to try, the most promising first; empty where the numbers suggest nothing.

    Args:
        analysis: of `analyse`.
        classes: names of the labels 1, 2, ...
        min_score, max_overlap: least score, and of NMS, with which the detections were made.
    """
    found = []
    if analysis.objects:
        costly = []
        for ranked in (_ranked(analysis.costs_by_object), _ranked(analysis.costs)):
            costly += [kind for kind, cost in ranked[:2] if cost >= max(_LEAST_COST, ranked[0][1] / 2)]
        found += [_cure(kind, analysis, classes, max_overlap) for kind in dict.fromkeys(costly)]
        found += [
            sentence
            for sentence in (_small_ones(analysis), _lower_score(analysis, min_score), _weakest(analysis, classes))
            if sentence
        ]
    found += [sentence for sentence in (_as_chances(analysis), _without_object(analysis, classes)) if sentence]
    return found


def _cure(kind: str, analysis: Analysis, classes: Sequence[str], max_overlap: float) -> str:
    errors, score = analysis.errors, analysis.score
    if kind == "missed":
        missed = counted(analysis.counts()["missed"], "object")
        return (
            f"Missed objects: {missed} in all. See with `ssd priors fit` whether priors reach them, and train on more "
            f"images that look like the misses below."
        )
    used, count = analysis.counts(score)[kind], analysis.counts()[kind]
    has = "has" if used == 1 else "have"
    where = f"of {counted(count, 'error')} of this kind, {used:,} {has} a score of {score:g} or more."
    if kind == "background":
        return (
            f"Background: {where} Look through the false alarms first: an object that nobody labelled counts as one. "
            f"If nothing is there, train on more images with what is taken for an object, also on images without any."
        )
    if kind == "class":
        counts = analysis.confusion.counts[1:, 1:].copy()
        np.fill_diagonal(counts, 0)
        most = int(counts.max(initial=0))
        pair = ""
        if most > 1:
            true, taken = np.unravel_index(counts.argmax(), counts.shape)
            pair = f" The most frequent: {classes[true]} taken for {classes[taken]}, {most} times."
        return (
            f"Wrong class: {where}{pair} Check that the labels tell classes apart in one way; more training images in "
            f"which they differ may help."
        )
    if kind == "localization":
        median = float(np.median(errors.overlap[errors.kind == LOCALIZATION]))
        return (
            f"Bad place: {where} Their median IoU is {median:.2f}. Check that the labelled boxes are drawn tightly and "
            f"in one way; then try larger images, longer training, or priors that fit better (`ssd priors fit`)."
        )
    if kind == "duplicate":
        return (
            f"Duplicates: {where} Two boxes of a class both stay if their IoU is at most {max_overlap:g}: try a lower "
            f"--max-overlap, and see whether neighbours that are both right survive it."
        )
    return (
        f"Class and place: {where} See in the pictures what they hold: a part of an object, or two objects at once? "
        f"More training, or more images with these classes side by side, may help."
    )


def _small_ones(analysis: Analysis) -> str | None:
    """Whether small objects are found less often than large ones, whatever the kind of error."""
    small = _together([row for row in analysis.by_size if row.high <= 0.1])
    large = _together([row for row in analysis.by_size if row.low >= 0.2])
    if min(small.objects, large.objects) >= _ENOUGH:
        low, high = small.found_at_any_score / small.objects, large.found_at_any_score / large.objects
        if high - low >= 0.15:
            return (
                f"Small objects are found less often: at any score, {low:.0%} are found of the {small.objects:,} "
                f"under a tenth of the image (the root of its area), and {high:.0%} of the {large.objects:,} over a "
                f"fifth. Try larger images, windows (`ssd detect --tiles`), and smaller priors (`ssd priors fit`)."
            )
    return None


def _together(rows: Sequence[RecallRow]) -> RecallRow:
    return RecallRow(0, 0, *(sum(getattr(row, k) for row in rows) for k in ("objects", "found", "found_at_any_score")))


def _lower_score(analysis: Analysis, min_score: float) -> str | None:
    """What half the score of use would bring, if that is a tenth of the objects, and not many times as much wrong."""
    errors, lower = analysis.errors, max(analysis.score / 2, min_score)
    scores = errors.found["scores"]
    between = (scores >= lower) & (scores < analysis.score) & errors.seen_by_ap
    more = int((between & (errors.outcome == TRUE_POSITIVE)).sum())
    false = int((between & (errors.outcome == FALSE_POSITIVE)).sum())
    if more < 0.1 * analysis.objects or false > 3 * more:
        return None
    return (
        f"The threshold: at a score of {lower:g}, in place of {analysis.score:g}, {counted(more, 'more object')} "
        f"would be found, for {counted(false, 'more false detection')}. If that is a good bargain for you, lower it."
    )


def _weakest(analysis: Analysis, classes: Sequence[str]) -> str | None:
    """The class with the lowest AP, if it is far below the mean, and the kind that costs it most.

    Of the classes with enough objects, if there are any.
    """
    objects_of = analysis.errors.num_objects
    known = {label: ap for label, ap in analysis.per_class.items() if objects_of[label] >= _ENOUGH}
    label, ap = min((known or analysis.per_class).items(), key=lambda item: item[1])
    if len(analysis.per_class) < 2 or ap > analysis.mean - 0.1:
        return None
    kind = max(KINDS, key=lambda kind: analysis.class_costs[kind][label])
    cost, objects = analysis.class_costs[kind][label], int(objects_of[label])
    worst = f", and {_OF[kind]} cost it most ({cost:.3f})" if cost >= _LEAST_COST else ""
    few = f" It has {counted(objects, 'object')} here: such an AP says little." if objects < _ENOUGH else ""
    among = f", of those with {_ENOUGH} objects and more" if 0 < len(known) < len(analysis.per_class) else ""
    return f"The weakest class{among}: {classes[label - 1]} has an AP of {ap:.3f}{worst}.{few}"


def _in_use(analysis: Analysis) -> ScoreGroup:
    """The detections from the score of use on, as one group."""
    errors = analysis.errors
    used = (errors.outcome != IGNORED) & (errors.found["scores"] >= analysis.score) & errors.seen_by_ap
    (group,) = reliability(errors.found["scores"][used], errors.outcome[used] == TRUE_POSITIVE, (0.0, 1.0))
    return group


def _as_chances(analysis: Analysis) -> str | None:
    """How far scores and shares of right detections are apart, if it is much, and more than chance explains."""
    group = _in_use(analysis)
    low, high = group.interval
    if group.count < _ENOUGH or abs(group.mean_score - group.share_right) < 0.1 or low <= group.mean_score <= high:
        return None
    much = "high" if group.mean_score > high else "low"
    return f"The scores: {_mean_and_share(analysis, group)} Read as chances, they are too {much} on these images."


def reading_of_scores(analysis: Analysis) -> str:
    """What stands above the table of reliability."""
    group = _in_use(analysis)
    if group.count < _ENOUGH:
        return (
            f"Fewer than {_ENOUGH} detections have a score of {analysis.score:g} or more: too few to judge the scores."
        )
    text = _mean_and_share(analysis, group)
    return text[0].upper() + text[1:]


def _mean_and_share(analysis: Analysis, group: ScoreGroup) -> str:
    return (
        f"where they are {analysis.score:g} or more, their mean is {group.mean_score:.2f}, and {group.share_right:.2f} "
        f"of the detections are right."
    )


def _without_object(analysis: Analysis, classes: Sequence[str]) -> str | None:
    """Detections of classes that have no object, which AP does not see."""
    counts = sorted(analysis.without_object.items(), key=lambda item: -item[1])
    if not counts:
        return None
    named = ", ".join(f"{classes[label - 1]} ({count})" for label, count in counts[:5])
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    total = counted(sum(count for _, count in counts), "detection")
    return (
        f"Not in the mAP: {total} with a score of {analysis.score:g} or more, of classes without an object that counts "
        f"here: {named}{more}. A class without objects has no AP, and nothing here says whether they are right."
    )


def percent(value: float) -> str:
    """A share as a percentage, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.0%}"
