"""Drawn clips: what is said of each frame is what is drawn in it, and each object keeps its number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssdlib.boxes import iou
from ssdlib.data.synthetic import motion
from ssdlib.data.synthetic.motion import SITUATIONS, Mover, render_clip

Clip = list[tuple[np.ndarray, dict[int, motion.SceneObject]]]


def clip(situation: str, seed: int = 0, frames: int = 24) -> Clip:
    drawn = render_clip(situation, seed, frames, (128, 112))
    return [(np.asarray(image), {each.number: each.seen for each in objects}) for image, objects in drawn]


def middle(box: tuple[int, int, int, int]) -> float:
    return (box[0] + box[2]) / 2


def test_a_clip_depends_on_its_arguments_only():
    first, again, other = clip("crossing", 3, 4), clip("crossing", 3, 4), clip("crossing", 4, 4)
    assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], other[0][0])
    assert first[0][0].shape == (112, 128, 3)


@pytest.mark.parametrize("seed", range(3))
def test_two_of_one_class_cross(seed: int):
    frames = clip("crossing", seed)
    assert frames[0][1][2].name == frames[0][1][3].name != frames[0][1][1].name
    gaps = [middle(objects[2].box) - middle(objects[3].box) for _, objects in frames if {2, 3} <= objects.keys()]
    assert gaps[0] < 0 < gaps[-1]
    pairs = [
        torch.tensor([objects[2].box, objects[3].box]).float() for _, objects in frames if {2, 3} <= objects.keys()
    ]
    assert max(float(iou(pair[:1], pair[1:])) for pair in pairs) > 0.3
    assert min(objects[2].visible for _, objects in frames if 2 in objects) < 0.8  # the other lies before it
    assert all(objects[3].visible == 1 for _, objects in frames)


@pytest.mark.parametrize("seed", range(3))
def test_one_is_hidden_and_comes_back_with_its_number(seed: int):
    frames = clip("occlusion", seed)
    there = [1 in objects for _, objects in frames]
    assert there[0]
    assert there[-1]
    assert there.count(False) >= 3
    first, last = there.index(False), len(there) - 1 - there[::-1].index(False)
    assert not any(there[first : last + 1])  # one gap
    assert all(len(objects) <= 2 for _, objects in frames)  # what hides it has no label


@pytest.mark.parametrize("seed", range(3))
def test_one_leaves_while_another_comes(seed: int):
    frames = clip("leaving", seed)
    numbers = [set(objects) for _, objects in frames]
    assert {1, 2} <= numbers[0]
    assert 3 not in numbers[0]
    assert {1, 3} <= numbers[-1]
    assert 2 not in numbers[-1]
    cut = [objects[2] for _, objects in frames if 2 in objects and objects[2].truncated]
    assert all(each.box[2] == 128 and each.visible < 1 for each in cut)
    assert cut


def test_what_is_said_is_what_is_drawn(monkeypatch: pytest.MonkeyPatch):
    """Against the same clip without the object: the pixels that differ, but for the shadow, are those of its box."""
    mover = Mover("crate", (0.3, 0.4), (1.05, 0.6), 0.2)
    monkeypatch.setattr(
        motion,
        "finish",
        lambda rgb, rng, light: motion.Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8)),
    )

    def bare(canvas, patch, half):
        """Without a shadow, in one colour that no background has."""
        rows, columns, inside = canvas.inside(patch)
        canvas.rgb[rows, columns][inside] = (1.0, 0.0, 1.0)

    monkeypatch.setattr(motion.Canvas, "paint", bare)
    monkeypatch.setitem(SITUATIONS, "crossing", lambda rng: [mover])
    for pixels, objects in clip("crossing", 0, 8):
        mask = (pixels == (255, 0, 255)).all(axis=2)
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert objects[1].box == (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
        assert objects[1].truncated == (objects[1].visible < 1)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no situation 'parade'; there are crossing, occlusion, leaving"):
        next(render_clip("parade", 0))
    with pytest.raises(ValueError, match="at least 2 frames"):
        next(render_clip("crossing", 0, 1))
