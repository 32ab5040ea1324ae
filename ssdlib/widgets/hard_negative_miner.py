"""HardNegativeMiner: the negatives of an image that count in the loss, hardest first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.loss import assign_targets, background_loss, mine_hard_negatives, multibox_loss
from ssdlib.plotting import PALETTE, draw_priors, show_image
from ssdlib.widgets.base import BookWidget, image_url, open_url

MOST = 10
"""The largest ratio that the page can show: so many negatives for each positive are sent to it."""


class HardNegativeMiner(BookWidget):
    """Positives and mined negatives of an image, and what mining makes of the confidence loss.

    Args:
        image: a JPEG or PNG file, a PIL image, or a tensor (3, H, W).
        target: "boxes" (M, 4) xyxy in fractions of the image, and "labels" (M,); M = 0 is legal.
        offsets: (1, P, 4), what the network predicts for the image.
        logits: (1, P, C), likewise.
        priors_cxcywh: (P, 4), fractional.
        classes: names of the labels 1..C-1.
        traits: further traits, as below.

    Attributes:
        ratio: negatives for each positive, 0 to 10.
        shown: how many of the mined negatives are drawn, hardest first, at first none; the last of them is described.
        drawn: which boxes are drawn, of "objects", "positives" and "negatives".
        size: (width, height) of the image in pixels.
        scene: what a page needs of the image: positives, hardest negatives, and sums of their losses.

    Raises:
        ValueError: if the shapes of predictions, priors and classes do not fit.

    Example:
        >>> priors = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.4, 0.4], [0.8, 0.8, 0.4, 0.4]])
        >>> target = {"boxes": torch.tensor([[0.3, 0.3, 0.7, 0.7]]), "labels": torch.tensor([1])}
        >>> logits = torch.tensor([[[0.0, 2.0], [1.0, 3.0], [2.0, 0.0]]])
        >>> miner = HardNegativeMiner(torch.zeros(3, 80, 80), target, torch.zeros(1, 3, 4), logits, priors, ["ball"])
        >>> miner.ratio = 1
        >>> miner.mined.tolist()
        [False, True, False]
        >>> round(miner.losses["confidence"], 3)
        2.254
    """

    _module = "hard_negative_miner"
    _from_network = True

    title = traitlets.Unicode("Hard negative miner: which negatives count").tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(), traitlets.Int()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    ratio = traitlets.Int(3, min=0, max=MOST).tag(sync=True)
    shown = traitlets.Int().tag(sync=True)
    drawn = traitlets.List(
        traitlets.Enum(("objects", "positives", "negatives")), default_value=["objects", "positives", "negatives"]
    ).tag(sync=True)

    def __init__(
        self,
        image: str | os.PathLike[str] | Tensor | Image.Image,
        target: dict[str, Any],
        offsets: Tensor,
        logits: Tensor,
        priors_cxcywh: Tensor,
        classes: Sequence[str],
        **traits: Any,
    ) -> None:
        if logits.shape[-1] != len(classes) + 1:
            raise ValueError(f"logits of {logits.shape[-1]} classes with background, but {len(classes)} names")
        self._target, self._offsets, self._logits = target, offsets.detach().float(), logits.detach().float()
        self._priors = priors_cxcywh.float()
        multibox_loss(self._offsets, self._logits, [target], self._priors)  # refuses what does not fit
        labels, _ = assign_targets([target], self._priors, len(classes) + 1)
        self._labels = labels[0]  # (P,)
        address = image_url(image)
        size = open_url(address).size
        super().__init__(image=address, size=size, classes=list(classes), scene=self._measured(size))
        for name, value in {"ratio": 3, **traits}.items():
            setattr(self, name, value)

    @property
    def mined(self) -> Tensor:
        """(P,) bool: the mined negatives, by :func:`ssdlib.loss.mine_hard_negatives`."""
        return mine_hard_negatives(background_loss(self._logits), self._labels[None] > 0, self.ratio)[0]

    @property
    def losses(self) -> dict[str, float]:
        """Localization and confidence loss at this ratio, by :func:`ssdlib.loss.multibox_loss`."""
        return {name: float(loss) for name, loss in self._losses(self.ratio).items()}

    @traitlets.observe("ratio")
    def _show_no_more(self, change: Any) -> None:
        self.shown = min(self.shown, self._wanted())

    @traitlets.validate("shown")
    def _check_shown(self, proposal: Any) -> Any:
        if not 0 <= proposal.value <= self._wanted():
            raise traitlets.TraitError(f"shown must be 0 to {self._wanted()} at this ratio; got {proposal.value}")
        return proposal.value

    def describe(self) -> str:
        """Positives, mined negatives and the loss, in words."""
        return (
            f"An image with {int((self._labels > 0).sum())} positive priors and the {int(self.mined.sum())} negatives "
            f"with the largest loss. The confidence loss is {self.losses['confidence']:.2f}; "
            f"with all negatives it would be {self._all_negatives():.2f}."
        )

    def picture(self) -> Figure:
        """The positives, and the mined negatives, on the image."""
        width, height = self.size
        inch = max(width, height) / 3.2  # photographs weigh much as PNG
        figure = Figure(figsize=(width / inch, height / inch + 0.5), layout="constrained")
        ax = show_image(open_url(self.image), figure.add_subplot())
        draw_priors(ax, self._priors[self.mined], width, height, color=PALETTE[3], linestyle="--", linewidth=0.9)
        draw_priors(ax, self._priors[self._labels > 0], width, height, color=PALETTE[6], linewidth=1.2)
        ax.set(xlim=(0, width), ylim=(height, 0))
        positives, mined = int((self._labels > 0).sum()), int(self.mined.sum())
        ax.set_title(f"{positives} positives (yellow), {mined} mined negatives (dashed)", fontsize=9)
        return figure

    def _wanted(self) -> int:
        """How many negatives are mined at this ratio."""
        return int(min(self.ratio * max(1, len(self.scene["positives"])), self.scene["sums"]["number"]))

    def _losses(self, ratio: int) -> dict[str, Tensor]:
        return multibox_loss(self._offsets, self._logits, [self._target], self._priors, negatives_per_positive=ratio)

    def _all_negatives(self) -> float:
        return float(self._losses(len(self._priors))["confidence"])

    def _measured(self, size: tuple[int, int]) -> dict[str, Any]:
        """What a page needs: rows for positives and hardest negatives, and the sums of their losses."""
        scale = torch.tensor([*size, *size], dtype=torch.float32)
        corners = cxcywh_to_xyxy(self._priors)
        probabilities = self._logits[0].softmax(dim=-1)  # (P, C)
        claimed = probabilities[:, 1:].argmax(dim=1) + 1  # (P,): the most likely object
        loss = F.cross_entropy(self._logits[0], self._labels, reduction="none").double()  # (P,)
        positive = self._labels > 0
        objects = self._target["boxes"].float().reshape(-1, 4)
        overlap = iou(objects, corners).amax(dim=0) if len(objects) else torch.zeros(len(corners))
        tenths = (corners * scale * 10).round().int()
        most = min(MOST * max(1, int(positive.sum())), int((~positive).sum()))
        hardest = loss.masked_fill(positive, -torch.inf).topk(most).indices
        return {
            "objects": [
                [*(round(side, 1) for side in box), label]
                for box, label in zip((objects * scale).tolist(), self._target["labels"].tolist(), strict=True)
            ],
            # A positive: its box in tenths of a pixel, and its label.
            "positives": [
                [*tenths[prior].tolist(), int(self._labels[prior])] for prior in positive.nonzero().squeeze(1).tolist()
            ],
            # A negative: its box, the most likely object, and in thousandths: how likely that is, how likely
            # background is, the loss, and the IoU with the nearest object.
            "negatives": [
                [
                    *tenths[prior].tolist(),
                    int(claimed[prior]),
                    *(
                        round(1000 * float(value))
                        for value in (
                            probabilities[prior, claimed[prior]],
                            probabilities[prior, 0],
                            loss[prior],
                            overlap[prior],
                        )
                    ),
                ]
                for prior in hardest.tolist()
            ],
            "sums": {
                "positives": float(loss[positive].sum()),
                "negatives": float(loss[~positive].sum()),
                "number": int((~positive).sum()),
                "hardest": [0.0, *loss[hardest].cumsum(dim=0).tolist()],  # of the first 0, 1, 2, ... hardest
                "localization": float(self._losses(0)["localization"]),
            },
        }
