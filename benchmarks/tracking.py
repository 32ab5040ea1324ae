"""Tracks, measured: HOTA, MOTA and IDF1 on drawn clips in which it is known who is who.

    pip install --no-deps trackeval
    python benchmarks/tracking.py --clips 4

trackeval (MIT) reads the MOT text that `ssd track` writes. It is installed without what it asks for, as that includes
opencv-python, which would overwrite opencv-python-headless; all else is there. It writes tracking.json:

    clips, frames       clips of each situation, and frames of each clip (`ssdlib.data.synthetic.motion`)
    objects             boxes of the truth in all clips
    rows                one for each situation ("crossing", "occlusion", "leaving", "all") and each way of tracking:
        situation, way  "as it is"; "sure only": without the detections from 0.1 to 0.5; "no memory": a track that is
                        not seen in a frame is given up; "standing still": without velocities; "true boxes": the boxes
                        of the truth instead of those of the detector, which shows what the association alone does
        HOTA DetA AssA  in percent: HOTA is the root of detection times association, over overlaps from 0.05 to 0.95
        MOTA IDF1       in percent, at an overlap of 0.5
        switches        times that an object changed its number (IDSW)
        misses, false   boxes without a track (FN), and tracks' boxes without an object (FP)
        numbers         different numbers that the tracks have, and `true_numbers` that there are

Classes are not told apart by trackeval: whatever has a number is an object.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, circumstances, write_record

from ssdlib.data.synthetic.motion import SITUATIONS, MovingObject, render_clip
from ssdlib.deploy import Detector, Found, tracking
from ssdlib.deploy.extras import require
from ssdlib.deploy.tracking import Tracker, mot_lines
from ssdlib.zoo import demo_model

WAYS: dict[str, Callable[[], Tracker]] = {
    "as it is": Tracker,
    "sure only": lambda: Tracker(low=0.5),
    "no memory": lambda: Tracker(patience=0),
    "standing still": Tracker,
    "true boxes": Tracker,
}


def truth_lines(frame: int, objects: Sequence[MovingObject]) -> list[str]:
    """Lines of gt.txt: frame, number, left, top, width, height, counts, class (a person, for trackeval), visibility."""
    return [
        f"{frame + 1},{each.number},{x},{y},{right - x},{bottom - y},1,1,{each.seen.visible:.3f}"
        for each in objects
        for x, y, right, bottom in [each.seen.box]
    ]


def as_found(objects: Sequence[MovingObject], classes: Sequence[str], size: tuple[int, int]) -> Found:
    """The truth as if a detector had found it."""
    boxes = torch.tensor([each.seen.box for each in objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([classes.index(each.seen.name) + 1 for each in objects], dtype=torch.int64)
    return Found(boxes, labels, torch.ones(len(objects)), tuple(classes), size)


def figures(folder: Path, sequences: dict[str, int]) -> dict[str, Any]:
    """What trackeval says of folder/tracks/ours/data/NAME.txt against folder/truth/NAME/gt/gt.txt, all clips together.

    Raises:
        ValueError: if trackeval is not installed.
    """
    trackeval = require("trackeval")
    quiet = {"PRINT_CONFIG": False, "PRINT_RESULTS": False, "TIME_PROGRESS": False, "OUTPUT_SUMMARY": False}
    quiet |= {"OUTPUT_DETAILED": False, "PLOT_CURVES": False, "OUTPUT_EMPTY_CLASSES": False}
    with redirect_stdout(io.StringIO()):
        data = trackeval.datasets.MotChallenge2DBox(
            {
                "GT_FOLDER": str(folder / "truth"),
                "TRACKERS_FOLDER": str(folder / "tracks"),
                "TRACKERS_TO_EVAL": ["ours"],
                "SEQ_INFO": sequences,
                "SKIP_SPLIT_FOL": True,
                "DO_PREPROC": False,
                "PRINT_CONFIG": False,
            }
        )
        metrics = [trackeval.metrics.HOTA(), *(m({"PRINT_CONFIG": False}) for m in (trackeval.metrics.CLEAR,))]
        metrics.append(trackeval.metrics.Identity({"PRINT_CONFIG": False}))
        results, _ = trackeval.Evaluator({**quiet, "BREAK_ON_ERROR": True}).evaluate([data], metrics)
    found = results["MotChallenge2DBox"]["ours"]["COMBINED_SEQ"]["pedestrian"]
    percent = {name: round(100 * float(found["HOTA"][name].mean()), 2) for name in ("HOTA", "DetA", "AssA")}
    clear = found["CLEAR"]
    return {
        **percent,
        "MOTA": round(100 * float(clear["MOTA"]), 2),
        "IDF1": round(100 * float(found["Identity"]["IDF1"]), 2),
        "switches": int(clear["IDSW"]),
        "misses": int(clear["CLR_FN"]),
        "false": int(clear["CLR_FP"]),
        "numbers": int(found["Count"]["IDs"]),
        "true_numbers": int(found["Count"]["GT_IDs"]),
    }


def measure(clips: int, frames: int, folder: Path) -> list[dict[str, Any]]:
    detector = Detector(demo_model(), min_score=0.1)
    names: dict[str, list[str]] = {situation: [f"{situation}-{k}" for k in range(clips)] for situation in SITUATIONS}
    seen: dict[str, list[tuple[Found, Found]]] = {}
    for situation, own in names.items():
        for seed, name in enumerate(own):
            seen[name] = []
            lines = []
            for number, (image, objects) in enumerate(render_clip(situation, seed, frames)):
                seen[name].append((detector(image), as_found(objects, detector.classes, image.size)))
                lines += truth_lines(number, objects)
            write(folder / "truth" / name / "gt" / "gt.txt", lines)
        print(f"{situation}: {clips * frames} frames", flush=True)
    rows = []
    for way, make in WAYS.items():
        gain = tracking.VELOCITY_GAIN
        try:
            tracking.VELOCITY_GAIN = 0.0 if way == "standing still" else gain
            for name, found in seen.items():
                tracker = make()
                lines = []
                for number, (ours, true) in enumerate(found):
                    lines += mot_lines(number, *tracker.update(true if way == "true boxes" else ours))
                write(folder / "tracks" / "ours" / "data" / f"{name}.txt", lines)
        finally:
            tracking.VELOCITY_GAIN = gain
        for situation, own in [*names.items(), ("all", list(seen))]:
            rows.append({"situation": situation, "way": way, **figures(folder, dict.fromkeys(own, frames))})
    return rows


def write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4, help="of each situation")
    parser.add_argument("--frames", type=int, default=60, help="of each clip")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(asked.clips, asked.frames, Path(folder))
        objects = sum(len(path.read_text().splitlines()) for path in Path(folder).glob("truth/*/gt/gt.txt"))
    for row in rows:
        print(" ".join(f"{key} {value}" for key, value in row.items()))
    command = f"python benchmarks/tracking.py --clips {asked.clips} --frames {asked.frames}"
    record = {"command": command, **circumstances(), "clips": asked.clips, "frames": asked.frames, "objects": objects}
    write_record({**record, "rows": rows}, "tracking", asked.out)


if __name__ == "__main__":
    main()
