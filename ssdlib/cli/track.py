"""`ssd track`: objects through a video, each with a number that it keeps."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from ssdlib import plotting
from ssdlib.cli.common import (
    DeviceOption,
    ModelArgument,
    checkpoint_of,
    clear_errors,
    example,
    model_of,
    printable,
    torch_device,
)
from ssdlib.cli.detect import ClassesOption, WithoutOption, names_in
from ssdlib.cli.outputs import require_writable, some_path
from ssdlib.cli.video import until_interrupted, video_path
from ssdlib.data.files import replaced, space_for
from ssdlib.deploy import Detector
from ssdlib.deploy.tracking import Tracker, mot_lines
from ssdlib.deploy.video import Video, VideoWriter

app = typer.Typer()


@app.command("track", epilog=example("ssd track runs/toy clip.mp4 --out tracked.mp4 --mot tracks.txt"))
def track_command(
    run: ModelArgument,
    clip: Annotated[Path, typer.Argument(help='A video, "-", or "camera:0".', metavar="VIDEO", parser=some_path)],
    out: Annotated[
        Path | None, typer.Option(help="Video with boxes and numbers.", metavar="PATH", parser=some_path)
    ] = None,
    mot: Annotated[Path | None, typer.Option(help="Tracks as MOT text.", metavar="PATH", parser=some_path)] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that begins a track.")] = 0.5,
    low_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that goes on with one.")] = 0.1,
    patience: Annotated[int, typer.Option(min=0, help="Frames that an object may be hidden.")] = 30,
    classes: ClassesOption = None,
    without: WithoutOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Follow objects through a video: each keeps its number; at the end, how many there were of each class."""
    with clear_errors():
        checkpoint = checkpoint_of(run)
        drawn = video_path(clip, out, checkpoint)
        if mot is not None:
            require_writable(mot, [clip, checkpoint])
        tracker = Tracker(high=min_score, low=min(low_score, min_score), patience=patience)
        detector = Detector(
            model_of(run, torch_device(device)),
            min_score=tracker.low,
            classes=names_in(classes),
            without=names_in(without) or (),
        )
        video = Video(clip)
        seen: dict[int, str] = {}
        with ExitStack() as stack:
            stack.enter_context(until_interrupted(video))
            writer = text = None
            if drawn is not None:
                writer = stack.enter_context(VideoWriter(stack.enter_context(replaced(drawn)), video.rate))
            if mot is not None:
                aside = stack.enter_context(replaced(mot))
                stack.enter_context(space_for(mot))
                text = stack.enter_context(open(aside, "w", encoding="utf-8", newline="\n"))
            count = 0
            for frame in tqdm(video, "tracking", video.expected or None, unit=" frames", leave=False, disable=None):
                found, numbers = tracker.update(detector(frame.pixels))
                names = dict(zip(numbers.tolist(), found.names, strict=True))
                seen |= names
                if text is not None:
                    text.writelines(f"{line}\n" for line in mot_lines(frame.number, found, numbers))
                if writer is not None:
                    labelled: Any = {number - 1: f"{name} {number}" for number, name in names.items()}
                    boxes = {**found.detection, "labels": numbers}  # a colour for each track
                    image = plotting.draw_on_image(plotting.to_pil(frame.pixels), boxes, labelled, min_score=0)
                    writer.write(image, frame.time)
                count += 1
            if count == 0:
                raise ValueError(video.problem or f"{clip}: has no frames")
        counted = list(seen.values())
        for name in sorted(set(counted)):
            typer.echo(f"{printable(name)}: {counted.count(name)}")
    if video.problem:
        typer.secho(f"error: {printable(video.problem)}", fg="red", err=True)
        raise typer.Exit(1)
