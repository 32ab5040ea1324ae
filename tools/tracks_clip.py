"""Make the clip of the chapter on tracks: what is found in each frame (above), and the tracks (below).

    python tools/tracks_clip.py    writes book/_static/tracks.webm, and tracks.jpg, its picture before it plays

The scene is drawn, the detector is the one that comes with the package: the same pixels each time. The file is VP9 in
WebM, which every browser plays without a licence. It needs the extra `video`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssdlib.data.files import replaced
from ssdlib.data.synthetic.motion import render_clip
from ssdlib.deploy import Detector, Found
from ssdlib.deploy.extras import require
from ssdlib.deploy.tracking import Tracker
from ssdlib.plotting import color_of, draw_on_image
from ssdlib.zoo import demo_model

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
SITUATION, SEED, FRAMES, RATE = "crossing", 0, 60, 10
POSTER = 30  # the frame that is shown before the clip plays: the crossing


def pictures() -> Iterator[Image.Image]:
    """The frames of the clip, one above the other: found, tracked."""
    detector, tracker = Detector(demo_model(), min_score=0.1, device="cpu"), Tracker()
    trails: dict[int, list[tuple[float, float]]] = {}
    for image, _ in render_clip(SITUATION, SEED, FRAMES):
        found = detector(image)
        kept, numbers = tracker.update(found)
        above = draw_on_image(image, found.detection, found.classes, min_score=0.5)
        below = with_numbers(image, kept, numbers.tolist(), trails)
        both = Image.new("RGB", (image.width, 2 * image.height + 4), "white")
        both.paste(above, (0, 0))
        both.paste(below, (0, image.height + 4))
        yield both


def with_numbers(
    image: Image.Image, found: Found, numbers: list[int], trails: dict[int, list[tuple[float, float]]]
) -> Image.Image:
    """A copy with boxes in the colours of their tracks, their numbers, and the ways that they came."""
    drawn = image.copy()
    canvas, font = ImageDraw.Draw(drawn), ImageFont.load_default(18)
    for (left, top, right, bottom), number in zip(found.boxes.tolist(), numbers, strict=True):
        color = color_of(number)
        trails.setdefault(number, []).append(((left + right) / 2, (top + bottom) / 2))
        if len(trails[number]) > 1:
            canvas.line(trails[number], fill=color, width=3)
        canvas.rectangle((left, top, right, bottom), outline=color, width=3)
        corner = (max(0.0, left), max(0.0, top))
        canvas.rectangle((*corner, corner[0] + 24, corner[1] + 24), fill="white", outline=color, width=2)
        canvas.text((corner[0] + 12, corner[1] + 12), str(number), fill="black", font=font, anchor="mm")
    return drawn


def write(frames: list[Image.Image], path: Path) -> None:
    """Write the clip, each frame with its own time."""
    av = require("av", "video")
    with replaced(path) as aside, av.open(str(aside), "w", format="webm") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(RATE))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "36", "b:v": "0", "deadline": "good", "cpu-used": "2"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode())


def main(arguments: list[str] | None = None) -> None:
    """Make the clip and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=STATIC)
    out = parser.parse_args(arguments).out
    frames = list(pictures())
    write(frames, out / "tracks.webm")
    with replaced(out / "tracks.jpg") as aside:
        frames[POSTER].save(aside, "JPEG", quality=80, optimize=True)
    for name in ("tracks.webm", "tracks.jpg"):
        print(f"{name}: {(out / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
