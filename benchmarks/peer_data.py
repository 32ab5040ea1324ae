"""Images and evaluation as pairs: our pipeline beside `transforms.v2`, our mAP beside three libraries'."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import RECIPES, Target, scene
from PIL import Image
from timing import NotHere, Pair
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdlib.data import load_image
from ssdlib.data.transforms import Augmentation, model_input
from ssdlib.metrics import IGNORED, ClassCurve, Evaluation, evaluate
from ssdlib.priors import make_priors


def reference_augmentation(size: int = 300) -> v2.Transform:
    """Torchvision's SSD augmentation: the preset "ssd" of its references, by transforms.v2, and the resize of SSD."""
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: (123.0, 117.0, 104.0), "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(0.5),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((size, size), antialias=False),  # as torchvision's SSD does in its forward
        ]
    )


def pipeline(folder: Path, images: int = 24, size: int = 300) -> Pair:
    """From JPEG files of 500 x 375 to the network's input, in one thread; the same distribution on both sides."""
    files = write_photographs(folder, images)
    priors = make_priors(RECIPES["SSD300"])
    targets = scene(images, 3, 21, priors, seed=8)
    scale = torch.tensor([500.0, 375.0, 500.0, 375.0])
    for each in targets:
        each["boxes"] = each["boxes"] * scale
    our_transform, their_transform = model_input(size, Augmentation()), reference_augmentation(size)

    def one_thread(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            torch.manual_seed(9)
            try:
                return work()
            finally:
                torch.set_num_threads(threads)

        return run

    def ours() -> list[tuple[Tensor, Target]]:
        pairs = zip(files, targets, strict=True)
        return [our_transform(load_image(file), {k: v.clone() for k, v in t.items()}) for file, t in pairs]

    def theirs() -> list[tuple[Tensor, Target]]:
        results = []
        for file, each in zip(files, targets, strict=True):
            image = Image.open(file).convert("RGB")
            boxes = tv_tensors.BoundingBoxes(each["boxes"], format="XYXY", canvas_size=(image.height, image.width))
            results.append(their_transform(image, {**each, "boxes": boxes}))
        return results

    def same(found: Any, expected: Any) -> str:
        for (image, target), (their_image, _) in zip(found, expected, strict=True):
            assert image.shape == their_image.shape == (3, size, size)
            assert image.dtype == their_image.dtype == torch.float32
            assert 0 <= target["boxes"].min() <= target["boxes"].max() <= 1 if len(target["boxes"]) else True
        # Chance differs; without it, decoding and resizing must agree.
        plain = model_input(size)(load_image(files[0]), targets[0])[0]
        theirs_plain = v2.functional.pil_to_tensor(Image.open(files[0]))
        resized = v2.functional.resize(theirs_plain, [size, size], antialias=True)
        assert (plain - resized / 255).abs().max() <= 2.01 / 255
        return "images of the same shape and type; without augmentation within 2/255"

    return Pair(
        f"training pipeline, {images} JPEG files of 500 x 375 -> augmented 300 x 300, one thread",
        one_thread(ours),
        one_thread(theirs),
        same,
        1 / 1.5,
    )


def write_photographs(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> list[Path]:
    """JPEG files of the size of PASCAL VOC's, in pixels and about in bytes (80 kB): smooth colours and some noise."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        smooth = torch.rand(1, 3, 12, 16, generator=generator)
        image = nn.functional.interpolate(smooth, size=(size[1], size[0]), mode="bicubic")[0]
        image = image + 0.06 * torch.randn(image.shape, generator=generator)
        files.append(folder / f"{i:05d}.jpg")
        v2.functional.to_pil_image(image.clamp(0, 1)).save(files[-1], quality=90)
    return files


def mean_average_precision(images: int = 500, detections: int = 60, classes: int = 21) -> Pair:
    """MAP at IoU 0.5 beside torchmetrics, which counts as COCO does; see `same` for what must agree."""
    from torchmetrics.detection import MeanAveragePrecision

    found, targets = evaluation_data(images, detections, classes)

    def theirs() -> float:
        metric = MeanAveragePrecision(iou_thresholds=[0.5])
        metric.update(found, targets)
        return float(metric.compute()["map"])

    def same(ours: Any, theirs: float) -> str:
        assert abs(ours.mean - theirs) < 0.01, (ours.mean, theirs)
        return f"mAP {ours.mean:.4f} by area, {theirs:.4f} at COCO's 101 recalls"

    work = f"mAP of {images} images x {detections} detections, {classes - 1} classes"
    return Pair(work, lambda: evaluate(found, targets, classes), theirs, same, 0.2, limit=0.03)


PYCOCOTOOLS, FASTER = "pycocotools", "faster-coco-eval"


def coco_evaluation(package: str, images: int = 5000, detections: int = 100, classes: int = 81) -> Pair:
    """MAP of a set of COCO's size at IoU 0.5 beside a library of COCO's rules, for objects of all sizes alone.

    The library gets its dictionaries ready made, outside of the time; ours begins with the tensors.
    """
    dataset_class, evaluation_class = coco_library(package)
    found, targets = evaluation_data(images, detections, classes)

    def as_coco(rows: list[Target]) -> Any:
        annotations: list[dict[str, Any]] = []
        for image, each in enumerate(rows):
            boxes = torch.cat((each["boxes"][:, :2], each["boxes"][:, 2:] - each["boxes"][:, :2]), dim=1)
            scores = each.get("scores", torch.ones(len(boxes))).tolist()
            for box, label, score in zip(boxes.tolist(), each["labels"].tolist(), scores, strict=True):
                about = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0}
                annotations.append({**about, "bbox": box, "area": box[2] * box[3], "score": score})
        coco = dataset_class()
        ids = {"images": range(len(rows)), "categories": range(1, classes)}
        coco.dataset = {name: [{"id": i} for i in values] for name, values in ids.items()}
        coco.dataset["annotations"] = annotations
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        truth, ranked = as_coco(targets), as_coco(found)

    def theirs() -> dict[int, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            run = evaluation_class(truth, ranked, "bbox")
            run.params.iouThrs, run.params.maxDets = np.array([0.5]), [100]
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            run.evaluate()
            run.accumulate()
        precision = np.asarray(run.eval["precision"])[0, :, :, 0, 0]  # (101 recalls, classes), -1: no object
        return {label: float(row.mean()) for label, row in enumerate(precision.T, 1) if row[0] > -1}

    def same(ours: Evaluation, theirs: dict[int, float]) -> str:
        assert ours.per_class.keys() == theirs.keys()
        at_recalls = {label: precision_at_recalls(curve) for label, curve in ours.curves.items()}
        farthest = max(abs(at_recalls[label] - theirs[label]) for label in theirs)
        assert farthest < 0.002, farthest  # of duplicates near another object, the rules of VOC and COCO differ
        means = float(np.mean(list(at_recalls.values()))), float(np.mean(list(theirs.values())))
        return f"mAP {means[0]:.4f} and {means[1]:.4f} at COCO's 101 recalls, AP of each class within {farthest:.4f}"

    work = f"mAP of {images} images x {detections} detections, {classes - 1} classes, beside {package}"
    return Pair(work, lambda: evaluate(found, targets, classes), theirs, same, 1.0)


def coco_library(package: str) -> tuple[Any, Any]:
    """The classes of data set and evaluation of a library, which have the names of pycocotools in all of them."""
    try:
        if package == PYCOCOTOOLS:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        else:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval
    except ImportError as error:
        raise NotHere(f"{package} is not installed") from error
    return COCO, COCOeval


def precision_at_recalls(curve: ClassCurve) -> float:
    """AP as COCO reads it off: the mean of the best precision at recall r and above, for r = 0, 0.01, ..., 1."""
    counts = curve.outcome != IGNORED
    envelope = np.maximum.accumulate(curve.precision[counts][::-1])[::-1]
    first = np.searchsorted(curve.recall[counts], np.linspace(0, 1, 101), side="left")
    return float(np.append(envelope, 0.0)[first].mean())


def evaluation_data(images: int, detections: int, classes: int, seed: int = 10) -> tuple[list[Target], list[Target]]:
    """Per image 5 objects, each found about twice, and boxes at random; pixels of 500 x 375."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([500.0, 375.0, 500.0, 375.0])
    found, targets = [], []
    for _ in range(images):
        corner = 0.7 * torch.rand(5, 2, generator=generator)
        boxes = torch.cat((corner, corner + 0.1 + 0.2 * torch.rand(5, 2, generator=generator)), dim=1) * scale
        labels = torch.randint(1, classes, (5,), generator=generator)
        near = torch.arange(min(10, detections)) % 5
        random = torch.rand(detections - len(near), 2, generator=generator) * 0.8
        others = torch.cat((random, random + 0.15), dim=1) * scale
        jitter = 15 * torch.randn(len(near), 4, generator=generator)
        jittered = boxes[near] + jitter
        jittered = torch.cat((torch.minimum(jittered[:, :2], jittered[:, 2:] - 1), jittered[:, 2:]), dim=1)
        wrong = torch.randint(1, classes, (len(others),), generator=generator)
        scores = torch.rand(detections, generator=generator)
        scores[len(near) :] *= 0.5
        found.append(
            {"boxes": torch.cat((jittered, others)), "labels": torch.cat((labels[near], wrong)), "scores": scores}
        )
        targets.append({"boxes": boxes, "labels": labels})
    return found, targets
