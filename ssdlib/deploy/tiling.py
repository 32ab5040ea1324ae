"""Small objects in large images: look through overlapping windows, and put together what each of them shows.

A network of 300 x 300 sees a photograph of 3000 x 2000 ten times smaller, and an object of 40 pixels as 4. In a window
of 600 x 600 it is 20. Large objects do not fit into a window; they are found in the whole image, which is seen too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.detection import Detection
from ssdlib.nms import nms_fast

Window = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two exclusive."""


def windows(width: int, height: int, side: int, overlap: float = 0.25) -> list[Window]:
    """Windows that cover an image, row by row; the last of a row or column ends where the image does.

    Args:
        width, height: of the image.
        side: of the windows; where the image is smaller, they are as wide or high as it is.
        overlap: the part of a window that its neighbour shows again. An object that is not larger than that is seen
            whole in one of them.

    Raises:
        ValueError: if a side is not positive, or the overlap not from 0 to below 1.

    >>> windows(500, 300, 300)
    [(0, 0, 300, 300), (200, 0, 500, 300)]
    """
    if side < 1 or not 0 <= overlap < 1:
        raise ValueError(f"windows need a side of at least 1 and an overlap from 0 to below 1, got {side}, {overlap}")
    columns, rows = _starts(width, side, overlap), _starts(height, side, overlap)
    return [(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    step = max(1, round(side * (1 - overlap)))
    return [*range(0, max(length - side, 0), step), max(length - side, 0)]


def whole_objects(found: Detection, window: Window, size: tuple[int, int], margin: float = 2.0) -> Detection:
    """The detections of a window, in pixels of the image, without those that an edge of the window may have cut.

    A box at the edge of the window, but not of the image, is a part of an object that a neighbour shows whole. NMS
    would not remove it: a part and its whole overlap by little.

    Args:
        found: boxes in pixels of the window.
        window: where it lies.
        size: width and height of the image.
        margin: so near to an edge, in pixels, a box is cut by it.
    """
    left, top, right, bottom = window
    boxes = found["boxes"] + torch.tensor([left, top, left, top])
    inner = torch.tensor([left > 0, top > 0, right < size[0], bottom < size[1]])
    near = (boxes - torch.tensor(window)).abs() <= margin  # (K, 4)
    kept = ~(near & inner).any(dim=1)
    return {"boxes": boxes[kept], "labels": found["labels"][kept], "scores": found["scores"][kept]}


def merged(parts: list[Detection], max_overlap: float, top_k: int) -> Detection:
    """The detections of all windows as those of one image: NMS for each class over all of them, the best first."""
    boxes, labels, scores = (torch.cat([part[key] for part in parts]) for key in ("boxes", "labels", "scores"))
    order = scores.argsort(descending=True, stable=True)
    boxes, labels, scores = boxes[order], labels[order], scores[order]
    candidates = torch.ones(1, boxes.shape[0], dtype=torch.bool)
    (kept,) = nms_fast(boxes[None], labels[None], candidates, max_overlap, top_k)
    return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}


def crops(pixels: Tensor, side: int, overlap: float = 0.25) -> tuple[list[Window], list[Tensor]]:
    """The whole image (3, H, W), then its windows, each with where it lies; of an image of one window, only itself."""
    height, width = pixels.shape[1:]
    found = windows(width, height, side, overlap)
    places = [(0, 0, width, height), *(found if len(found) > 1 else [])]
    return places, [pixels[:, top:bottom, left:right] for left, top, right, bottom in places]
