"""The network: a backbone, two small convolutions on each feature map, and the stacking of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from ssdlib.backbones import VGG16, MobileNetV2, MobileNetV3, Tiny, lite_conv, lite_init
from ssdlib.coding import Activation
from ssdlib.detection import Detection, detect
from ssdlib.priors import SSD300_MOBILENET, SSD300_VOC, SSD512_VOC, SSDLITE320, PriorRecipe, Ratio, make_priors

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SQUARE_AND_TWO: tuple[Ratio, ...] = (1.0, 2.0, 1 / 2, "extra")

TINY = PriorRecipe(
    name="tiny-256",
    image_size=256,
    map_sizes=(32, 16, 8, 4, 2),
    scales=(0.07, 0.16, 0.3, 0.48, 0.66, 0.9),
    ratios=(_SQUARE_AND_TWO,) * 5,
)


class PredictionConvolutions(nn.Module):
    """One 3 x 3 convolution for each feature map, which predicts `outputs` numbers for each prior of each cell."""

    def __init__(self, channels: Sequence[int], priors_per_cell: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.convolutions = nn.ModuleList(
            self.convolution(inputs, k * outputs) for inputs, k in zip(channels, priors_per_cell, strict=True)
        )
        for layer in self.convolutions:  # not as each is made: recorded runs drew their random numbers in this order
            self.initialize(layer)

    @staticmethod
    def convolution(inputs: int, outputs: int) -> nn.Module:
        """The layer of one map: (N, inputs, H, W) -> (N, outputs, H, W)."""
        return nn.Conv2d(inputs, outputs, 3, padding=1)

    @staticmethod
    def initialize(layer: nn.Module) -> None:
        """Give the layer of one map the weights that training starts from."""
        nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (N, C_k, H_k, W_k) -> (N, P, outputs), in the order of `make_priors`."""
        stacked = []
        for x, convolution in zip(maps, self.convolutions, strict=True):
            x = convolution(x)  # (N, K * outputs, H, W)
            x = x.permute(0, 2, 3, 1)  # (N, H, W, K * outputs): a cell's numbers side by side
            x = x.reshape(x.shape[0], -1, self.outputs)  # (N, H * W * K, outputs): rows, columns, priors of the cell
            stacked.append(x)
        return torch.cat(stacked, dim=1)  # (N, P, outputs)


class LitePredictions(PredictionConvolutions):
    """The heads of SSDLite: in place of the 3 x 3 convolution, one for each channel and a 1 x 1 that mixes them.

    Source: Sandler et al., MobileNetV2 (2018), section 6.2.
    """

    @staticmethod
    def convolution(inputs: int, outputs: int) -> nn.Module:
        """The two layers of one map: (N, inputs, H, W) -> (N, outputs, H, W)."""
        return nn.Sequential(lite_conv(inputs, inputs, 3), nn.Conv2d(inputs, outputs, 1))

    @staticmethod
    def initialize(layer: nn.Module) -> None:
        """As torchvision's SSDLite."""
        lite_init(layer)


class PointPredictions(PredictionConvolutions):
    """Heads that look at a single cell: 1 x 1 convolutions, a ninth of the parameters."""

    @staticmethod
    def convolution(inputs: int, outputs: int) -> nn.Module:
        """The layer of one map: (N, inputs, H, W) -> (N, outputs, H, W)."""
        return nn.Conv2d(inputs, outputs, 1)


class SSD(nn.Module):
    """Single Shot MultiBox Detector: one pass of the network gives offsets and class scores for every prior.

    Args:
        backbone: returns feature maps of the sizes that the recipe says, with `out_channels` naming their channels.
        recipe: the priors.
        num_classes: C, background included.
        classes: names of the objects (labels 1..C-1); by default "1", "2", ...
        mean, std: per channel, the normalisation of images whose values are 0..1.
        head: makes each of the two heads from the maps' channels, the priors per cell, and the numbers per prior.
        activation: how scores are made of the logits: "softmax", or "sigmoid", a question of its own for each class.
        architecture: the name in `ARCHITECTURES` that rebuilds this network; a checkpoint needs it.

    Raises:
        ValueError: if there are not C - 1 class names, or the backbone has another number of maps than the recipe.

    Source: Liu et al. (2016).
    """

    priors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        recipe: PriorRecipe,
        num_classes: int,
        *,
        classes: Sequence[str] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        head: Callable[[Sequence[int], Sequence[int], int], nn.Module] = PredictionConvolutions,
        activation: Activation = "softmax",
        architecture: str | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
        self.classes = tuple(classes) if classes is not None else tuple(str(c) for c in range(1, num_classes))
        if len(self.classes) != num_classes - 1:
            raise ValueError(f"{num_classes} classes with background need {num_classes - 1} names, got {self.classes}")
        self.backbone, self.recipe, self.num_classes = backbone, recipe, num_classes
        self.architecture, self.activation = architecture, activation
        self.frozen: tuple[str, ...] = ()
        channels: Sequence[int] = backbone.out_channels  # type: ignore[assignment]
        if len(channels) != len(recipe.map_sizes):
            raise ValueError(f"backbone with {len(channels)} feature maps, recipe with {len(recipe.map_sizes)}")
        self.offset_head = head(channels, recipe.priors_per_cell, 4)
        self.class_head = head(channels, recipe.priors_per_cell, num_classes)
        # Not in the state dict: they follow from the recipe, which the checkpoint keeps.
        self.register_buffer("priors", make_priors(recipe), persistent=False)
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict for a batch of images.

        Args:
            images: (N, 3, S, S) float RGB in 0..1; S is the recipe's image size.

        Returns:
            offsets (N, P, 4) and logits (N, P, num_classes), in the order of `self.priors`.

        Raises:
            ValueError: if the images have another shape, or the backbone's maps are not those of the recipe.
        """
        size = self.recipe.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(f"this SSD takes images (N, 3, {size}, {size}), got {tuple(images.shape)}")
        maps = self.backbone((images - self.mean) / self.std)
        sides = tuple(tuple(x.shape[2:]) for x in maps)
        if sides != tuple((side, side) for side in self.recipe.map_sizes):
            raise ValueError(f"recipe {self.recipe.name!r} is for maps of {self.recipe.map_sizes} cells, got {sides}")
        return self.offset_head(maps), self.class_head(maps)

    def freeze(self, parts: Iterable[str]) -> None:
        """Keep parts of the network as they are: no gradients, and batch normalisation always in evaluation mode.

        Args:
            parts: names of modules, such as "backbone" or "backbone.stages.0".

        Raises:
            ValueError: if there is no such part.
        """
        for part in parts:
            if part not in dict(self.named_modules()) or not part:
                raise ValueError(f"this network has no part {part!r}; there are {', '.join(self._modules)} and theirs")
            self.get_submodule(part).requires_grad_(False)
            self.frozen = (*self.frozen, part)
        self.train(self.training)

    def train(self, mode: bool = True) -> SSD:
        """As of every module, but that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self

    @torch.no_grad()
    def predict(self, images: Sequence[Any], **options: Any) -> list[Detection]:
        """Detect objects in images of any size; the model is in evaluation mode for the time of the call.

        Args:
            images: PIL images, or uint8 tensors (3, H, W), RGB.
            options: those of `ssdlib.detection.detect` (min_score, max_overlap, top_k).

        Returns:
            One detection dict an image, on the CPU, with boxes in pixels of that image, upright (see `upright_rgb`).

        Raises:
            FloatingPointError: if the network's predictions are not finite.
        """
        if not len(images):
            return []
        images = [upright_rgb(image) for image in images]
        batch = torch.stack([prepare(image, self.recipe.image_size) for image in images])  # (N, 3, S, S)
        training = self.training
        self.eval()
        try:
            offsets, logits = self(batch.to(self.priors.device))
        finally:
            self.train(training)
        require_finite(offsets, logits)
        results = []
        detections = detect(offsets, logits, self.priors, activation=self.activation, **options)
        for image, found in zip(images, detections, strict=True):
            height, width = image.shape[1:]
            to_pixels = torch.tensor([width, height, width, height])
            results.append({key: value.cpu() for key, value in found.items()})
            results[-1]["boxes"] = results[-1]["boxes"] * to_pixels
        return results


def require_finite(offsets: Tensor, logits: Tensor) -> None:
    """Refuse predictions that are not finite, from which `detect` would make boxes nonetheless.

    Raises:
        FloatingPointError: if there is one.
    """
    if not (offsets.isfinite().all() and logits.isfinite().all()):
        raise FloatingPointError("the network's predictions are not finite: its weights or its input are damaged")


def prepare(image: Any, size: int) -> Tensor:
    """Turn an image into the network's input.

    Args:
        image: a PIL image, or a uint8 tensor (3, H, W), RGB.
        size: side of the square input in pixels; the aspect ratio is not kept, as in the paper.

    Returns:
        (3, size, size) float32 in 0..1.
    """
    return TF.to_dtype(TF.resize(upright_rgb(image), [size, size], antialias=True), torch.float32, scale=True)


def upright_rgb(image: Any) -> Tensor:
    """The pixels of an image as programs show it: uint8 (3, H, W), RGB.

    Args:
        image: a PIL image, which is turned as its EXIF data ask for; or a uint8 tensor (3, H, W), which is taken as it
            is. `ssdlib.data.load_image` makes the same of a file.

    Raises:
        ValueError: as `to_rgb`.
    """
    if isinstance(image, Tensor):
        return image
    image.load()  # before asking for the orientation: of a TIFF Pillow turns the pixels here itself
    orientation = exif_orientation(image)
    rgb = to_rgb(image)
    pixels: Tensor = TF.pil_to_tensor(rgb if orientation == 1 else rgb.transpose(EXIF_TURNS[orientation]))
    return pixels


EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image that was stored with an EXIF orientation becomes upright; with orientation 1 it is."""


def exif_orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8, that the EXIF data of an image state; 1 if there are none or they cannot be read."""
    # Asking a PNG without EXIF data in its head for them would decode it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # as many kinds of errors as there are ways to damage these data; the picture is not concerned
        return 1
    return int(value) if value in EXIF_TURNS else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: transparency is dropped, and 16 bits are cut to the upper 8.

    Raises:
        ValueError: the pixels are floating point or 32-bit numbers, of which it does not say which are black and white.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        kind = "floating point" if image.mode == "F" else "32-bit"
        raise ValueError(f"its pixels are {kind} numbers, of which it does not say what is white: save it in 8 bits")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow opens as "I;16" or "I"
        gray = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def ssd300_vgg16(
    num_classes: int,
    *,
    classifier_weights: Mapping[str, Tensor] | None = None,
    batch_norm: bool = False,
    **options: Any,
) -> SSD:
    """SSD300 on VGG-16: 8732 priors.

    Args:
        num_classes: C, background included.
        classifier_weights: state dict of torchvision's `vgg16` (or `vgg16_bn`), trained on ImageNet, to start from:
            `torchvision.models.vgg16(weights="DEFAULT").state_dict()`.
        batch_norm: batch normalisation in the backbone, for training from scratch.
        options: recipe (by default SSD300_VOC), classes, mean and std of `SSD`.

    Source: Liu et al. (2016).
    """
    return _ssd_vgg16(300, num_classes, classifier_weights, batch_norm, {"recipe": SSD300_VOC, **options})


def ssd512_vgg16(
    num_classes: int,
    *,
    classifier_weights: Mapping[str, Tensor] | None = None,
    batch_norm: bool = False,
    **options: Any,
) -> SSD:
    """SSD512 on VGG-16: 24564 priors; recipe SSD512_VOC, other arguments as for `ssd300_vgg16`."""
    return _ssd_vgg16(512, num_classes, classifier_weights, batch_norm, {"recipe": SSD512_VOC, **options})


def _ssd_vgg16(
    size: int, num_classes: int, weights: Mapping[str, Tensor] | None, batch_norm: bool, options: dict[str, Any]
) -> SSD:
    if options["recipe"].image_size != size:
        raise ValueError(f"SSD{size} needs a recipe for {size} pixels; {options['recipe'].name!r} is for another size")
    backbone = VGG16(size, batch_norm=batch_norm)
    if weights is not None:
        backbone.load_classifier(weights)
    name = f"ssd{size}_vgg16" + ("_bn" if batch_norm else "")
    return SSD(backbone, num_classes=num_classes, architecture=name, **options)


def ssd_tiny(num_classes: int, **options: Any) -> SSD:
    """A small SSD for images of 256 pixels that learns from scratch on a CPU: same heads, loss and detection.

    Args:
        num_classes: C, background included.
        options: recipe (by default TINY), classes, mean and std of `SSD`.
    """
    return SSD(Tiny(), num_classes=num_classes, architecture="ssd_tiny", **{"recipe": TINY, **options})


def ssdlite320_mobilenet_v3(
    num_classes: int,
    *,
    classifier_weights: Mapping[str, Tensor] | None = None,
    reduced_tail: bool = True,
    **options: Any,
) -> SSD:
    """SSDLite on MobileNetV3-Large, for laptops and phones: 3234 priors, a tenth of SSD300's parameters.

    Args:
        num_classes: C, background included.
        classifier_weights: state dict of torchvision's `mobilenet_v3_large`, trained on ImageNet, to start from:
            `torchvision.models.mobilenet_v3_large(weights="DEFAULT").state_dict()`. They need the full tail.
        reduced_tail: half the channels in the last blocks, for training from scratch, or with torchvision's weights
            for COCO.
        options: recipe (by default SSDLITE320), classes, mean and std of `SSD`. By default, images are normalised as
            ImageNet's with the full tail, and to -1..1 with the reduced one, as torchvision's SSDLite.

    Source: Howard et al., MobileNetV3 (2019); Sandler et al., MobileNetV2 (2018), section 6.2, for the heads.
    """
    backbone = MobileNetV3(reduced_tail=reduced_tail)
    if classifier_weights is not None:
        backbone.load_classifier(classifier_weights)
    name = "ssdlite320_mobilenet_v3" + ("" if reduced_tail else "_full")
    defaults: dict[str, Any] = {"recipe": SSDLITE320}
    if reduced_tail:
        defaults |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    options = {**defaults, **options}
    return SSD(backbone, num_classes=num_classes, head=LitePredictions, architecture=name, **options)


def ssd300_mobilenet_v2(
    num_classes: int,
    *,
    classifier_weights: Mapping[str, Tensor] | None = None,
    batch_norm: bool = False,
    **options: Any,
) -> SSD:
    """SSD300 on MobileNetV2 with 1 x 1 heads: 1917 priors, five million parameters.

    Args:
        num_classes: C, background included.
        classifier_weights: state dict of torchvision's `mobilenet_v2`, trained on ImageNet, to start from; it needs
            batch normalisation: `torchvision.models.mobilenet_v2(weights="DEFAULT").state_dict()`.
        batch_norm: see `ssdlib.backbones.MobileNetV2`. Without it, the network is the one of the weights that
            `ssdlib.zoo` has for the objects of Open Images.
        options: recipe (by default SSD300_MOBILENET), classes, mean, std and activation of `SSD`. By default images
            are normalised as ImageNet's with batch normalisation, and to -1..1 without.

    Source: Huang et al., Speed/accuracy trade-offs for modern convolutional object detectors (2017).
    """
    backbone = MobileNetV2(batch_norm=batch_norm)
    if classifier_weights is not None:
        backbone.load_classifier(classifier_weights)
    name = "ssd300_mobilenet_v2" + ("_bn" if batch_norm else "")
    defaults: dict[str, Any] = {"recipe": SSD300_MOBILENET}
    if not batch_norm:
        defaults |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return SSD(backbone, num_classes=num_classes, head=PointPredictions, architecture=name, **{**defaults, **options})


ARCHITECTURES: dict[str, Callable[..., SSD]] = {
    "ssd300_vgg16": ssd300_vgg16,
    "ssd300_vgg16_bn": partial(ssd300_vgg16, batch_norm=True),
    "ssd512_vgg16": ssd512_vgg16,
    "ssd512_vgg16_bn": partial(ssd512_vgg16, batch_norm=True),
    "ssd300_mobilenet_v2": ssd300_mobilenet_v2,
    "ssd300_mobilenet_v2_bn": partial(ssd300_mobilenet_v2, batch_norm=True),
    "ssdlite320_mobilenet_v3": ssdlite320_mobilenet_v3,
    "ssdlite320_mobilenet_v3_full": partial(ssdlite320_mobilenet_v3, reduced_tail=False),
    "ssd_tiny": ssd_tiny,
}


def build_model(architecture: str, classes: Sequence[str], **options: Any) -> SSD:
    """Build a model by the name of its architecture, as checkpoints and the command line do.

    Args:
        architecture: one of `ARCHITECTURES`.
        classes: names of the objects, without background.
        options: those of the architecture's function.

    Raises:
        ValueError: if there is no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture](len(classes) + 1, classes=classes, **options)
