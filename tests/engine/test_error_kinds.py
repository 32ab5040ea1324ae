"""Kinds of errors and their costs: a slow reference, small cases by hand, and what always holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.metric_cases import Case, cases, scattered
from torch import Tensor

from ssdlib.engine.error_kinds import KINDS, ap_at, costs, find_errors, mean_of, mended, one_sided_costs
from ssdlib.metrics import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, evaluate

CAT, DOG = 1, 2
A, B = [0.0, 0, 10, 10], [20.0, 0, 30, 10]
CAT_A = (A, CAT, 0)
FALSE_KINDS = KINDS[:-1]

Row = tuple[list[float], int, float]


def image(*rows: Row) -> dict[str, Tensor]:
    """Detections (box, label, score), or objects with a score of 0, or of 1 for a difficult one."""
    scores = torch.tensor([row[2] for row in rows])
    return {
        "boxes": torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "scores": scores,
        "difficult": scores == 1,
    }


def shifted(box: list[float], by: float) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


# ---- the slow reference: TIDE's rules, one detection after another ------------------------------------------------


def slow_iou(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared) if shared else 0.0


def slow_ap(ranked: list[bool], objects: int) -> float:
    """The area under the envelope: at each true positive a step of 1 / objects, as high as precision is from there."""
    precision = [sum(ranked[: n + 1]) / (n + 1) for n in range(len(ranked))]
    return sum(max(precision[n:]) for n, right in enumerate(ranked) if right) / objects


def slow_errors(case: Case, t_f: float = 0.5, t_b: float = 0.1) -> dict[str, Any]:
    """Detections (image, row, label, score, kind, object) in order, objects (image, row) -> (label, state)."""
    detections, objects = [], {}
    for number, target in enumerate(case[1]):
        hard = target.get("difficult", torch.zeros(len(target["labels"]), dtype=torch.bool)).tolist()
        for m, (box, label) in enumerate(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)):
            objects[number, m] = {"box": box, "label": label, "hard": hard[m], "found": False, "about": []}
    for number, found in enumerate(case[0]):
        rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
        for k, (box, label, score) in enumerate(rows):
            detections.append({"image": number, "row": k, "box": box, "label": label, "score": score})

    for one in sorted(detections, key=lambda one: -one["score"]):
        there = {key: slow_iou(one["box"], o["box"]) for key, o in objects.items() if key[0] == one["image"]}
        own = [key for key in there if objects[key]["label"] == one["label"]]
        best = max(own, key=lambda key: there[key], default=None)
        one["object"] = None
        if best is not None and there[best] >= t_f:
            if objects[best]["hard"]:
                one["kind"] = "ignored"
                continue
            if not objects[best]["found"]:
                one["kind"], one["object"] = "right", best
                objects[best]["found"] = True
                continue
        own = [key for key in own if not objects[key]["hard"]]
        other = [key for key in there if objects[key]["label"] != one["label"] and not objects[key]["hard"]]
        nearest = max(own, key=lambda key: there[key], default=None)
        nearest_other = max(other, key=lambda key: there[key], default=None)
        overlap = there[nearest] if nearest is not None else 0.0
        overlap_other = there[nearest_other] if nearest_other is not None else 0.0
        if t_b <= overlap < t_f:
            one["kind"], one["object"] = "localization", nearest
        elif overlap_other >= t_f:
            one["kind"], one["object"] = "class", nearest_other
        elif overlap >= t_f:
            one["kind"], one["object"] = "duplicate", nearest
        elif max(overlap, overlap_other) < t_b:
            one["kind"] = "background"
        else:
            one["kind"] = "both"
    for one in sorted(detections, key=lambda one: -one["score"]):
        if one["kind"] in ("class", "localization"):
            objects[one["object"]]["about"].append(one)
    for o in objects.values():
        o["missed"] = not (o["hard"] or o["found"] or o["about"])
    return {"detections": detections, "objects": objects}


def slow_mended(errors: dict[str, Any], kinds: Collection[str]) -> dict[int, float]:
    """AP of each class when the kinds are mended."""
    counting = [o for o in errors["objects"].values() if not o["hard"]]
    result = {}
    for label in sorted({o["label"] for o in counting}):
        ranked = []
        for one in errors["detections"]:
            own, right = one["label"], one["kind"] == "right"
            if one["kind"] == "ignored":
                continue
            if one["kind"] in kinds:
                if one["kind"] not in ("class", "localization"):
                    continue
                o = errors["objects"][one["object"]]
                if o["found"] or o["about"][0] is not one:
                    continue
                own, right = o["label"], True
            if own == label:
                ranked.append((one["score"], right))
        ranked.sort(key=lambda pair: -pair[0])
        outcomes = [right for _, right in ranked]
        left = sum(o["label"] == label and not ("missed" in kinds and o["missed"]) for o in counting)
        result[label] = slow_ap(outcomes, left) if left else float(all(outcomes))
    return result


def slow_sides(errors: dict[str, Any]) -> dict[str, float]:
    """mAP gained without false detections, and if only what is found had to be found."""
    now = mean_of(slow_mended(errors, ()))
    right = [one for one in errors["detections"] if one["kind"] in ("right", "ignored")]
    found = {key: o for key, o in errors["objects"].items() if o["found"] or o["hard"]}
    precise = slow_mended(errors | {"detections": right}, ())
    complete = slow_mended(errors | {"objects": found}, ())
    for label in precise.keys() - complete.keys():  # nothing of it is found
        complete[label] = float(all(o["label"] != label or o["kind"] == "ignored" for o in errors["detections"]))
    return {"false_positives": mean_of(precise) - now, "false_negatives": mean_of(complete) - now}


SUBSETS = [(), KINDS, FALSE_KINDS, *[(kind,) for kind in KINDS], ("class", "localization"), ("missed", "background")]


def assert_as_the_reference(case: Case, num_classes: int, iou_threshold: float = 0.5) -> None:
    errors, slow = find_errors(*case, num_classes, iou_threshold), slow_errors(case, iou_threshold)
    names = {FALSE_POSITIVE: KINDS, TRUE_POSITIVE: ["right"] * 9, IGNORED: ["ignored"] * 9}
    kinds = [names[int(o)][k] for o, k in zip(errors.outcome, errors.kind, strict=True)]
    assert kinds == [one["kind"] for one in slow["detections"]]
    keys = errors.objects["image"], errors.objects["index"]
    places = {n: (int(i), int(m)) for n, (i, m) in enumerate(zip(*keys, strict=True))}
    assert [places.get(int(n)) for n in errors.place] == [one["object"] for one in slow["detections"]]
    assert errors.missed.tolist() == [o["missed"] for o in slow["objects"].values()]
    for kinds_mended in SUBSETS:
        assert mended(errors, kinds_mended) == pytest.approx(slow_mended(slow, kinds_mended)), kinds_mended
    assert one_sided_costs(errors) == pytest.approx(slow_sides(slow), nan_ok=True)


@given(cases(), st.sampled_from([0.5, 0.75]))
def test_equals_the_slow_reference(case: Case, iou_threshold: float) -> None:
    assert_as_the_reference(case, 3, iou_threshold)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_reference_on_a_larger_set(seed: int) -> None:
    """With equal scores, three classes and every kind of error: see the test of the sum below."""
    detections, targets = crowded(seed)
    assert_as_the_reference((detections, targets), 4)
    assert all(find_errors(detections, targets, 4).counts().values())


def crowded(seed: int, images: int = 12) -> Case:
    """Objects that lie on each other, found badly: all kinds of errors."""
    generator = torch.Generator().manual_seed(seed)
    detections, targets = [], []
    for _ in range(images):
        corner = torch.randint(0, 24, (6, 2), generator=generator).float()
        boxes = torch.cat((corner, corner + torch.randint(6, 16, (6, 2), generator=generator)), dim=1)
        labels = torch.randint(1, 4, (6,), generator=generator)
        hard = torch.rand(6, generator=generator) < 0.15
        rows = torch.randint(0, 4, (14,), generator=generator)  # the last two are found by chance only
        moved = boxes[rows] + torch.randint(-2, 3, (14, 1), generator=generator) * torch.tensor([1, 0, 1, 0])
        wrong = (torch.rand(14, generator=generator) < 0.3).long()
        scores = torch.randint(1, 20, (14,), generator=generator) / 32
        detections.append({"boxes": moved, "labels": (labels[rows] - 1 + wrong) % 3 + 1, "scores": scores})
        targets.append({"boxes": boxes, "labels": labels, "difficult": hard})
    far = torch.tensor([[90.0, 90, 99, 99]])
    detections[0] = {
        k: torch.cat((v, n))
        for (k, v), n in zip(detections[0].items(), (far, torch.tensor([1]), torch.tensor([0.5])), strict=True)
    }
    targets[0] = {
        k: torch.cat((v, n))
        for (k, v), n in zip(targets[0].items(), (far + 40, torch.tensor([2]), torch.tensor([False])), strict=True)
    }
    return detections, targets


# ---- what always holds -----------------------------------------------------------------------------------------------


@given(cases(), st.sampled_from(["area", "11point"]))
def test_the_kinds_share_out_all_errors(case: Case, rule: Any) -> None:
    errors = find_errors(*case, 3)
    assert ((errors.kind >= 0) == (errors.outcome == FALSE_POSITIVE)).all()
    counts = errors.counts()
    assert sum(counts[kind] for kind in FALSE_KINDS) == (errors.outcome == FALSE_POSITIVE).sum()
    found, difficult = errors.found_by >= 0, errors.objects["difficult"]
    assert not (errors.missed & (found | difficult)).any()
    assert found.sum() == (errors.outcome == TRUE_POSITIVE).sum()
    # every object that counts is found, missed, or there is one error that can be repaired to find it
    assert found.sum() + errors.missed.sum() + errors.repairable.sum() == (~difficult).sum()
    # nothing mended is the usual mAP; all mended is a perfect one
    assert mended(errors, (), rule) == evaluate(*case, 3, ap=rule).per_class
    assert all(ap == pytest.approx(1) for ap in mended(errors, KINDS, rule).values())


@given(cases(), st.sampled_from([0.5, 0.75, 0.95]), st.sampled_from(["area", "11point"]))
def test_another_threshold_is_that_of_the_usual_map(case: Case, threshold: float, rule: Any) -> None:
    per_class, outcome = ap_at(find_errors(*case, 3), threshold, rule)
    wanted = evaluate(*case, 3, iou_threshold=threshold, ap=rule)
    assert per_class == wanted.per_class
    right = sum(int((curve.outcome == TRUE_POSITIVE).sum()) for curve in wanted.curves.values())
    assert (outcome == TRUE_POSITIVE).sum() == right


@given(cases(), st.sets(st.sampled_from(KINDS)), st.sampled_from(KINDS), st.sampled_from(["area", "11point"]))
def test_mending_one_more_kind_never_lowers_an_ap(case: Case, kinds: set[str], more: str, rule: Any) -> None:
    errors = find_errors(*case, 3)
    before, after = mended(errors, kinds, rule), mended(errors, kinds | {more}, rule)
    for label in before:
        assert after[label] >= before[label] - 1e-12


@given(cases())
def test_the_special_costs_bound_those_of_their_side(case: Case) -> None:
    """To remove all false detections is at least as good as to remove those of some kinds."""
    errors = find_errors(*case, 3)
    alone, sides = {kind: mean_of(of_class) for kind, of_class in costs(errors).items()}, one_sided_costs(errors)
    if not errors.num_objects.any():
        assert all(math.isnan(cost) for cost in [*alone.values(), *sides.values()])
        return
    for kind in ("both", "duplicate", "background"):
        assert sides["false_positives"] >= alone[kind] - 1e-12
    assert sides["false_negatives"] >= alone["missed"] - 1e-12
    assert min([*alone.values(), *sides.values()]) >= -1e-12


# ---- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "objects", "expected", "gains"),
    [  # gains: mAP, for each kind
        ([(A, CAT, 0.9)], [(A, CAT, 0)], {}, {}),
        ([(A, DOG, 0.9)], [(A, CAT, 0)], {"class": 1}, {"class": 1}),
        ([(shifted(A, 5), CAT, 0.9)], [(A, CAT, 0)], {"localization": 1}, {"localization": 1}),  # IoU 1/3
        ([(shifted(A, 5), DOG, 0.9)], [(A, CAT, 0)], {"both": 1, "missed": 1}, {"missed": 1}),
        ([(shifted(A, 9), CAT, 0.9)], [(A, CAT, 0)], {"background": 1, "missed": 1}, {}),  # IoU 1/19; both are needed
        ([], [(A, CAT, 0)], {"missed": 1}, {"missed": 1}),
        # AP 5/6, as the duplicate stands before the second cat
        ([(A, CAT, 0.9), (A, CAT, 0.8), (B, CAT, 0.7)], [CAT_A, (B, CAT, 0)], {"duplicate": 1}, {"duplicate": 1 / 6}),
        ([(B, CAT, 0.9), (A, CAT, 0.8)], [(A, CAT, 0)], {"background": 1}, {"background": 1 / 2}),
        ([(A, CAT, 0.9)], [], {"background": 1}, {}),  # no object at all
        ([], [], {}, {}),
        ([(A, CAT, 0.9)], [(A, CAT, 1)], {}, {}),  # on a difficult one: ignored
        ([(A, DOG, 0.9)], [(A, CAT, 1)], {"background": 1}, {}),  # nothing is there that counts
        # the object is found by its own class, so that the wrong answer only goes
        ([(A, DOG, 0.9), (A, CAT, 0.8)], [(A, CAT, 0), (B, DOG, 0)], {"class": 1, "missed": 1}, {}),
        # exactly 1/2 is enough; exactly 1/10 is a bad place
        ([([0.0, 0, 10, 5], CAT, 0.9)], [(A, CAT, 0)], {}, {}),
        ([([0.0, 0, 10, 1], CAT, 0.9)], [(A, CAT, 0)], {"localization": 1}, {"localization": 1}),
        # two wrong answers about one cat: the better one is repaired, whichever kind it has
        ([(A, DOG, 0.9), (shifted(A, 5), CAT, 0.8)], [(A, CAT, 0)], {"class": 1, "localization": 1}, {"class": 1}),
    ],
)  # fmt: skip
def test_by_hand(detections: list[Row], objects: list[Row], expected: dict[str, int], gains: dict[str, float]) -> None:
    errors = find_errors([image(*detections)], [image(*objects)], 3)
    assert {kind: count for kind, count in errors.counts().items() if count} == expected
    gained = {kind: mean_of(of_class) for kind, of_class in costs(errors).items()}
    if errors.num_objects.any():
        assert gained == pytest.approx({kind: gains.get(kind, 0.0) for kind in KINDS})
    else:
        assert all(math.isnan(cost) for cost in gained.values())


def test_one_class_with_equal_scores() -> None:
    """The first in the order given finds the object, as in `evaluate`; the order of images does not matter."""
    errors = find_errors([image((A, CAT, 0.5), (A, CAT, 0.5))], [image((A, CAT, 0))], 2)
    assert errors.outcome.tolist() == [TRUE_POSITIVE, FALSE_POSITIVE]
    assert errors.counts()["duplicate"] == 1
    errors = find_errors([image((shifted(A, 5), CAT, 0.5), (shifted(A, -5), CAT, 0.5))], [image((A, CAT, 0))], 2)
    assert errors.repairable.tolist() == [True, False]
    assert mended(errors, ["localization"]) == {CAT: 1.0}


def test_counts_from_a_score_on() -> None:
    errors = find_errors([image((A, DOG, 0.9), (A, DOG, 0.2), (B, DOG, 0.1))], [image((A, CAT, 0))], 3)
    assert errors.counts(0.2) == dict.fromkeys(KINDS, 0) | {"class": 2}
    assert errors.counts()["background"] == 1


def test_an_order_of_images_that_differs_changes_nothing() -> None:
    detections, targets = scattered(3, difficult=True)
    forward, back = find_errors(detections, targets, 4), find_errors(detections[::-1], targets[::-1], 4)
    assert forward.counts() == back.counts()


@pytest.mark.parametrize("thresholds", [(0.5, 0.0), (0.5, 0.5), (0.1, 0.5), (1.1, 0.1), (math.nan, 0.1)])
def test_thresholds_that_make_no_sense_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"must hold for least_overlap and iou_threshold"):
        find_errors([], [], 3, *thresholds)


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'place' is no kind of error: they are class, localization"):
        mended(find_errors([], [], 3), ["place"])


def test_bad_detections_are_named() -> None:
    with pytest.raises(ValueError, match=r"detections\[0\]\['labels'\]\[0\] is 3"):
        find_errors([image((A, 3, 0.5))], [image()], 3)


def test_thousands_of_images_take_seconds() -> None:
    """Work grows with the detections: here 60,000 of them, 20 classes, and one image that is very full."""
    generator = torch.Generator().manual_seed(0)
    detections, targets = [], []
    for number in range(600):
        count = 400 if number == 0 else 6
        corner = torch.rand(count, 2, generator=generator) * 200
        boxes = torch.cat((corner, corner + 20 + 50 * torch.rand(count, 2, generator=generator)), dim=1)
        labels = torch.randint(1, 21, (count,), generator=generator)
        rows = torch.randint(0, count, (100,), generator=generator)
        found = {"boxes": boxes[rows], "labels": torch.randint(1, 21, (100,), generator=generator)}
        detections.append(found | {"scores": torch.rand(100, generator=generator)})
        targets.append({"boxes": boxes, "labels": labels})
    errors = find_errors(detections, targets, 21)
    assert sum(errors.counts()[kind] for kind in FALSE_KINDS) == (errors.outcome == FALSE_POSITIVE).sum()
    assert np.isfinite([mean_of(of_class) for of_class in costs(errors).values()]).all()
    assert len(list(itertools.chain(*costs(errors).values()))) == 20 * len(KINDS)
