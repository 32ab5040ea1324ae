"""`ssd priors`: do the priors fit the objects of a data set, and which would."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from ssdlib.cli.common import clear_errors, example
from ssdlib.cli.outputs import require_outside, require_writable, some_path
from ssdlib.data import open_dataset
from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.files import replaced, write_text
from ssdlib.data.names import counted
from ssdlib.data.prior_fit import COVERED, METHODS, Coverage, coverage
from ssdlib.model import ARCHITECTURES

app = typer.Typer(help="Priors for one's own data.", no_args_is_help=True)

Method = Enum("Method", {name: name for name in METHODS}, type=str)  # type: ignore[misc]
Architecture = Enum("Architecture", {name: name for name in ARCHITECTURES}, type=str)  # type: ignore[misc]


@app.callback()
def priors() -> None:
    """Priors for one's own data."""


@app.command(
    "fit",
    epilog=example(
        "ssd priors fit --data data/toy",
        "ssd priors fit --data data/toy --check-set val --out priors.json --figure priors.png",
    ),
)
def fit_command(
    data: Annotated[
        list[Path],
        typer.Option(help="Folder in the VOC or COCO layout; several are one.", metavar="PATH", parser=some_path),
    ],
    image_set: Annotated[str, typer.Option(help="The set to fit to.")] = "trainval",
    check_set: Annotated[
        str | None, typer.Option(help="Another set to measure on: what is fitted may not hold.")
    ] = None,
    architecture: Annotated[
        Architecture, typer.Option(help="The network whose feature maps and priors are the start.")
    ] = "ssd_tiny",  # type: ignore[assignment]
    method: Annotated[Method, typer.Option(help="Which of the two fitted recipes is written.")] = "recall",  # type: ignore[assignment]
    seed: Annotated[int, typer.Option(min=0, help="Of k-means.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File for the fitted recipe, as JSON.", metavar="PATH", parser=some_path)
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Picture of objects and priors, .png or .svg.", metavar="PATH", parser=some_path)
    ] = None,
) -> None:
    """Say how many objects the priors cover, by class and by size, and fit priors that cover more.

    An object is covered if some prior overlaps it by 0.5. Two ways are tried: "recall" takes shapes one by one, always
    the one that covers most of the objects that are left; "clusters" is k-means under 1 - IoU, which does not see how
    far apart the cells of a map are. `ssd train --priors` takes the recipe. Priors belong to the weights: a model that
    starts from a detector keeps its own, unless it is told to take others, and its heads begin anew then.
    """
    with clear_errors():
        for output in (out, figure):
            if output is not None:
                require_writable(output)
                require_outside(output, data)
        dataset = open_dataset(data, image_set, progress=False)
        boxes, labels = objects_of(dataset)
        with torch.device("meta"):  # no memory for weights
            start = ARCHITECTURES[architecture.value](2).recipe
        recipes = {"now": start, **{name: fit(boxes, start, seed=seed) for name, fit in METHODS.items()}}
        found = {name: coverage(boxes, labels, dataset.classes, recipe) for name, recipe in recipes.items()}
        typer.echo(_table(image_set, found))
        if check_set is not None:
            other = open_dataset(data, check_set, dataset.classes, progress=False)
            checked = {name: coverage(*objects_of(other), other.classes, recipe) for name, recipe in recipes.items()}
            typer.echo(f"\n{_table(check_set, checked)}")
        chosen = found[method.value]
        if out is not None:
            write_text(out, json.dumps(chosen.recipe.to_dict(), indent=1) + "\n")
            typer.echo(f"\nrecipe: {out}")
        if figure is not None:
            picture = draw(boxes, found["now"], chosen)
            with replaced(figure) as aside:
                picture.savefig(aside, dpi=120, bbox_inches="tight")
            typer.echo(f"picture: {figure}")


def objects_of(dataset: AnnotatedDataset) -> tuple[Tensor, Tensor]:
    """All objects of a data set: boxes (M, 4) xyxy, fractional, and labels (M,); no image is decoded.

    Raises:
        ValueError: if there is none.
    """
    boxes, labels = [], []
    for index in range(len(dataset)):
        target = dataset.target(index)
        boxes.append(target["boxes"] / torch.tensor([*dataset.size(index)] * 2))
        labels.append(target["labels"])
    if not boxes or not sum(map(len, labels)):
        raise ValueError("the data set has no objects")
    return torch.cat(boxes), torch.cat(labels)


def _table(image_set: str, found: dict[str, Coverage]) -> str:
    first = next(iter(found.values()))
    count = len(first.overlaps)
    rows = [
        (f"{image_set}: {counted(count, 'object')}, covered by", *found),
        ("all", *(f"{each.share:.3f}" for each in found.values())),
        ("mean IoU", *(f"{float(each.overlaps.mean()):.3f}" for each in found.values())),
    ]
    for name, (_, objects) in first.by_class.items():
        rows.append((f"{name} ({objects})", *(f"{each.by_class[name][0] / objects:.3f}" for each in found.values())))
    for i, (low, high, _, objects) in enumerate(first.by_size):
        what = f"size {low:g} to {min(high, 1):g} ({objects})"
        rows.append((what, *(f"{each.by_size[i][2] / objects:.3f}" for each in found.values())))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def draw(boxes_xyxy: Tensor, now: Coverage, fitted: Coverage) -> Figure:
    """Widths and heights of the objects, those that no prior covers in another colour, and of the priors."""
    shapes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    figure = Figure(figsize=(9, 4.4))
    for ax, each in zip(figure.subplots(1, 2, sharex=True, sharey=True), (now, fitted), strict=True):
        covered = each.overlaps >= COVERED
        ax.scatter(*shapes[covered].T, s=5, color="#0072b2", alpha=0.4, label="covered", linewidths=0)
        ax.scatter(*shapes[~covered].T, s=9, color="#d55e00", marker="x", label="not covered", linewidths=0.8)
        for k in range(len(each.recipe.map_sizes)):
            marks = torch.tensor(each.recipe.shapes(k)).T
            ax.scatter(*marks, s=40, marker="s", facecolors="none", edgecolors="black", label=None if k else "priors")
        ax.set(
            xscale="log", yscale="log", xlabel="width / image", title=f"{each.recipe.name}: {each.share:.1%} covered"
        )
    figure.axes[0].set_ylabel("height / image")
    figure.axes[0].legend(loc="upper left", fontsize=8)
    return figure
