"""An hour of video through `ssd detect`: does the memory grow with the length?

    python benchmarks/hour.py --minutes 60

The clip is drawn, 25 frames a second, small so that the hour passes in minutes. Every frame is read, gets its boxes and
is written again; the network looks at every 25th only, which is the slow part and keeps nothing. It writes hour.json:

    minutes, frames, size   of the clip; size is [width, height]
    every                   the network looks at one frame of so many
    seconds                 that all of it took
    frames_per_second
    megabytes               memory of the process (resident) at `at`, frames from the first to the last
    frame_megabytes         what all frames would take
    written                 frames in the file that was written
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from record import RESULTS, circumstances, write_record
from torch import Tensor

from ssdlib.cli.video import detect_in_video
from ssdlib.data.synthetic.motion import render_clip
from ssdlib.deploy import Detector
from ssdlib.deploy.extras import require
from ssdlib.deploy.video import VideoWriter
from ssdlib.detection import Detection
from ssdlib.zoo import demo_model

RATE = 25
STATUS = Path("/proc/self/status")


class Sparse(Detector):
    """Looks at every so many frames, and finds in the others what it found last; notes the memory meanwhile."""

    def watch(self, every: int, frames: int) -> None:
        self.every, self.count, self.last = every, 0, []
        self.at = {round(part * (frames - 1) / 20) for part in range(21)}
        self.memory: list[tuple[int, float]] = []

    def _predict(self, images: list[Tensor]) -> list[Detection]:
        found = []
        for image in images:
            if self.count % self.every == 0:
                self.last = super()._predict([image])
            if self.count in self.at:
                self.memory.append((self.count, resident()))
            self.count += 1
            found += self.last
        return found


def resident() -> float:
    """Memory of the process in MB; 0 where the system does not tell."""
    if not STATUS.is_file():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def make(path: Path, frames: int, size: tuple[int, int]) -> None:
    """A clip of a scene that goes to and fro."""
    scene = [image.resize(size, Image.Resampling.BILINEAR) for image, _ in render_clip("crossing", 0, 50, (128, 96))]
    turn = [*scene, *reversed(scene)]
    with VideoWriter(path, Fraction(RATE)) as writer:
        for number in range(frames):
            writer.write(turn[number % len(turn)], number / RATE)


def measure(minutes: float, every: int, size: tuple[int, int], folder: Path) -> dict[str, Any]:
    frames = round(minutes * 60 * RATE)
    make(folder / "hour.mp4", frames, size)
    detector = Sparse(demo_model(), device="cpu", min_score=0.3)
    detector.watch(every, frames)
    started = time.perf_counter()
    problem = detect_in_video(detector, folder / "hour.mp4", folder / "out.mp4", folder / "found.jsonl", None, 8)
    seconds = time.perf_counter() - started
    assert problem is None, problem
    with require("av", "video").open(str(folder / "out.mp4")) as written:
        count = sum(1 for packet in written.demux(video=0) if packet.size)
    return {
        "minutes": minutes,
        "frames": frames,
        "size": list(size),
        "every": every,
        "seconds": round(seconds, 1),
        "frames_per_second": round(frames / seconds, 1),
        "at": [frame for frame, _ in detector.memory],
        "megabytes": [memory for _, memory in detector.memory],
        "frame_megabytes": round(frames * 3 * size[0] * size[1] / 1e6, 1),
        "written": count,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--size", type=int, nargs=2, default=[96, 64])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        found = measure(asked.minutes, asked.every, tuple(asked.size), Path(folder))
    print(f"{found['frames']} frames in {found['seconds']} s; memory {found['megabytes']} MB")
    command = f"python benchmarks/hour.py --minutes {asked.minutes:g} --every {asked.every}"
    write_record({"command": command, **circumstances(), **found}, "hour", asked.out)


if __name__ == "__main__":
    main()
