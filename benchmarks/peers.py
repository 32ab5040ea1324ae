"""The work of an SSD as pairs: our code, and that of torchvision (or torchmetrics), on the same tensors.

Each function makes the inputs from a seed and returns the `Pair`. What stands beside our code is the library's own:
for the loss `SSD.proposal_matcher` and `SSD.compute_loss`, for detection `SSD.postprocess_detections`, for training
and inference the detector itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from timing import Pair
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.data import load_image
from ssdlib.data.transforms import Augmentation, model_input
from ssdlib.detection import detect
from ssdlib.engine.config import TrainConfig
from ssdlib.loss import multibox_loss
from ssdlib.matching import match
from ssdlib.metrics import evaluate
from ssdlib.priors import SSD300_COCO, SSD512_VOC, PriorRecipe, make_priors
from ssdlib.training import make_optimizer, train_step
from ssdlib.zoo import from_torchvision

Target = dict[str, Tensor]
RECIPES = {"SSD300": SSD300_COCO, "SSD512": SSD512_VOC}

WORDS = {"ssd300_vgg16": "SSD300", "ssdlite320_mobilenet_v3_large": "SSDLite"}
"""What the tables call torchvision's detectors."""


@cache
def detector(classes: int, name: str = "ssd300_vgg16") -> nn.Module:
    """One of torchvision's detectors with random weights, whose scores differ; classes count background."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter, std=0.002 if parameter.dim() > 1 else 0.5)
    return model


@cache
def bare_detector() -> Any:
    """The same without its weights: for its loss and its postprocessing, which have none."""
    with torch.device("meta"):
        return torchvision.models.get_model("ssd300_vgg16", weights=None, weights_backbone=None)


def scene(images: int, objects: int, classes: int, priors: Tensor, seed: int = 0) -> list[Target]:
    """Random objects for which both libraries match the same.

    They differ where two objects have the same best prior (torchvision forgets one of them), and where rounding decides
    (theirs is that of pixels): an overlap is the threshold, or an object overlaps two priors best.
    """
    generator = torch.Generator().manual_seed(seed)
    corners, targets = cxcywh_to_xyxy(priors), []
    while len(targets) < images:
        size = 0.05 + 0.5 * torch.rand(4 * objects + 8, 2, generator=generator) ** 2
        corner = torch.rand(len(size), 2, generator=generator) * (1 - size)
        boxes = torch.cat((corner, corner + size), dim=1)
        overlaps = iou(boxes, corners)
        clear = ~torch.isclose(overlaps, torch.tensor(0.5), rtol=1e-5).any(dim=1)
        first, second = overlaps.topk(2, dim=1).values.unbind(1)
        clear &= first - second > 1e-5
        best, taken, chosen = overlaps.argmax(dim=1).tolist(), set(), []
        for row in clear.nonzero().flatten().tolist():
            if best[row] not in taken and len(chosen) < objects:
                taken.add(best[row])
                chosen.append(row)
        if len(chosen) == objects:
            labels = torch.randint(1, classes, (objects,), generator=generator)
            targets.append({"boxes": boxes[chosen], "labels": labels})
    return targets


def loss(images: int = 32, objects: int = 6, classes: int = 21, recipe: str = "SSD300", target: float = 0.6) -> Pair:
    """Matching and loss, forward."""
    size, priors = _priors(RECIPES[recipe])
    targets = scene(images, objects, classes, priors)
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(images, len(priors), 4, generator=generator)
    logits = torch.randn(images, len(priors), classes, generator=generator)
    in_pixels = [{**each, "boxes": each["boxes"] * size} for each in targets]
    anchors = [cxcywh_to_xyxy(priors) * size] * images
    ssd, outputs = bare_detector(), {"bbox_regression": offsets, "cls_logits": logits}

    def theirs() -> dict[str, Tensor]:
        matched = [ssd.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(in_pixels, anchors, strict=True)]
        return ssd.compute_loss(in_pixels, outputs, anchors, matched)

    work = f"matching + loss, batch {images}, {len(priors)} priors, {objects} objects an image, {classes} classes"
    return Pair(work, lambda: multibox_loss(offsets, logits, targets, priors), theirs, same_losses, target)


def detection(trained: bool, images: int = 8, classes: int = 21, recipe: str = "SSD300", target: float = 0.5) -> Pair:
    """From predictions to detections: a trained network's, or one's whose scores all are above the threshold."""
    size, priors = _priors(RECIPES[recipe])
    offsets, logits = (trained_like if trained else untrained)(images, classes, priors)
    anchors = [cxcywh_to_xyxy(priors) * size] * images
    ssd, outputs = bare_detector(), {"bbox_regression": offsets, "cls_logits": logits}
    passing = int((logits.softmax(dim=-1)[..., 1:] > 0.01).sum()) // images
    kind = "a trained net's scores" if trained else "an untrained net's scores"
    return Pair(
        f"detection, batch {images}, {len(priors)} priors, {classes} classes, {kind} ({passing} an image pass 0.01)",
        lambda: detect(offsets, logits, priors),
        torch.no_grad()(lambda: ssd.postprocess_detections(outputs, anchors, [(size, size)] * images)),
        lambda ours, theirs: same_detections(ours, theirs, size),
        target,
    )


def untrained(images: int, classes: int, priors: Tensor) -> tuple[Tensor, Tensor]:
    """What a network with small random weights says: offsets about 0, all classes about equal."""
    generator = torch.Generator().manual_seed(2)
    offsets = 0.1 * torch.randn(images, len(priors), 4, generator=generator)
    return offsets, 0.1 * torch.randn(images, len(priors), classes, generator=generator)


def trained_like(images: int, classes: int, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Sure of the background, but near 6 objects an image the priors find the object, the surer the more they overlap.

    With noise in both, a third of the classes' best scores stay above 0.01, as is usual on photographs.
    """
    generator = torch.Generator().manual_seed(3)
    offsets = 0.5 * torch.randn(images, len(priors), 4, generator=generator)
    logits = torch.randn(images, len(priors), classes, generator=generator)
    logits[..., 0] += 7 + math.log(classes)
    for i, each in enumerate(scene(images, 6, classes, priors, seed=4)):
        overlap, of_prior = iou(each["boxes"], cxcywh_to_xyxy(priors)).max(dim=0)  # (P,) each
        rows = (overlap > 0.3).nonzero().squeeze(1)
        exact = encode(xyxy_to_cxcywh(each["boxes"])[of_prior[rows]], priors[rows])
        offsets[i, rows] = exact + 0.3 * torch.randn(len(rows), 4, generator=generator)
        logits[i, rows, each["labels"][of_prior[rows]]] += 20 * overlap[rows]
    return offsets, logits


class Trainers:
    """A network of ours and torchvision's with the same weights, each with its optimizer, on the same batch."""

    def __init__(self, images: int, classes: int = 21, bfloat16: bool = False, name: str = "ssd300_vgg16") -> None:
        torch.manual_seed(0)
        self.theirs = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=classes
        ).train()
        self.ours = from_torchvision(self.theirs).train().to(memory_format=torch.channels_last)
        # A rate at which random weights do not explode: there, rounding would decide about the second step.
        self.config = TrainConfig(
            architecture="ssd300_vgg16",
            optimizer="sgd",
            learning_rate=1e-5,
            max_grad_norm=None,
            precision="bfloat16" if bfloat16 else "float32",
        )
        self.optimizer = make_optimizer(self.ours, self.config)
        vectors = {id(p) for p in self.theirs.parameters() if p.dim() <= 1}
        groups = [
            {"params": [p for p in self.theirs.parameters() if id(p) not in vectors]},
            {"params": [p for p in self.theirs.parameters() if id(p) in vectors], "weight_decay": 0.0},
        ]
        rate = self.config.learning_rate
        self.their_optimizer = torch.optim.SGD(groups, lr=rate, momentum=self.config.momentum, weight_decay=5e-4)
        self.targets = scene(images, 6, classes, self.ours.priors, seed=5)
        size = self.ours.recipe.image_size
        self.in_pixels = [{**each, "boxes": each["boxes"] * size} for each in self.targets]
        self.images = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(6))

    def our_step(self) -> list[float]:
        images = self.images.to(memory_format=torch.channels_last)
        measured = train_step(self.ours, images, self.targets, self.optimizer, self.config)
        return [measured["localization"], measured["confidence"]]

    def their_step(self) -> list[float]:
        losses = self.theirs(list(self.images), self.in_pixels)
        self.their_optimizer.zero_grad()
        sum(losses.values()).backward()
        self.their_optimizer.step()
        return [losses["bbox_regression"].item(), losses["classification"].item()]


def training(bfloat16: bool, images: int = 4, name: str = "ssd300_vgg16") -> Pair:
    """One step: forward, loss, backward, SGD. Theirs always in float32, as torchvision's detectors are trained."""
    trainers = Trainers(images, bfloat16=bfloat16, name=name)
    tolerance = 3e-2 if bfloat16 else 1e-3

    def same(ours: list[float], theirs: list[float]) -> str:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-3)
        # The second step tells whether the first moved the weights in the same direction.
        again = trainers.our_step(), trainers.their_step()
        torch.testing.assert_close(*again, rtol=tolerance, atol=1e-3)
        return f"losses of the first two steps within {tolerance:.1%}"

    kind = "bfloat16, channels_last" if bfloat16 else "float32"
    target = 0.45 if bfloat16 else 0.85
    work = f"{WORDS[name]} training step, batch {images}, {kind}"
    return Pair(work, trainers.our_step, trainers.their_step, same, target)


def inference(bfloat16: bool, images: int, classes: int = 21, name: str = "ssd300_vgg16") -> Pair:
    """Network and detection. Theirs always in float32."""
    theirs: Any = detector(classes, name).eval()
    # Those of SSD300 and of our `detect`; SSDLite has others.
    theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates, theirs.detections_per_img = 0.01, 0.45, 400, 200
    ours = from_torchvision(theirs).to(memory_format=torch.channels_last)
    size = ours.recipe.image_size
    batch = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(7))
    exact = from_torchvision(theirs)
    for module in ours.modules():
        if bfloat16 and isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)  # else autocast makes bfloat16 of every weight for every batch

    @torch.inference_mode()
    def our_detections() -> list[dict[str, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            offsets, logits = ours(batch.to(memory_format=torch.channels_last))
        return detect(offsets, logits, ours.priors)

    def same(found: Any, expected: Any) -> str:
        if not bfloat16:
            # Of 174,640 scores many are equal within rounding, and then another box of a cluster may stay.
            return same_detections(found, expected, size, differing_share=0.05)
        with torch.inference_mode():
            expected = torch.cat([p.flatten() for p in exact(batch)])
            with torch.autocast("cpu", torch.bfloat16):
                found = torch.cat([p.flatten() for p in ours(batch)])
        error = float((found - expected).norm() / expected.norm())
        assert error < 0.03, error
        return f"predictions within {error:.2%} of those in float32 (root mean square)"

    kind, target = ("bfloat16", 0.45) if bfloat16 else ("float32", 0.85)
    work = f"{WORDS[name]} inference, batch {images}, {kind}"
    return Pair(work, our_detections, torch.inference_mode()(lambda: theirs(list(batch))), same, target)


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
    priors = _priors(SSD300_COCO)[1]
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
    return Pair(work, lambda: evaluate(found, targets, classes), theirs, same, 0.2, limit=0.15)


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


def same_losses(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    torch.testing.assert_close(ours["localization"], theirs["bbox_regression"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["confidence"], theirs["classification"], rtol=1e-4, atol=1e-5)
    return "both losses within 0.01%"


def same_detections(ours: list[Target], theirs: list[Target], size: int, differing_share: float = 0.02) -> str:
    """Each of our detections has one of theirs: same class, boxes within 0.05 pixels, scores within 1e-4.

    Of an image's last detections some may differ, where their scores are equal within rounding.
    """
    differing = total = 0
    for a, b in zip(ours, theirs, strict=True):
        # Torchvision keeps boxes that have no area inside the image, and ours go on with the next ones instead.
        b = {key: value[(b["boxes"][:, 2:] > b["boxes"][:, :2]).all(dim=1)] for key, value in b.items()}
        assert len(a["scores"]) >= len(b["scores"])
        a = {key: value[: len(b["scores"])] for key, value in a.items()}
        torch.testing.assert_close(a["scores"], b["scores"].float(), atol=1e-4, rtol=1e-3)
        if not len(a["scores"]):
            continue
        apart = (a["boxes"][:, None] * size - b["boxes"]).abs().amax(dim=2)  # (K, K)
        apart = apart + 1000 * (a["labels"][:, None] != b["labels"])
        differing += int((apart.amin(dim=1) > 0.05).sum())
        total += len(a["scores"])
    assert differing <= max(1, differing_share * total), f"{differing} of {total} detections differ"
    return f"{total - differing} of {total} detections the same, scores within 1e-4"


def _priors(recipe: PriorRecipe) -> tuple[int, Tensor]:
    return recipe.image_size, make_priors(recipe)


def matching(images: int, objects: int, recipe: str = "SSD300") -> Pair:
    """Matching alone: torchvision's `box_iou` and `SSDMatcher`."""
    priors = make_priors(RECIPES[recipe])
    targets = scene(images, objects, 21, priors)
    anchors = cxcywh_to_xyxy(priors)

    def theirs() -> list[Tensor]:
        return [bare_detector().proposal_matcher(box_iou(each["boxes"], anchors)) for each in targets]

    def same(ours: list[Tensor], theirs: list[Tensor]) -> str:
        assert all(bool((a == b.clamp(min=-1)).all()) for a, b in zip(ours, theirs, strict=True))
        return "the same object for every prior"

    work = f"matching, batch {images}, {len(priors)} priors, {objects} objects an image"
    return Pair(work, lambda: [match(each["boxes"], priors) for each in targets], theirs, same, 1.0)
