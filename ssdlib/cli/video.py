"""`ssd detect CLIP`: objects in each frame of a video."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer
from tqdm import tqdm

from ssdlib import plotting
from ssdlib.cli.outputs import require_ending, require_writable, rows_to
from ssdlib.data.files import replaced
from ssdlib.data.names import counted
from ssdlib.deploy import Detector
from ssdlib.deploy.inputs import VIDEOS
from ssdlib.deploy.video import CAMERA, STDIN, Frame, Video, VideoWriter, is_stream

COLUMNS = ("file", "frame", "time", "class", "score", "box")


def video_path(clip: Path, out: Path | None, checkpoint: Path) -> Path | None:
    """Where the video with boxes is written: to `out`, or into it if it is a folder.

    Raises:
        ValueError: if it would replace the clip, the checkpoint or a file of a run, or the name in `out` is no video's.
        OSError: if it cannot be written.
    """
    if out is None:
        return None
    stem = clip.stem if not is_stream(clip) else "piped" if str(clip) == STDIN else "camera"
    path = out / f"{stem}.mp4" if out.is_dir() else out
    require_ending(path, VIDEOS)
    require_writable(path, [clip, checkpoint])
    return path


@contextmanager
def until_interrupted(video: Video) -> Iterator[None]:
    """Let Ctrl-C end a camera, or what is piped in, as the end of a file would; the second one ends the program."""

    def stop(number: int, frame: object) -> None:
        if video.stop:
            raise KeyboardInterrupt
        video.stop = True

    if not is_stream(video.path):
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def detect_in_video(
    detector: Detector, clip: Path, out: Path | None, lines: Path | None, table: Path | None, batch_size: int
) -> str | None:
    """Write a line for each object of each frame, and the clip with boxes; as much is in memory as a batch of frames.

    Returns:
        Why the clip could not be read to its end; None if it could.
    """
    video = Video(clip)
    frames: list[Frame] = []

    def pixels() -> Iterator[object]:
        total = video.expected or None
        for frame in tqdm(video, "detecting", total, unit=" frames", leave=False, disable=None):
            frames.append(frame)
            yield frame.pixels

    started, count = time.perf_counter(), 0
    with ExitStack() as stack:
        stack.enter_context(until_interrupted(video))
        write = stack.enter_context(rows_to(lines, table, COLUMNS))
        writer = None
        if out is not None:
            writer = stack.enter_context(VideoWriter(stack.enter_context(replaced(out)), video.rate))
        # A batch of a camera would be of frames that are over.
        for result in detector.each(pixels(), 1 if video.path.startswith(CAMERA) else batch_size):
            frame = frames.pop(0)
            assert result.found is not None
            place = {"file": str(clip), "frame": frame.number, "time": round(frame.time, 3)}
            write([{**place, **row} for row in result.found.rows()])
            if writer is not None:
                image = plotting.to_pil(frame.pixels)
                drawn = plotting.draw_on_image(image, result.found.detection, result.found.classes, min_score=0)
                writer.write(drawn, frame.time)
            count += 1
        if count == 0:
            raise ValueError(video.problem or f"{clip}: has no frames")
    seconds = time.perf_counter() - started
    typer.echo(f"{counted(count, 'frame')} in {seconds:.1f} s: {count / seconds:.1f} frames/s", err=True)
    return video.problem
