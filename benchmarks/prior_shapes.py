"""Whose priors cover more objects: those made by hand, by quantiles, by k-means, or one by one.

    python benchmarks/prior_shapes.py --data cells=data/BCCD --data cards=data/cards

fits the shapes of the small SSD's priors, 20 in all, to the objects of `trainval`, in every way, and counts on `test`
how many objects have a prior that overlaps them by 0.5: for the drawn sample of the repository, and for each data set
given. It also runs k-means with 1 to 15 clusters, whose mean IoU shows how many shapes are worth it (the elbow of
YOLOv2). The record is ssdlib/engine/records/prior_shapes.json; chapter 21 shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import RESULTS, circumstances, write_record
from torch import Tensor

from ssdlib.cli.priors import objects_of
from ssdlib.data import open_dataset, sample_root
from ssdlib.data.prior_fit import COVERED, METHODS, best_overlaps, cluster_shapes, shape_overlaps
from ssdlib.model import TINY
from ssdlib.priors import PriorRecipe

CLUSTERS = range(1, 16)


def by_hand(_boxes_xyxy: Tensor, recipe: PriorRecipe) -> PriorRecipe:
    """The recipe as it is."""
    return recipe


def by_quantiles(boxes_xyxy: Tensor, recipe: PriorRecipe) -> PriorRecipe:
    """As many shapes as before, from quartiles.

    Objects are sorted by size, and each map gets as many of them as any other. Of its share it takes the first and the
    third quartile of the size, each with the first and the third quartile of the aspect ratio.
    """
    shapes = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).double()
    shapes = shapes[shapes.prod(dim=1).argsort(stable=True)]
    quarters = torch.tensor([0.25, 0.75], dtype=torch.float64)
    ratios = []
    for share in shapes.tensor_split(len(recipe.map_sizes)):
        sizes = share.prod(dim=1).sqrt().quantile(quarters).tolist()
        aspects = (share[:, 0] / share[:, 1]).log().quantile(quarters).exp().tolist()
        ratios.append(tuple((round(aspect, 4), round(size, 4)) for size in sizes for aspect in aspects))
    return replace(recipe, name=f"{recipe.name}-quantiles", ratios=tuple(ratios))


WAYS: dict[str, Callable[[Tensor, PriorRecipe], PriorRecipe]] = {
    "by hand": by_hand,
    "quantiles": by_quantiles,
    **METHODS,
}


def compared(fitted_to: Tensor, measured_on: Tensor) -> dict[str, Any]:
    """For each way, how its priors do on the objects that they were fitted to, and on others.

    "covered": share of the objects with a prior that overlaps them by 0.5 or more; "mean_iou" with the best prior;
    "shape_iou" with the most similar shape, as if every object had a prior at its very centre.
    """
    result = {}
    for name, way in WAYS.items():
        recipe = way(fitted_to, TINY)
        shapes = torch.tensor([shape for k in range(len(recipe.map_sizes)) for shape in recipe.shapes(k)])
        rows = {}
        for which, boxes in (("fit", fitted_to), ("test", measured_on)):
            overlaps = best_overlaps(boxes, recipe)
            alike = shape_overlaps(boxes[:, 2:] - boxes[:, :2], shapes).amax(dim=1)
            rows[which] = {
                "covered": round(float((overlaps >= COVERED).double().mean()), 4),
                "mean_iou": round(float(overlaps.double().mean()), 4),
                "shape_iou": round(float(alike.double().mean()), 4),
            }
        result[name] = rows
    return result


def elbow(boxes_xyxy: Tensor) -> list[float]:
    """Mean IoU of the objects' shapes with the nearest of 1, 2, ... 15 clusters."""
    shapes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    means = (shape_overlaps(shapes, cluster_shapes(shapes, k)).amax(dim=1).mean() for k in CLUSTERS)
    return [round(float(mean), 4) for mean in means]


def main(
    data: Annotated[list[str], typer.Option(help="NAME=FOLDER of a data set with image sets trainval and test.")],
    name: Annotated[str, typer.Option(help="Name of the record.")] = "prior_shapes",
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Fit, count, and record."""
    folders = {"drawn": sample_root()}
    for entry in data:
        what, _, folder = entry.partition("=")
        if not folder:
            raise typer.BadParameter(f"--data takes NAME=FOLDER, got {entry!r}")
        folders[what] = Path(folder)
    sets = {}
    for what, path in folders.items():
        dataset = open_dataset(path, "trainval")
        fitted_to, _ = objects_of(dataset)
        measured_on, _ = objects_of(open_dataset(path, "test", dataset.classes))
        sets[what] = {
            "objects": {"fit": len(fitted_to), "test": len(measured_on)},
            "ways": compared(fitted_to, measured_on),
            "elbow": elbow(fitted_to),
        }
    command = " ".join(f"--data {what}=data/{path.name}" for what, path in folders.items() if what != "drawn")
    record = {"command": f"python benchmarks/prior_shapes.py {command}", **circumstances(), "sets": sets}
    write_record(record, name, results)


if __name__ == "__main__":
    typer.run(main)
