"""Tracks of drawn motion that is known: who is who after a crossing, a gap, a doubt; and the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from PIL import Image
from support.commands import call, refused

from ssdlib.data import load_image, sample_root
from ssdlib.deploy import Found
from ssdlib.deploy.tracking import Track, Tracker, mot_lines
from ssdlib.zoo.checkpoint import demo_model, save_model

pytest.importorskip("scipy")
Row = tuple[float, float, float, int]  # centre x and y, score, label


def frame(*rows: Row, side: float = 20.0) -> Found:
    boxes = torch.tensor([[x - side / 2, y - side / 2, x + side / 2, y + side / 2] for x, y, _, _ in rows])
    labels = torch.tensor([label for *_, label in rows], dtype=torch.int64)
    scores = torch.tensor([score for _, _, score, _ in rows])
    return Found(boxes.reshape(-1, 4), labels, scores, ("cat", "dog"), (200, 200))


def numbers_of(tracker: Tracker, frames: Sequence[Found]) -> list[list[int]]:
    return [tracker.update(found)[1].tolist() for found in frames]


def test_objects_keep_their_numbers_whatever_their_order():
    frames = [frame((20 + 3 * t, 50, 0.9, 1), (150 - 3 * t, 120, 0.8, 1)) for t in range(20)]
    swapped = [found.keep(torch.tensor([1, 0])) if t % 2 else found for t, found in enumerate(frames)]
    assert numbers_of(Tracker(), swapped) == [[2, 1] if t % 2 else [1, 2] for t in range(20)]


def test_two_that_cross_do_not_change_their_numbers():
    """At the crossing the boxes overlap: only their velocities tell who is who."""
    frames = [frame((20 + 4 * t, 50 + t, 0.9, 1), (180 - 4 * t, 90 - t, 0.9, 1)) for t in range(40)]
    assert numbers_of(Tracker(), frames) == [[1, 2]] * 40


def test_who_is_hidden_for_a_while_comes_back_with_its_number():
    there = [frame((20 + 4 * t, 50, 0.9, 1)) for t in range(40)]
    hidden = [found.keep(slice(0)) if 15 <= t < 25 else found for t, found in enumerate(there)]
    numbers = numbers_of(Tracker(), hidden)
    assert numbers == [[1]] * 15 + [[]] * 10 + [[1]] * 15
    assert numbers_of(Tracker(patience=5), hidden)[-1] == [2]


def test_unsure_detections_go_on_with_tracks_and_begin_none():
    scores = [0.9, 0.9, 0.9, 0.3, 0.2, 0.3, 0.9]
    frames = [frame((50 + 2 * t, 50, score, 1), (150, 150, 0.3, 1)) for t, score in enumerate(scores)]
    assert numbers_of(Tracker(), frames) == [[1]] * len(scores)
    assert numbers_of(Tracker(low=0.5), frames) == [[1]] * 3 + [[]] * 3 + [[1]]


def test_classes_are_kept_apart():
    assert numbers_of(Tracker(), [frame((50, 50, 0.9, 1)), frame((50, 50, 0.9, 2))]) == [[1], [2]]


def test_the_best_pairs_are_found_together():
    """The nearest of all pairs would leave the other object without its track."""
    first = frame((50, 50, 0.9, 1), (60, 50, 0.9, 1))
    second = frame((57, 50, 0.9, 1), (70, 50, 0.9, 1))
    assert numbers_of(Tracker(), [first, second]) == [[1, 2], [1, 2]]


def test_an_empty_frame_and_a_number_that_is_gone():
    tracker = Tracker(patience=0)
    assert numbers_of(tracker, [frame(), frame((50, 50, 0.9, 1)), frame(), frame((50, 50, 0.9, 1))]) == [
        [],
        [1],
        [],
        [2],
    ]


def test_mot_text():
    found = frame((50, 40, 0.875, 1))
    assert mot_lines(0, found, torch.tensor([7])) == ["1,7,40.00,30.00,20.00,20.00,0.8750,-1,-1,-1"]


def test_a_track_is_seen_once_a_frame():
    track = Track(7, 1, torch.tensor([100.0, 50.0, 60.0, 40.0]))
    with pytest.raises(ValueError, match="track 7 was seen in this frame already: call predict"):
        track.see(torch.tensor([70.0, 30.0, 130.0, 70.0]))


def test_wrong_numbers_and_a_missing_package(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="wrong numbers for a tracker"):
        Tracker(low=0.6, high=0.5)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ValueError, match=r"this needs the package scipy: pip install 'ssdlib\[video\]'"):
        Tracker()


def test_the_command(tmp_path: Path):
    pytest.importorskip("av")
    from ssdlib.deploy.video import Video, VideoWriter

    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    photo = sorted((sample_root() / "JPEGImages").glob("*.jpg"))[0]
    image = Image.fromarray(load_image(photo).permute(1, 2, 0).numpy())
    with VideoWriter(tmp_path / "clip.mp4", Fraction(10)) as writer:
        for number in range(4):
            writer.write(image.crop((2 * number, 0, image.width - 8 + 2 * number, image.height)), number / 10)
    out, mot = tmp_path / "out.mp4", tmp_path / "tracks.txt"
    result = call("track", demo, tmp_path / "clip.mp4", "--out", out, "--mot", mot, "--device", "cpu")
    assert result.exit_code == 0, result.output
    rows = [line.split(",") for line in mot.read_text().splitlines()]
    assert {row[0] for row in rows} == set("1234")
    objects = sum(int(line.split(": ")[1]) for line in result.stdout.splitlines())
    assert objects == len({row[1] for row in rows})
    assert len(list(Video(out))) == 4
    assert "would replace" in refused("track", demo, tmp_path / "clip.mp4", "--out", tmp_path / "clip.mp4")
    assert "would replace" in refused("track", demo, tmp_path / "clip.mp4", "--mot", demo)
    assert "no video at" in refused("track", demo, tmp_path / "gone.mp4")
