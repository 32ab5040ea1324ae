"""Videos that the tests make: what is read and written again, also where times are uneven or the file is cut off."""

from __future__ import annotations

import csv
import io
import resource
import signal
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import call, refused
from typer.testing import CliRunner

from ssdlib.cli import app
from ssdlib.cli.video import until_interrupted
from ssdlib.data import load_image, sample_root
from ssdlib.deploy import video
from ssdlib.deploy.video import Video, VideoWriter
from ssdlib.zoo.checkpoint import demo_model, save_model

av = pytest.importorskip("av")
PHOTO = sorted((sample_root() / "JPEGImages").glob("*.jpg"))[0]
EVEN = [number / 25 for number in range(10)]


def write(path: Path, times: list[float], size: tuple[int, int] = (64, 48)) -> Path:
    """A clip whose frames become lighter from one to the next."""
    with VideoWriter(path, Fraction(25)) as writer:
        for number, moment in enumerate(times):
            writer.write(Image.new("RGB", size, (20 * number % 256,) * 3), moment)
    return path


def test_frames_come_back_with_their_own_times(tmp_path: Path):
    times = [0.0, 0.04, 0.10, 0.3, 0.31, 0.5]  # a variable rate
    frames = list(Video(write(tmp_path / "a.mp4", times)))
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    assert frames[0].pixels.shape == (3, 48, 64)
    assert frames[0].pixels.dtype == torch.uint8
    levels = [frame.pixels.float().mean().item() for frame in frames]
    assert levels == pytest.approx([20 * number for number in range(6)], abs=4)


def test_the_video_is_h264_for_every_player(tmp_path: Path):
    write(tmp_path / "a.mp4", EVEN)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (stream,) = container.streams
        assert stream.codec_context.name == ("h264" if "libx264" in av.codecs_available else "mpeg4")
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_without_h264_there_is_another_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "H264", "not there")
    frames = list(Video(write(tmp_path / "a.mp4", EVEN)))
    assert len(frames) == len(EVEN)


def test_an_odd_size_loses_its_last_row_and_column(tmp_path: Path):
    frames = list(Video(write(tmp_path / "a.mp4", EVEN, (65, 49))))
    assert frames[0].pixels.shape == (3, 48, 64)


def test_times_that_do_not_grow_are_made_to(tmp_path: Path):
    assert len(list(Video(write(tmp_path / "a.mp4", [0.0, 0.0, 0.0, 0.5])))) == 4


class _Turned:
    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    def to_ndarray(self, format: str) -> Any:
        assert format == "rgb24"
        pixels = np.zeros((2, 3, 3), np.uint8)
        pixels[0, 0] = 255  # the upper left corner
        return pixels


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (2, 0)), (-90, (0, 1)), (180, (1, 2))])
def test_a_telephone_that_was_held_upright(rotation: int, corner: tuple[int, int]):
    """The upper left corner, after turning against the clock."""
    pixels = Video._upright(_Turned(rotation))
    assert pixels.shape == ((3, 2, 3) if rotation % 180 == 0 else (3, 3, 2))
    assert (pixels[0] == 255).nonzero().tolist() == [list(corner)]


def test_rotation_of_a_real_file(tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this version of PyAV does not write rotations")
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)
        pixels = np.zeros((32, 64, 3), np.uint8)
        pixels[:16, :32] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frame = next(iter(Video(tmp_path / "a.mp4")))
    assert frame.pixels.shape == (3, 64, 32)
    quarters = [frame.pixels[0, y : y + 32, x : x + 16].float().mean() for y in (0, 32) for x in (0, 16)]
    assert [bool(quarter > 128) for quarter in quarters].count(True) == 1
    assert quarters[0] < 128  # it has moved
    assert quarters[3] < 128


def test_a_file_that_is_cut_off(tmp_path: Path):
    whole = write(tmp_path / "a.mkv", [number / 25 for number in range(60)], (320, 240))
    assert len(list(Video(whole))) == 60
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    assert 0 < len(list(Video(tmp_path / "cut.mkv"))) < 60


def test_frames_that_are_missing_are_said(tmp_path: Path):
    clip = Video(write(tmp_path / "a.mp4", EVEN))
    clip.expected = 20
    assert len(list(clip)) == 10
    assert clip.problem is not None
    assert "a.mp4: ends after 10 of 20 frames" in clip.problem


def test_what_is_no_video(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(ValueError, match=r"a\.mp4: cannot be read as a video"):
        Video(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match="no video at"):
        Video(tmp_path / "gone.mp4")


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"this needs the package av: pip install 'ssdlib\[video\]'"):
        Video(tmp_path / "a.mp4")


# ---- pipes and cameras -----------------------------------------------------------------------------------------


class _Pipe(io.RawIOBase):
    """Bytes as a pipe gives them: in pieces, and never again."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.data.read(min(size, 700) if size > 0 else 700)


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_a_video_that_is_piped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str):
    data = write(tmp_path / f"a.{ending}", EVEN).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=_Pipe(data)))
    frames = list(Video("-"))
    assert len(frames) == len(EVEN)
    assert frames[0].pixels.shape == (3, 48, 64)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=_Pipe(b"no video" * 1000)))
    with pytest.raises(ValueError, match="-: cannot be read as a video"):
        Video("-")


def test_the_command_takes_a_pipe(tmp_path: Path):
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    data = write(tmp_path / "a.mkv", EVEN[:3]).read_bytes()
    for command, out in (("detect", ("--out", tmp_path)), ("track", ("--out", tmp_path / "tracked.mp4"))):
        arguments = [command, str(demo), "-", *map(str, out), "--device", "cpu"]
        result = CliRunner().invoke(app, arguments, input=data)
        assert result.exit_code == 0, result.output
    assert len(list(Video(tmp_path / "piped.mp4"))) == 3
    assert len(list(Video(tmp_path / "tracked.mp4"))) == 3


def test_a_camera_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch):
    """The camera is PyAV's test picture, which has no end; Ctrl-C is a real signal."""
    monkeypatch.setitem(video.CAMERAS, sys.platform, ("lavfi", "testsrc=size=64x48:rate={}"))
    camera = Video("camera:25")
    before = signal.getsignal(signal.SIGINT)
    seen = []
    with until_interrupted(camera):
        for frame in camera:
            seen.append(frame)
            if frame.number == 3:
                signal.raise_signal(signal.SIGINT)
    assert [frame.number for frame in seen] == [0, 1, 2, 3]
    assert seen[0].pixels.shape == (3, 48, 64)
    assert camera.problem is None
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), until_interrupted(camera):
        signal.raise_signal(signal.SIGINT)  # the second: it was stopped before
    file = SimpleNamespace(path="a.mp4", stop=False)
    with until_interrupted(file):  # a file is there whole or not at all: there Ctrl-C is what it always is
        assert signal.getsignal(signal.SIGINT) is before


def test_a_camera_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    monkeypatch.setattr(sys, "platform", "linux")
    assert "camera:77: there is no /dev/video77" in refused("detect", demo, "camera:77")
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(ValueError, match="camera:0: cameras cannot be read on sunos5"):
        Video("camera:0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is counted in other units")
def test_memory_does_not_grow_with_the_length(tmp_path: Path):
    """Two thousand frames of 230 kB: 450 MB, if they were kept."""
    clip = write(tmp_path / "long.mp4", [number / 25 for number in range(2200)], (320, 240))
    peaks = {}
    for frame in Video(clip):
        if frame.number in (200, 2199):
            peaks[frame.number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert peaks[2199] - peaks[200] < 30


# ---- the command -----------------------------------------------------------------------------------------------


def test_detect_in_a_clip(tmp_path: Path):
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    image = Image.fromarray(load_image(PHOTO).permute(1, 2, 0).numpy())
    with VideoWriter(tmp_path / "clip.mp4", Fraction(10)) as writer:
        for number in range(5):
            writer.write(image, number / 10)
    out, table = tmp_path / "found.mp4", tmp_path / "found.csv"
    result = call("detect", demo, tmp_path / "clip.mp4", "--out", out, "--csv", table, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "5 frames in" in result.output
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["frame"] for row in rows} == set("01234")
    assert next(float(row["time"]) for row in rows if row["frame"] == "3") == pytest.approx(0.3, abs=1e-3)
    frames = list(Video(out))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-3)
    before = next(iter(Video(tmp_path / "clip.mp4"))).pixels.float()
    assert (frames[0].pixels.float() - before).abs().max() > 60  # boxes are drawn
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "found.csv", "found.mp4", "model.safetensors"]


def test_what_a_clip_must_not_do(tmp_path: Path):
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    clip = write(tmp_path / "clip.mp4", EVEN)
    before = clip.read_bytes()
    assert "would replace" in refused("detect", demo, clip, "--out", clip)
    assert "would replace" in refused("detect", demo, clip, "--out", tmp_path)  # clip.mp4 in this folder
    assert "given by itself" in refused("detect", demo, clip, PHOTO)
    assert "given by itself" in refused("detect", demo, clip, "--crop", tmp_path / "crops")
    assert "is not supported" in refused("detect", demo, clip, "--out", tmp_path / "found.png")
    clip.write_bytes(b"nothing")
    assert "cannot be read as a video" in refused("detect", demo, clip, "--out", tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()
    clip.write_bytes(before)
