"""What comes out of an exported file, as detections: the steps that the file leaves to who runs it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssdlib.deploy.runtimes import Array
from ssdlib.detection import Detection, by_image, detect, has_area, shortlists
from ssdlib.model import SSD
from ssdlib.nms import nms_fast


def detections_of(
    rows: Sequence[Array],
    model: SSD,
    outputs: str,
    min_score: float = 0.05,
    max_overlap: float = 0.45,
    images: int | None = None,
    top_k: int = 200,
) -> list[Detection]:
    """Turn the outputs of an exported file into detections, as `ssdlib.detection.detect` gives them.

    Args:
        rows: what the file gave for N images.
        model: the SSD that it was made of: its priors and its activation are needed for "raw".
        outputs: of `ssdlib.deploy.export.OUTPUTS`: "raw", "boxes" or "nms".
        min_score, max_overlap: as for `detect`; "nms" has these in the file, of which min_score may be raised here.
        images: N, which only the rows of "nms" do not tell: by default 1.
        top_k: at most so many an image.

    Returns:
        One dict an image, with boxes in fractions of it.
    """
    tensors = [torch.from_numpy(row) for row in rows]
    if outputs == "raw":
        offsets, logits = tensors
        priors = model.priors.cpu()
        return detect(offsets, logits, priors, min_score, max_overlap, top_k, activation=model.activation)
    if outputs == "boxes":
        all_boxes, all_scores = tensors
        for found in shortlists(all_scores[..., 1:], min_score, 400):  # usually the first one is enough
            boxes = all_boxes.take_along_dim(found.priors[..., None], dim=1).clamp(0, 1)  # (N, K, 4)
            kept = nms_fast(boxes, found.labels, found.valid & has_area(boxes), max_overlap, top_k)
            if (kept.sum(dim=1) >= top_k).all():
                break
        return by_image(kept, boxes, found.labels, found.scores)
    where, labels, boxes, scores = tensors
    detections = []
    for number in range(1 if images is None else images):
        mine = ((where == number) & (scores >= min_score)).nonzero().flatten()
        mine = mine[scores[mine].argsort(descending=True, stable=True)][:top_k]
        detections.append({"boxes": boxes[mine], "labels": labels[mine], "scores": scores[mine]})
    return detections
