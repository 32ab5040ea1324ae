"""Keypoints of drawn fish: on the fish, where the drawing has them, and hidden where something else is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ssdlib.data.synthetic.canvas import Pose, render
from ssdlib.data.synthetic.keypoints import FISH_KEYPOINTS, keypoint_scenes
from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.data.synthetic.scenes import render_masks, render_poses
from ssdlib.data.synthetic.shapes import MAX_TURN, OBJECTS, fish

LIGHT = np.array([0.4, -0.5, 0.77], np.float32)


@pytest.mark.parametrize("name", list(FISH_KEYPOINTS))
def test_a_keypoint_lies_on_every_fish(name: str) -> None:
    u, v = (np.full((1, 1), side, np.float32) for side in FISH_KEYPOINTS[name])
    for seed in range(100):
        distance, colour = fish(u, v, np.random.default_rng(seed), LIGHT)
        assert distance < -0.02
        if name == "eye":
            assert colour.max() < 0.1, "the pupil is nearly black"


@given(
    turn=st.floats(-MAX_TURN["fish"], MAX_TURN["fish"]),
    mirror=st.booleans(),
    x=st.floats(30, 60),
    y=st.floats(30, 60),
    half=st.floats(12, 40),
    seed=st.integers(0, 99),
)
@example(turn=0.296875, mirror=False, x=30.0, y=30.5, half=12.0, seed=0)
def test_poses_are_those_of_the_renderer(turn: float, mirror: bool, x: float, y: float, half: float, seed: int) -> None:
    patch = render(fish, x, y, half, turn, mirror, np.random.default_rng(seed), LIGHT)
    points = Pose(x, y, half, turn, mirror).at(np.array(list(FISH_KEYPOINTS.values())))
    for name, (column, row) in zip(FISH_KEYPOINTS, points, strict=True):
        i, j = math.floor(row) - patch.top, math.floor(column) - patch.left
        around = patch.alpha[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        assert around.max() > 0.3, "a small fish's tip is thinner than a pixel: the neighbours count too"
        if name == "eye" and half > 30:
            assert patch.colour[i, j].max() < 0.4
    mouth, _, upper, lower = points
    assert (mouth[0] < x) == mirror
    assert upper[1] < lower[1], "also in a fish that is turned or mirrored"


def test_points_of_a_pose_by_hand() -> None:
    points = np.array([[1.0, 0.0], [0.0, 0.5]])
    assert Pose(10, 20, 4, 0, False).at(points).tolist() == [[14, 20], [10, 22]]
    assert Pose(10, 20, 4, 0, True).at(points).tolist() == [[6, 20], [10, 22]]
    np.testing.assert_allclose(Pose(10, 20, 4, np.pi / 2, False).at(points), [[10, 24], [8, 20]], atol=1e-12)


def test_poses_come_with_the_same_scene() -> None:
    for seed in range(8):
        image, objects, owner = render_masks(np.random.default_rng(seed), (96, 200))
        again, same, owned, poses = render_poses(np.random.default_rng(seed), (96, 200))
        assert image.tobytes() == again.tobytes()
        assert (objects, owner.tolist()) == (same, owned.tolist())
        assert len(poses) == len(objects)
        for item, pose in zip(objects, poses, strict=True):
            assert item.name in OBJECTS
            left, top, right, bottom = item.box
            reach = 1.5 * pose.half  # of a square that is turned
            assert left >= pose.x - reach - 1
            assert right <= pose.x + reach + 1
            assert top >= pose.y - reach - 1
            assert bottom <= pose.y + reach + 1


def test_scenes_with_keypoints() -> None:
    images, targets = keypoint_scenes(60, 128, seed=2)
    assert torch.equal(images, segmented_scenes(60, 128, seed=2)[0])
    number = hidden = outside = 0
    for i, target in enumerate(targets):
        _, objects, owner, poses = render_poses(np.random.default_rng([2, 128, i]), (128, 128))
        own = [k for k, item in enumerate(objects) if item.name == "fish"]
        assert target["boxes"].tolist() == [list(map(float, objects[k].box)) for k in own]
        assert target["points"].shape == (len(own), 4, 2)
        assert target["visible"].shape == (len(own), 4)
        for k, points, visible in zip(own, target["points"], target["visible"], strict=True):
            expected = poses[k].at(np.array(list(FISH_KEYPOINTS.values())))
            np.testing.assert_allclose(points, expected, atol=1e-4)
            for (x, y), seen in zip(expected, visible.tolist(), strict=True):
                within = 0 <= x < 128 and 0 <= y < 128
                assert seen == (within and owner[int(y), int(x)] == k)
                hidden, outside = hidden + (within and not seen), outside + (not within)
            number += 1
    assert number > 20
    assert hidden > 2
    assert outside > 1
    assert torch.equal(keypoint_scenes(2, 128, seed=2)[0], images[:2]), "a larger set begins with the smaller one"


def test_none_and_what_is_refused() -> None:
    images, targets = keypoint_scenes(0)
    assert (images.shape, targets) == ((0, 3, 256, 256), [])
    for options in ({"count": -1}, {"count": 1, "side": 95}, {"count": 1, "seed": -1}):
        with pytest.raises(ValueError, match="need a side of 96 or more"):
            keypoint_scenes(**options)
