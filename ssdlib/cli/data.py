"""`ssd data`: make, download, convert and check data sets."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import clear_errors, example, printable
from ssdlib.cli.outputs import require_ending, require_outside, require_writable, some_path
from ssdlib.data import (
    check_dataset,
    convert_dataset,
    make_sheet,
    make_toy_voc,
    open_dataset,
    split_dataset,
    write_shards,
)
from ssdlib.data.download import VOC_ARCHIVES, download_voc
from ssdlib.data.files import write_text
from ssdlib.data.formats.detecting import FORMATS
from ssdlib.data.names import counted
from ssdlib.data.near_duplicates import THRESHOLD
from ssdlib.data.opening import choose_set
from ssdlib.data.shards import PER_SHARD
from ssdlib.data.sheet import ORDERS

app = typer.Typer(help="Make, download, convert and check data sets.", no_args_is_help=True)

Format = Enum("Format", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]
Layout = Enum("Layout", {name: name for name in ("coco", "voc")}, type=str)  # type: ignore[misc]
Order = Enum("Order", {name: name for name in ORDERS}, type=str)  # type: ignore[misc]
Part = Enum("Part", {name: name for name in VOC_ARCHIVES}, type=str)  # type: ignore[misc]


@app.command(epilog=example("ssd data toy data/toy", "ssd data toy data/other --train 500 --seed 1"))
def toy(
    root: Annotated[
        Path, typer.Argument(help="Folder to make; it must not hold anything else.", metavar="ROOT", parser=some_path)
    ],
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 2500,
    val: Annotated[int, typer.Option(min=0, help="Validation images.")] = 100,
    test: Annotated[int, typer.Option(min=0, help="Test images.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw a synthetic data set: six kinds of objects among clutter, in the VOC layout, without any download."""
    with clear_errors():
        made = make_toy_voc(root, train=train, val=val, test=test, seed=seed)
    typer.echo(f"{train:,} training, {val:,} validation and {counted(test, 'test image')} in {made}")


@app.command(epilog=example("ssd data voc --root data", "ssd data voc --root data --part 2007-test"))
def voc(
    root: Annotated[
        Path, typer.Option(help="Folder for the folders VOC2007 and VOC2012.", metavar="PATH", parser=some_path)
    ],
    part: Annotated[list[Part] | None, typer.Option(help="Only this part; can be given more than once.")] = None,
    url: Annotated[str | None, typer.Option(help="Folder of a mirror that has the archives.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives in ROOT/downloads when unpacked.")] = False,
) -> None:
    """Download PASCAL VOC 2007 (trainval and test) and 2012 (trainval), 2.9 GB, and unpack them.

    What is there is skipped, and a download that was cut off goes on where it stopped: after any trouble, run it again.
    """
    with clear_errors():
        chosen = VOC_ARCHIVES if part is None else [item.value for item in part]
        folders = download_voc(root, [VOC_ARCHIVES[name] for name in chosen], mirror=url, keep=keep)
    for folder in folders:
        typer.echo(f"complete: {folder}")


@app.command(
    epilog=example(
        "ssd data convert labelled --out data/mine",
        "ssd data convert labels/train.csv --from openimages --images photographs --to voc --out data/mine --link",
        "ssd data convert data/shards --out data/files",
    )
)
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with labels and images, or the one file of labels.", metavar="SOURCE", parser=some_path
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.", metavar="FOLDER", parser=some_path)],
    labels: Annotated[
        Format | None, typer.Option("--from", help="Format of the labels; by default the files say which.")
    ] = None,
    layout: Annotated[
        Layout, typer.Option("--to", help="Layout of the new folder: coco holds everything, voc is a file an image.")
    ] = "coco",  # type: ignore[assignment]
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, if they are elsewhere.", metavar="FOLDER", parser=some_path),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Make symbolic links to the images, and no copies.")] = False,
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="The boxes of VOC's XML count from 0, as some tools write them.")
    ] = False,
) -> None:
    """Turn labels of an annotation tool into a data set: YOLO text, COCO, VOC, LabelMe, CVAT or Open Images CSV.

    Shards, as `ssd data shard` writes them, become files again, and a folder that `ssd data split` can divide.
    It says which images and objects came over, which did not, and why; conversion.txt in FOLDER keeps it. What was
    written is read back and compared. The exit status is 1 when something did not come over. Look at the result with
    `ssd data check`, then make its sets with `ssd data split`.
    """
    with clear_errors():
        done = convert_dataset(
            source,
            out,
            labels=None if labels is None else labels.value,
            layout=layout.value,
            images=images,
            one_based=not zero_based,
            link=link,
        )
    typer.echo(printable(done.text()))
    if not done.ok:
        raise typer.Exit(1)


@app.command(epilog=example("ssd data check data/toy"))
def check(
    root: Annotated[
        Path,
        typer.Argument(help="Folder in the VOC or the COCO layout, or with shards.", metavar="ROOT", parser=some_path),
    ],
) -> None:
    """Read every annotation and every image; report sizes, classes, scenes that are in two sets, and all that is wrong.

    The exit status is 1 when an object was refused, or a file is missing or unreadable.
    """
    with clear_errors():
        report = check_dataset(root)
    typer.echo(printable(report.text()))
    if not report.ok:
        raise typer.Exit(1)


@app.command(
    epilog=example(
        "ssd data split data/mine --val 0.2 --test 0.1",
        "ssd data split data/mine --test 0 --by '^(.*)_frame' --force",
    )
)
def split(
    root: Annotated[
        Path, typer.Argument(help="Folder in the VOC or the COCO layout.", metavar="FOLDER", parser=some_path)
    ],
    val: Annotated[float, typer.Option(help="Share of the images for validation; 0 for none.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the images for the test; 0 for none.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same sets.")] = 0,
    image_set: Annotated[
        str | None, typer.Option(help="The set to divide; by default all, or the only one there is.")
    ] = None,
    threshold: Annotated[
        int,
        typer.Option(min=-1, max=64, help="Bits of 64 in which near-duplicates may differ; -1: only equal files."),
    ] = THRESHOLD,
    by: Annotated[
        str | None,
        typer.Option(
            help='Regular expression: images in whose names it finds the same stay together, such as "^(.*)_frame".',
            metavar="PATTERN",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace train, val, trainval and test.")] = False,
) -> None:
    """Divide the images into train, val and test: every class in each, and no scene in two of them.

    Near-duplicates, such as the next photograph of a series, stay together: a test on a scene that training has seen
    says too much. No image is moved; the sets are lists in the folder, with trainval for the first two. Run
    `ssd data check` before, so that nothing is wrong with the labels, and after.
    """
    with clear_errors():
        done = split_dataset(
            root, val=val, test=test, seed=seed, image_set=image_set, threshold=threshold, by=by, overwrite=force
        )
    typer.echo(printable(done.text()))


@app.command(
    epilog=example(
        "ssd data shard data/coco --image-set train2017 --to data/shards",
        "ssd train --data data/shards --image-set train2017 --out runs/coco",
    )
)
def shard(
    root: Annotated[
        Path, typer.Argument(help="Folder in the VOC or the COCO layout.", metavar="FOLDER", parser=some_path)
    ],
    to: Annotated[Path, typer.Option(help="Folder for the tar files.", metavar="SHARDS", parser=some_path)],
    image_set: Annotated[str | None, typer.Option(help="The set; by default all, or the only one there is.")] = None,
    images: Annotated[int, typer.Option(min=1, help="The most images of a tar file.")] = PER_SHARD,
) -> None:
    """Write an image set as tar files in the layout of WebDataset, for disks that are slow with many small files.

    `ssd train` and `ssd evaluate` take the folder SHARDS as they take FOLDER, with the same batches: a run on the files
    can go on with the shards. Any program for WebDataset reads them; the sets of one folder can be written one by one.
    """
    with clear_errors():
        require_outside(to, [root])
        name = choose_set(root, image_set)
        written = write_shards(open_dataset(root, name), to, name, images)
    size = sum(path.stat().st_size for path in written) / 1e6
    typer.echo(f"{counted(len(written), 'tar file')} of {name!r}, {size:.1f} MB: {to}")


@app.command(
    epilog=example(
        "ssd data show data/mine --out sheet.html",
        "ssd data show data/mine --out small.html --class cat --smaller 0.1 --order smallest",
    )
)
def show(
    root: Annotated[
        Path,
        typer.Argument(
            help="Folder in the VOC or the COCO layout, or with shards.", metavar="FOLDER", parser=some_path
        ),
    ],
    out: Annotated[Path, typer.Option(help="Page to write, .html.", metavar="FILE", parser=some_path)],
    image_set: Annotated[str | None, typer.Option(help="The set; by default all, or the only one there is.")] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Only images with this class; can be given more than once.")
    ] = None,
    larger: Annotated[
        float, typer.Option(min=0, help="Only images with an object of this size: the root of its share of the area.")
    ] = 0.0,
    smaller: Annotated[float | None, typer.Option(min=0, help="Only images with an object below this size.")] = None,
    order: Annotated[Order, typer.Option(help="What comes first.")] = "file",  # type: ignore[assignment]
    limit: Annotated[int, typer.Option(min=1, help="The most images.")] = 60,
    side: Annotated[int, typer.Option(min=16, max=2000, help="Longer side of a picture, in pixels.")] = 400,
) -> None:
    """Draw the images with their objects on a page: one file, which a browser opens without a network.

    Look at the smallest and the thinnest objects, where labels go wrong most; `ssd data check` tells what is wrong by
    the numbers.
    """
    with clear_errors():
        require_ending(out, {".html"})  # and so no image or label is replaced
        require_writable(out)
        require_outside(out, [root])
        name = choose_set(root, image_set)
        sheet = make_sheet(
            open_dataset(root, name, progress=False),
            classes=class_ or (),
            larger=larger,
            smaller=math.inf if smaller is None else smaller,
            order=order.value,
            limit=limit,
            side=side,
            title=f"{root.resolve().name}, set {name}",
        )
        write_text(out, sheet.page())
    typer.echo(f"{sheet.note}: {out}")
