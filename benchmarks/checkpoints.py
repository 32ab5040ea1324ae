"""Train the small SSD on drawn scenes and look at twelve of its checkpoints: what each finds, and how good it is.

    python benchmarks/checkpoints.py --data data/toy

writes ssdlib/engine/records/NAME.json: command, commit, date, hardware, versions, configuration, the losses of the run
as means over 20 steps, and for each checkpoint its mAP and AP on the test images and what it finds in two scenes of the
sample's test images. The chapter on training plays it (`ssdlib.widgets.TrainingPlayer`).

The run is that of `ssd train`; a checkpoint has the averaged weights, as `ssd train` would save them at that step.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import RESULTS, circumstances, write_record
from tqdm import tqdm

from ssdlib.data import AnnotatedDataset, VOCDataset, open_dataset, sample_root
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.loading import Batches, TrainingImages, endless, make_loader
from ssdlib.engine.presets import PRESETS
from ssdlib.metrics import evaluate
from ssdlib.model import SSD, build_model
from ssdlib.training import TrainState, training_loop

# Closer together at the beginning, where more happens.
AT = [0, 50, 100, 200, 350, 550, 800, 1100, 1400, 1700, 2000, 2300]
SCENES = [28, 6]
MIN_SCORE, MOST = 0.1, 20  # of the detections that are kept of a scene
LOSSES = ("localization", "confidence")


def look_at(model: SSD, step: int, test_images: AnnotatedDataset, scenes: list[int], rule: str) -> dict[str, Any]:
    """What the record keeps of a checkpoint."""
    result = evaluate(*detect_dataset(model, test_images, progress=False), len(model.classes) + 1, ap=rule)  # type: ignore[arg-type]
    sample = VOCDataset(sample_root(), "test")
    found = model.predict([sample[i][0] for i in scenes], min_score=MIN_SCORE, top_k=MOST)
    return {
        "step": step,
        "mAP": round(result.mean, 4),
        "AP": {model.classes[label - 1]: round(value, 4) for label, value in result.per_class.items()},
        # One row a detection: x_min, y_min, x_max, y_max in pixels, score, label.
        "detections": [
            [
                [*(round(side, 1) for side in box), round(score, 3), label]
                for box, score, label in zip(
                    *(each[key].tolist() for key in ("boxes", "scores", "labels")), strict=True
                )
            ]
            for each in found
        ],
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder in the VOC layout, with the image sets trainval and test.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "checkpoints",
    preset: Annotated[str, typer.Option(help="As of `ssd train`.")] = "tiny",
    at: Annotated[list[int], typer.Option(help="Steps of the checkpoints; the last one ends the run.")] = AT,
    scenes: Annotated[list[int], typer.Option(help="Of the sample's test images, by number.")] = SCENES,
    window: Annotated[int, typer.Option(help="Steps of which the curve shows the mean.")] = 20,
    precision: Annotated[str, typer.Option(help="As of `ssd train`.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    ap: Annotated[str, typer.Option(help="area or 11point.")] = "area",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the choice to PyTorch.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Train, look at the checkpoints, record."""
    if threads:
        torch.set_num_threads(threads)
    about = circumstances()  # before the run: the code may change meanwhile
    config = replace(PRESETS[preset], iterations=at[-1], precision=precision, seed=seed)
    train_images = open_dataset(data, "trainval")
    test_images = open_dataset(data, "test", train_images.classes)

    torch.manual_seed(config.seed)
    model = build_model(config.architecture, train_images.classes).to(memory_format=torch.channels_last)
    state = TrainState.start(model, config)
    batches = Batches(len(train_images), config.batch_size, config.seed)
    images = TrainingImages(train_images, model.recipe.image_size, config.augmentation, config.seed)
    stream = endless(make_loader(images, batches, 0, torch.device("cpu")), batches, 0)

    checkpoints: list[dict[str, Any]] = []

    def look() -> None:
        if state.step in at:
            checkpoints.append(look_at(state.average, state.step, test_images, scenes, ap))  # type: ignore[arg-type]
            tqdm.write(f"step {state.step}: mAP {checkpoints[-1]['mAP']:.3f}", file=sys.stderr)

    curve: dict[str, list[float]] = {"step": [], **{loss: [] for loss in LOSSES}}
    last: list[dict[str, float]] = []
    look()
    for measured in tqdm(training_loop(state, stream, config), "training", config.iterations, unit="step"):
        last.append(measured)
        if len(last) == window or state.step == config.iterations:
            curve["step"].append(state.step)
            for loss in LOSSES:
                curve[loss].append(round(sum(step[loss] for step in last) / len(last), 3))
            last.clear()
        look()

    options = f"--name {name} --preset {preset} --precision {precision} --seed {seed} --ap {ap}"
    write_record(
        {
            # The folder is named as a reader would: that of this machine means nothing elsewhere.
            "command": f"python benchmarks/checkpoints.py --data data/{data.name} {options}",
            **about,
            # No seconds: a run that halts twelve times to be tested tells little of them; tiny.py measures that.
            "training": asdict(config),
            "images": {"trainval": len(train_images), "test": len(test_images)},
            "classes": list(train_images.classes),
            "ap": ap,
            "iou_threshold": 0.5,
            "scenes": list(scenes),
            "min_score": MIN_SCORE,
            "most": MOST,
            "window": window,
            "curve": curve,
            "checkpoints": checkpoints,
        },
        name,
        results,
    )


if __name__ == "__main__":
    sys.exit(typer.run(main))
