"""TrainingPlayer: a recorded training run, its losses, and what each of its checkpoints finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from ssdlib.data import VOCDataset, sample_root
from ssdlib.metrics import IGNORED, TRUE_POSITIVE, best_objects, judge
from ssdlib.plotting import color_of
from ssdlib.widgets.base import BookWidget, image_url, is_number

LOSSES = ("localization", "confidence")
FALSE, APART = -1, -2  # in place of an object's number: a false detection, and one that does not count
ENTRIES = ("checkpoints", "classes", "curve", "images", "min_score", "scenes", "window")


class TrainingPlayer(BookWidget):
    """The losses of a run with the checkpoints on them, and the detections of each in two scenes.

    Args:
        record: of a run, as benchmarks/checkpoints.py writes it; `ssdlib.book.recorded("checkpoints")` is one.
        traits: any of the attributes.

    Attributes:
        checkpoint: which of them is shown, from 0 on.
        min_score: detections with a lower score are not shown.
        run: what is drawn, made from the record and the sample's test images; it cannot be set.

    Raises:
        ValueError: if the record lacks an entry, or its parts do not fit each other; the message names what.

    Example:
        >>> from ssdlib.book import recorded
        >>> player = TrainingPlayer(recorded("checkpoints"))
        >>> player.checkpoint = 11
        >>> player.current["step"]
        2300
    """

    _module = "training_player"

    title = traitlets.Unicode("Training player: twelve checkpoints of one run").tag(sync=True)
    run = traitlets.Dict(read_only=True).tag(sync=True)
    checkpoint = traitlets.Int(0).tag(sync=True)
    min_score = traitlets.Float(0.3).tag(sync=True)

    def __init__(self, record: Mapping[str, Any], **traits: Any) -> None:
        self.set_trait("run", drawn_run(record))
        super().__init__(**traits)

    @traitlets.validate("checkpoint")
    def _check_checkpoint(self, proposal: Any) -> int:
        last = len(self.run["checkpoints"]) - 1
        if not 0 <= proposal.value <= last:
            raise traitlets.TraitError(f"checkpoint must be 0 to {last}; got {proposal.value}")
        return int(proposal.value)

    @traitlets.validate("min_score")
    def _check_min_score(self, proposal: Any) -> float:
        least = self.run["min_score"]
        if not (is_number(proposal.value) and least <= proposal.value <= 1):
            raise traitlets.TraitError(f"min_score must be {least} (the record has no lower ones) to 1")
        return float(proposal.value)

    @property
    def current(self) -> dict[str, Any]:
        """The checkpoint that is shown: "step", "mAP", and "AP" for each class in order."""
        chosen: dict[str, Any] = self.run["checkpoints"][self.checkpoint]
        return chosen

    def shown(self, scene: int) -> list[list[float]]:
        """What the checkpoint finds in a scene with at least the score, best first: rows as `judged` gives them."""
        found = self.run["scenes"][scene]["found"][self.checkpoint]
        return [row for row in found if row[4] >= self.min_score]

    def describe(self) -> str:
        """The point in the run, its mAP, and how many objects of the scenes are found there, in words."""
        curve, now = self.run["curve"], self.current
        shown = [row for scene in range(len(self.run["scenes"])) for row in self.shown(scene)]
        hits, false = sum(row[6] >= 0 for row in shown), sum(row[6] == FALSE for row in shown)
        objects = sum(scene["count"] for scene in self.run["scenes"])
        return (
            f"Two falling curves, the losses of {self.run['steps']} training steps: localization from "
            f"{curve['localization'][0]:.1f} to {curve['localization'][-1]:.1f}, confidence from "
            f"{curve['confidence'][0]:.1f} to {curve['confidence'][-1]:.1f}. At step {now['step']} the mAP is "
            f"{now['mAP']:.2f}, and with a score of at least {self.min_score:g} the detector finds {hits} of the "
            f"{objects} objects of {len(self.run['scenes'])} scenes, with {false} false detection{'s' * (false != 1)}."
        )

    def picture(self) -> Figure:
        """The losses, and the mAP of the checkpoints."""
        figure = Figure(figsize=(5.6, 2.6), layout="constrained")
        ax = figure.add_subplot()
        curve, checkpoints = self.run["curve"], self.run["checkpoints"]
        for number, name in enumerate(LOSSES, start=1):
            ax.plot(curve["step"], curve[name], color=color_of(number), label=f"{name} loss")
        ax.axvline(self.current["step"], color="0.4", linewidth=1)
        ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
        right = ax.twinx()
        steps, maps = ([each[key] for each in checkpoints] for key in ("step", "mAP"))
        right.plot(steps, maps, "o--", color="0.2", markersize=4, label="mAP")
        right.set(ylabel="mAP", ylim=(0, 1))
        figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
        return figure


def drawn_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the page needs of a record.

    Raises:
        ValueError: as the widget.
    """
    lacks = [name for name in ENTRIES if name not in record]
    if lacks:
        raise ValueError(f"this is no record of checkpoints: it lacks {', '.join(lacks)}")
    checkpoints, curve, classes = record["checkpoints"], record["curve"], record["classes"]
    steps = [each["step"] for each in checkpoints]
    if not steps or steps != sorted(set(steps)):
        raise ValueError(f"the record's checkpoints must be at steps that rise; got {steps}")
    if len({len(curve[name]) for name in ("step", *LOSSES)}) != 1:
        raise ValueError("the record's curve must have as many values of each loss as steps")
    dataset = VOCDataset(sample_root(), "test", classes)
    scenes = []
    for place, number in enumerate(record["scenes"]):
        if not (isinstance(number, int) and 0 <= number < len(dataset)):
            raise ValueError(f"the record's scenes must be numbers of the sample's test images; got {number!r}")
        target = dataset.target(number)
        found = []
        for each in checkpoints:
            if len(each["detections"]) != len(record["scenes"]):
                count = f"{len(each['detections'])} scenes, not of {len(record['scenes'])}"
                raise ValueError(f"the record's step {each['step']} has detections of {count}")
            found.append(judged(each["detections"][place], target, len(classes) + 1))
        objects = [
            {"box": box, "label": label, "counts": not difficult}
            for box, label, difficult in zip(
                *(target[key].tolist() for key in ("boxes", "labels", "difficult")), strict=True
            )
        ]
        scenes.append(
            {
                "image": image_url(dataset.image_path(number)),
                "size": list(dataset.size(number)),
                "objects": objects,
                "count": sum(each["counts"] for each in objects),
                "found": found,
            }
        )
    return {
        "classes": list(classes),
        "steps": steps[-1],
        "images": dict(record["images"]),
        "window": record["window"],
        "min_score": record["min_score"],
        "curve": {name: list(curve[name]) for name in ("step", *LOSSES)},
        "checkpoints": [
            {"step": each["step"], "mAP": each["mAP"], "AP": [each["AP"].get(name, 0.0) for name in classes]}
            for each in checkpoints
        ],
        "scenes": scenes,
    }


def judged(rows: list[list[float]], target: dict[str, Tensor], num_classes: int) -> list[list[float]]:
    """Detections of one image, best first, each with the object that it found, by the rules of `evaluate` at 0.5 IoU.

    Args:
        rows: of x_min, y_min, x_max, y_max in pixels, score, label, as the record has them.
        target: of the image.
        num_classes: with the background.

    Returns:
        The same rows, each with one more number: that of the object; or `FALSE` for a false positive, `APART` for a
        detection of a difficult object, which does not count.

    Raises:
        ValueError: if a row is no detection.
    """
    for row in rows:
        if len(row) != 6 or not all(is_number(value) for value in row) or not 1 <= row[5] < num_classes:
            raise ValueError(f"a detection must be x_min, y_min, x_max, y_max, score, label; got {row}")
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    table = table[np.argsort(-table[:, 4], kind="stable")]
    boxes, labels, difficult = (target[key].numpy() for key in ("boxes", "labels", "difficult"))
    best, overlap = best_objects(table[:, :4], table[:, 5].astype(np.int64), boxes.astype(np.float64), labels)
    outcome = judge(best, overlap, difficult)
    objects = np.where(outcome == TRUE_POSITIVE, best, np.where(outcome == IGNORED, APART, FALSE))
    return [[*row, number] for row, number in zip(table.tolist(), objects.tolist(), strict=True)]
