"""Tracks: which object of this frame is which of the last one, so that each keeps its number through a video.

The way of ByteTrack. Each track says where its object should be now. Sure detections are given to the tracks that they
overlap most, all at once; then the tracks that are left may take unsure ones, such as an object that is half hidden,
which would not begin a track. What is not seen for a while is given up.

Source: Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box (2022). In place of its Kalman
filter, whose gains settle after a few frames, stands one of fixed gains (an alpha-beta filter).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.deploy.extras import require
from ssdlib.deploy.found import Found

POSITION_GAIN, VELOCITY_GAIN = 0.7, 0.3
"""How much of the distance between a prediction and what was seen goes into the place and into the velocity."""


@dataclass
class Track:
    """An object through time.

    Attributes:
        number: 1, 2, ...; never used again.
        label: its class.
        place: (4,) cxcywh in pixels, where it is, or should be.
        velocity: (4,) pixels a frame.
        unseen: frames since it was seen.
    """

    number: int
    label: int
    place: Tensor
    velocity: Tensor = field(default_factory=lambda: torch.zeros(4))
    unseen: int = 0

    def predict(self) -> None:
        """Go on by a frame."""
        self.place = self.place + self.velocity
        self.place[2:] = self.place[2:].clamp(min=1.0)
        self.unseen += 1

    def see(self, box_xyxy: Tensor) -> None:
        """Take what was seen in this frame.

        Raises:
            ValueError: if `predict` has not been called for this frame.
        """
        if self.unseen == 0:
            raise ValueError(f"track {self.number} was seen in this frame already: call predict() for the next one")
        difference = xyxy_to_cxcywh(box_xyxy) - self.place
        gap = self.unseen  # frames over which the difference came about
        self.place = self.place + POSITION_GAIN * difference
        self.velocity = self.velocity + VELOCITY_GAIN * difference / gap
        self.unseen = 0


class Tracker:
    """Numbers for the objects of a video, frame by frame.

    Args:
        high: detections with at least this score begin tracks.
        low: those from here to `high` only go on with tracks that were seen in the frame before.
        min_overlap: least IoU of a detection and the place that a track predicts.
        patience: frames after which a track that is not seen is given up.

    Raises:
        ValueError: if a number is out of range, or the package scipy is not installed.
    """

    def __init__(self, *, high: float = 0.5, low: float = 0.1, min_overlap: float = 0.2, patience: int = 30) -> None:
        if not (0 <= low <= high <= 1 and 0 < min_overlap <= 1 and patience >= 0):
            raise ValueError(f"wrong numbers for a tracker: {low=}, {high=}, {min_overlap=}, {patience=}")
        self.high, self.low, self.min_overlap, self.patience = high, low, min_overlap, patience
        self.tracks: list[Track] = []
        self._assign = require("scipy.optimize", "video").linear_sum_assignment
        self._count = 0

    def update(self, found: Found) -> tuple[Found, Tensor]:
        """Take the detections of the next frame.

        Args:
            found: with scores down to `low`.

        Returns:
            The objects that belong to a track, and its number for each (K,) int64.
        """
        for track in self.tracks:
            track.predict()
        numbers = torch.zeros(len(found), dtype=torch.int64)
        sure = found.scores >= self.high
        left = self._match(found, numbers, sure, self.tracks)
        unsure = ~sure & (found.scores >= self.low)
        self._match(found, numbers, unsure, [track for track in left if track.unseen == 1])
        for i in (sure & (numbers == 0)).nonzero().flatten().tolist():
            self._count += 1
            self.tracks.append(Track(self._count, int(found.labels[i]), xyxy_to_cxcywh(found.boxes[i])))
            numbers[i] = self._count
        self.tracks = [track for track in self.tracks if track.unseen <= self.patience]
        return found.keep(numbers > 0), numbers[numbers > 0]

    def _match(self, found: Found, numbers: Tensor, candidates: Tensor, tracks: list[Track]) -> list[Track]:
        """Give candidates to tracks so that the sum of the overlaps is the largest; the tracks that got none."""
        rows = candidates.nonzero().flatten()
        if not tracks or not len(rows):
            return tracks
        places = cxcywh_to_xyxy(torch.stack([track.place for track in tracks]))
        overlap = iou(found.boxes[rows], places)  # (D, T)
        labels = torch.tensor([track.label for track in tracks])
        overlap = overlap * (found.labels[rows][:, None] == labels)
        # What is too far away counts as nothing, so that it does not keep a near one from another track.
        overlap = overlap * (overlap >= self.min_overlap)
        taken = set()
        for row, column in zip(*self._assign(-overlap.numpy()), strict=True):
            if overlap[row, column] > 0:
                tracks[column].see(found.boxes[rows[row]])
                numbers[rows[row]] = tracks[column].number
                taken.add(column)
        return [track for column, track in enumerate(tracks) if column not in taken]


def mot_lines(frame: int, found: Found, numbers: Tensor) -> list[str]:
    """Lines of the format of the MOT challenge: frame and number from 1, left, top, width, height, score, and -1s.

    Args:
        frame: from 0.
        found: the objects of the frame.
        numbers: (K,), their tracks.
    """
    return [
        f"{frame + 1},{number},{x:.2f},{y:.2f},{right - x:.2f},{bottom - y:.2f},{score:.4f},-1,-1,-1"
        for number, (x, y, right, bottom), score in zip(
            numbers.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True
        )
    ]
