"""NmsStepper: non-maximum suppression on the candidates of a trained network, one round after the other."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.coding import decode
from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import SSD, prepare
from ssdlib.nms import nms
from ssdlib.plotting import PALETTE, draw_boxes, show_image
from ssdlib.widgets.base import BookWidget, image_url, is_number, open_url
from ssdlib.zoo.checkpoint import demo_model

LEAST_SCORE, MOST_CANDIDATES = 0.05, 120


@torch.no_grad()
def find_candidates(
    model: SSD, image: Tensor, least_score: float = LEAST_SCORE, most: int = MOST_CANDIDATES
) -> dict[str, Tensor]:
    """What enters NMS: every pair of prior and class with enough of a score, before anything is suppressed.

    Args:
        model: in evaluation mode, on the CPU.
        image: (3, H, W) uint8.
        least_score: candidates have at least this score.
        most: at most so many, the best ones.

    Returns:
        "boxes" (K, 4) xyxy in pixels, clipped to the image, "labels" (K,) int64, "scores" (K,); best score first.
    """
    height, width = image.shape[-2:]
    offsets, logits = model(prepare(image, model.recipe.image_size)[None])
    boxes = cxcywh_to_xyxy(decode(offsets[0], model.priors)).clamp(0, 1) * torch.tensor([width, height, width, height])
    scores = logits[0].softmax(dim=-1)[:, 1:]  # (P, C - 1)
    prior, column = (scores >= least_score).nonzero(as_tuple=True)
    order = scores[prior, column].argsort(descending=True, stable=True)[:most]
    prior, column = prior[order], column[order]
    return {"boxes": boxes[prior], "labels": column + 1, "scores": scores[prior, column]}


class NmsStepper(BookWidget):
    """NMS on real candidates, to step through: the current best, what it suppresses, and why.

    Step 0 shows all candidates. Each step after it is one round: the best of the waiting candidates is kept, and
    those that overlap it by more than `max_overlap` are suppressed. The last step shows what was kept.

    Attributes:
        image: the picture, as the address that holds it; a file, a tensor (3, H, W) or a PIL image is taken too.
        size: (width, height) of the image in pixels.
        classes: names of the labels 1, 2, ...
        boxes, labels, scores: the K candidates, boxes [x_min, y_min, x_max, y_max] in pixels. By default those that
            the small detector of the package finds in a scene of the sample.
        label: the class whose candidates are shown; 0 for all classes, one after the other.
        together: with label 0, whether boxes of different classes suppress each other (they should not).
        min_score: candidates have at least this score, 0.05..1.
        max_overlap: the IoU that two kept boxes of a class may have, 0..1.
        step: 0 to `last_step`.
        candidate: number of the candidate that is pointed out, -1 for none.

    Example:
        >>> stepper = NmsStepper(label=3, min_score=0.1)
        >>> stepper.step = stepper.last_step
        >>> kept = stepper.kept  # numbers of the kept candidates, in the order of the rounds
        >>> stepper.max_overlap = 1.0  # nothing is a duplicate any more
        >>> len(stepper.kept) > len(kept)
        True
    """

    _module = "nms_stepper"
    _from_network = True

    title = traitlets.Unicode("NMS stepper: of many boxes for one object, keep the best").tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(min=1), traitlets.Int(min=1), default_value=(1, 1)).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    boxes = traitlets.List(traitlets.List(traitlets.Float(), minlen=4, maxlen=4)).tag(sync=True)
    labels = traitlets.List(traitlets.Int(min=1)).tag(sync=True)
    scores = traitlets.List(traitlets.Float(min=0, max=1)).tag(sync=True)
    label = traitlets.Int(0).tag(sync=True)
    together = traitlets.Bool(False).tag(sync=True)
    min_score = traitlets.Float(LEAST_SCORE).tag(sync=True)
    max_overlap = traitlets.Float(0.45).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    candidate = traitlets.Int(-1).tag(sync=True)

    def __init__(self, image: Any = None, **traits: Any) -> None:
        if image is None:
            dataset = VOCDataset(sample_root(), "test")
            image = dataset.image_path(31)
            found = find_candidates(demo_model(), dataset[31][0])
            traits = {"classes": list(dataset.classes), "size": dataset.size(31), **found, **traits}
        address = image if isinstance(image, str) and image.startswith("data:") else image_url(image)
        traits.setdefault("size", open_url(address).size)
        for name, digits in (("boxes", 1), ("scores", 3), ("labels", 0)):
            values = torch.as_tensor(traits.get(name, []))
            # Rounded once, here: Python and the page then compare exactly the same numbers.
            traits[name] = values.double().round(decimals=digits).tolist() if digits else values.tolist()
        super().__init__(image=address, **traits)

    @classmethod
    def from_model(cls, model: SSD, image: Tensor, **traits: Any) -> NmsStepper:
        """The candidates of a model's own classes in an image (3, H, W) uint8, by `find_candidates`."""
        return cls(image, classes=list(model.classes), **find_candidates(model, image), **traits)

    @property
    def rounds(self) -> list[tuple[int, dict[int, float]]]:
        """For each round the candidate that is kept, and what it suppresses, each with its IoU.

        The kept ones are those of :func:`ssdlib.nms.nms`, run on each class by itself (or once, if `together`).
        """
        boxes = torch.tensor(self.boxes, dtype=torch.float64).reshape(-1, 4)
        scores, labels = torch.tensor(self.scores, dtype=torch.float64), torch.tensor(self.labels, dtype=torch.int64)
        passed = scores >= self.min_score
        rounds: list[tuple[int, dict[int, float]]] = []
        for group in self._groups():
            waiting = (passed & torch.isin(labels, torch.tensor(group, dtype=torch.int64))).nonzero().squeeze(1)
            kept = waiting[nms(boxes[waiting], scores[waiting], self.max_overlap)]
            overlap = iou(boxes[kept], boxes[waiting])  # (rounds, waiting)
            # Whoever is kept first of those that overlap a candidate too much suppresses it.
            by = (overlap > self.max_overlap).int().argmax(dim=0) if len(kept) else kept
            for number, best in enumerate(kept.tolist()):
                lost = (overlap[number] > self.max_overlap) & (by == number) & ~torch.isin(waiting, kept)
                rounds.append((best, dict(zip(waiting[lost].tolist(), overlap[number, lost].tolist(), strict=True))))
        return rounds

    @property
    def kept(self) -> list[int]:
        """Numbers of the candidates that NMS keeps, in the order of the rounds."""
        return [best for best, _ in self.rounds]

    @property
    def last_step(self) -> int:
        """The step that shows the result: one more than there are rounds."""
        return len(self.rounds) + 1

    def describe(self) -> str:
        """The candidates and the round that is shown, in words."""
        rounds = self.rounds
        number = len(rounds) + sum(len(lost) for _, lost in rounds)
        text = f"A scene with {number} candidates of {self._name(self.label)}, of which NMS keeps {len(rounds)}."
        if 0 < self.step <= len(rounds):
            best, lost = rounds[self.step - 1]
            text += (
                f" Round {self.step} keeps the {self.classes[self.labels[best] - 1]} with a score of "
                f"{self.scores[best]:.3f} and suppresses {len(lost)}, whose IoU with it is above {self.max_overlap:g}."
            )
        return text

    def picture(self) -> Figure:
        """The candidates on the left, what NMS keeps on the right."""
        rounds = self.rounds
        width, height = self.size
        figure = Figure(figsize=(4.2, 2.0 * height / width + 0.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        everything = sorted([best for best, _ in rounds] + [number for _, lost in rounds for number in lost])
        for ax, title, numbers in (
            (left, f"{len(everything)} candidates", everything),
            (right, f"{len(rounds)} kept", self.kept),
        ):
            show_image(open_url(self.image), ax, title)
            boxes = torch.tensor([self.boxes[number] for number in numbers])
            draw_boxes(ax, boxes, [self.labels[number] for number in numbers], linewidth=1.2)
        if 0 < self.step <= len(rounds):
            best, lost = rounds[self.step - 1]
            doomed = torch.tensor([self.boxes[number] for number in lost])
            draw_boxes(left, doomed, color=PALETTE[1], linewidth=1.6, linestyle="--")
            draw_boxes(left, torch.tensor(self.boxes[best]), color=PALETTE[0], linewidth=3)
        return figure

    def _groups(self) -> list[list[int]]:
        """The labels that meet each other in NMS."""
        if self.label:
            return [[self.label]]
        every = sorted(set(self.labels))
        return [every] if self.together else [[label] for label in every]

    def _name(self, label: int) -> str:
        return f"the class {self.classes[label - 1]}" if label else "all classes"

    @traitlets.validate("min_score", "max_overlap")
    def _check_share(self, proposal: Any) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low = LEAST_SCORE if name == "min_score" else 0.0
        if not (is_number(value) and low <= value <= 1):
            raise traitlets.TraitError(f"{name} must be a number from {low:g} to 1; got {value!r}")
        return float(value)

    @traitlets.validate("classes")
    def _classes_named(self, proposal: Any) -> Any:
        if max(self.labels, default=0) > len(proposal["value"]):
            raise traitlets.TraitError(f"label {max(self.labels)} has no name in the classes {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("boxes", "scores", "labels")
    def _check_candidates(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        counts = {key: len(value if key == name else getattr(self, key)) for key in ("boxes", "labels", "scores")}
        if len(set(counts.values())) > 1:
            raise traitlets.TraitError(f"boxes, labels and scores must be equally many; got {counts}")
        if name == "labels" and max(value, default=0) > len(self.classes):
            raise traitlets.TraitError(f"label {max(value)} has no name: there are {len(self.classes)} classes")
        if name == "boxes" and not all(is_number(number) for box in value for number in box):
            raise traitlets.TraitError("boxes must be finite numbers")
        return value

    @traitlets.validate("label")
    def _check_label(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] <= len(self.classes):
            raise traitlets.TraitError(f"label must be 0 (all) to {len(self.classes)}; got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("candidate")
    def _check_candidate(self, proposal: Any) -> int:
        if not -1 <= proposal["value"] < len(self.scores):
            raise traitlets.TraitError(
                f"candidate must be -1 (none) to {len(self.scores) - 1}; got {proposal['value']}"
            )
        return proposal["value"]

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        if not 0 <= proposal["value"] <= self.last_step:
            raise traitlets.TraitError(f"step must be 0 to {self.last_step}; got {proposal['value']}")
        return proposal["value"]

    @traitlets.observe("label", "together", "min_score", "max_overlap")
    def _stay_in_range(self, change: Any) -> None:
        self.step = min(self.step, self.last_step)
