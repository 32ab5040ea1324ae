"""Train and test the small SSD through the command line, and record the run.

    python benchmarks/tiny.py --name tiny_toy --data data/toy
    python benchmarks/tiny.py --name tiny_bccd --preset tiny_few --data data/BCCD --figure cells.jpg
    python benchmarks/tiny.py --name finetune_cards --preset finetune --data data/cards --analysis

writes ssdlib/engine/records/NAME.json: commands, commit, date, hardware, versions, seconds of training, AP of each
class, mAP, and the log of the run. The chapters on training draw it. With `--preset finetune` it is not the small SSD,
but the larger network that starts from ImageNet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer
from record import circumstances, write_record

from ssdlib.data import VOCDataset
from ssdlib.model import SSD
from ssdlib.plotting import show_detections, use_book_style
from ssdlib.zoo.checkpoint import load_model, save_model

ELSEWHERE = ("data", "model", "date", "versions")  # the record has them already, or names of this machine


def main(
    name: Annotated[str, typer.Option(help="Name of the record.")],
    data: Annotated[Path, typer.Option(help="Folder in the VOC layout, with the image sets trainval and test.")],
    bfloat16: Annotated[bool, typer.Option(help="Compute the network in bfloat16.")] = False,
    preset: Annotated[str, typer.Option(help="As of `ssd train`.")] = "tiny",
    init: Annotated[Path | None, typer.Option(help="Start from this checkpoint, named from the repository.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="As of `ssd train`.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps, instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw detections on three test images to this file.")] = None,
    analysis: Annotated[bool, typer.Option("--analysis", help="Record the errors by kind, too.")] = False,
    weights: Annotated[Path | None, typer.Option(help="Keep the trained weights here, in half precision.")] = None,
) -> None:
    """Train, evaluate, record."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result, why = Path(folder) / "result.json", Path(folder) / "why.json"
        train = ["ssd", "train", "--preset", preset, "--data", str(data), "--out", str(run), "--seed", str(seed)]
        train += ["--precision", "bfloat16"] if bfloat16 else []
        train += ["--iterations", str(iterations)] if iterations else []
        train += ["--init", str(init)] if init else []
        train += [word for setting in settings or [] for word in ("--set", setting)]
        evaluate = ["ssd", "evaluate", str(run), "--json", str(result)]
        analyse = ["ssd", "analyse", str(run), "--json", str(why)]
        before = os.times()
        subprocess.run(train, check=True)
        after = os.times()
        commands = [train, evaluate, *([analyse] if analysis else [])]
        for command in commands[1:]:
            subprocess.run(command, check=True)
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        figures = json.loads(result.read_text())
        record = {
            # Folders are named as a reader would: those of this machine mean nothing elsewhere.
            "command": [_readable(command, {str(data): f"data/{data.name}", folder: "runs"}) for command in commands],
            **circumstances(),
            "config": json.loads((run / "config.json").read_text())["config"],
            "seconds": log[-1]["seconds"],
            # On a machine that does other work, too, these say more than the seconds that passed.
            "processor_seconds": round(
                after.children_user - before.children_user + after.children_system - before.children_system
            ),
            **{key: value for key, value in figures.items() if key not in ELSEWHERE},
            **({"analysis": kept(json.loads(why.read_text()))} if analysis else {}),
            "log": log,
        }
        write_record(record, name)
        model = load_model(run / "model.safetensors")
        if weights is not None:
            save_model(model, weights, half=True, training={"record": f"ssdlib/engine/records/{name}.json"})
        if figure is not None:
            draw(model, VOCDataset(data, "test", model.classes), figure)


def draw(model: SSD, test: VOCDataset, figure: Path, height: float = 3.2) -> None:
    """Detections on three test images, side by side at one height (inches)."""
    use_book_style()
    chosen = (0, len(test) // 3, 2 * len(test) // 3)
    ratios = [width / high for width, high in (test.size(i) for i in chosen)]
    canvas = plt.figure(figsize=(height * sum(ratios), height), layout="constrained")
    for ax, i in zip(canvas.subplots(1, 3, width_ratios=ratios), chosen, strict=True):
        image, _ = test[i]
        (found,) = model.predict([image], min_score=0.4)
        show_detections(image, found, model.classes, min_score=0.4, ax=ax)
    figure.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(figure, dpi=150, pil_kwargs={"quality": 85} if figure.suffix == ".jpg" else None)


def kept(analysis: dict[str, Any]) -> dict[str, Any]:
    """Of what `ssd analyse` says, what `ssd evaluate` does not: the errors by kind and what each costs."""
    return {key: analysis[key] for key in ("score_of_use", "errors")}


def _readable(command: list[str], names: dict[str, str]) -> str:
    text = " ".join(command)
    for path, name in names.items():
        text = text.replace(path, name)
    return text


if __name__ == "__main__":
    sys.exit(typer.run(main))
