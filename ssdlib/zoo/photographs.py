"""Sample photographs, with the raw outputs that the SSD of Open Images gave for them, for chapters and tests.

The photographs come with scikit-image and matplotlib; no copy of them is here. The outputs were recorded once, by
tools/photograph_outputs.py, so that a chapter computes the same from them where the weights cannot be had, and on every
processor: all that comes after the network is computed from them anew.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from ssdlib.coding import Activation
from ssdlib.detection import Detection, detect
from ssdlib.priors import SSD300_MOBILENET, PriorRecipe, make_priors

OUTPUTS = Path(__file__).parent / "outputs" / "photographs.safetensors"
"""Of each photograph "NAME.offsets" (1917, 4) and "NAME.logits" (1917, 24), float16; metadata: origin and classes."""

PHOTOGRAPHS = {
    "chelsea": ("Chelsea the cat", "Stefan van der Walt, CC0", "scikit-image"),
    "coffee": ("a cup of coffee", "Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0", "scikit-image"),
    "astronaut": ("Eileen Collins", "NASA, public domain", "scikit-image"),
    "portrait": ("Grace Hopper", "US Navy, public domain", "matplotlib"),
}
"""What each photograph shows, whose it is and under which terms, and the package that it comes with."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A sample photograph, and what the SSD of Open Images says of it (`ssdlib.zoo.openimages`).

    Attributes:
        name: in `PHOTOGRAPHS`.
        image: (3, H, W) uint8, RGB.
        credit: a line to stand where the picture stands: what it shows, whose it is, its terms, where it comes from.
        offsets: (1, 1917, 4) float32, of one image as a batch, as the network gives them.
        logits: (1, 1917, 24) float32; class 0 is background, and says nothing.
        classes: names of the labels 1 to 23.
        recipe: that of the priors.
        priors: (1917, 4) cxcywh, fractional.
        activation: what turns logits into scores: "sigmoid", one score for each class by itself.
    """

    name: str
    image: Tensor = field(repr=False)
    credit: str
    offsets: Tensor = field(repr=False)
    logits: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    recipe: PriorRecipe = field(default=SSD300_MOBILENET, repr=False)
    priors: Tensor = field(default_factory=lambda: make_priors(SSD300_MOBILENET), repr=False)
    activation: Activation = "sigmoid"

    def predict(self, **options: Any) -> Detection:
        """What `SSD.predict` gives for the image: the outputs are those recorded, and `detect` is run on them now.

        Args:
            options: those of `ssdlib.detection.detect` (min_score, max_overlap, top_k).

        Returns:
            A detection dict, with boxes in pixels of the image.
        """
        height, width = self.image.shape[1:]
        (found,) = detect(self.offsets, self.logits, self.priors, activation=self.activation, **options)
        return found | {"boxes": found["boxes"] * torch.tensor([width, height, width, height])}


def sample_photograph(name: str) -> Photograph:
    """A photograph with its recorded outputs; nothing is fetched.

    Args:
        name: in `PHOTOGRAPHS`: "chelsea", "coffee", "astronaut" or "portrait".

    Raises:
        ValueError: if there is none of that name.
        ImportError: if the package that the photograph comes with is not installed.
    """
    image = photograph_pixels(name)
    shows, author_and_terms, package = PHOTOGRAPHS[name]
    with safe_open(OUTPUTS, "pt") as outputs:
        offsets, logits = (outputs.get_tensor(f"{name}.{what}").float()[None] for what in ("offsets", "logits"))
        classes = tuple(json.loads(outputs.metadata()["classes"]))
    return Photograph(name, image, f"{shows}: {author_and_terms}; from {package}", offsets, logits, classes)


def photograph_pixels(name: str) -> Tensor:
    """The pixels of a photograph alone: (3, H, W) uint8, RGB. Arguments and errors are those of `sample_photograph`."""
    if name not in PHOTOGRAPHS:
        raise ValueError(f"there is no sample photograph {name!r}; there are {', '.join(PHOTOGRAPHS)}")
    package = PHOTOGRAPHS[name][2]
    try:
        door = importlib.import_module("skimage.data" if package == "scikit-image" else "matplotlib.cbook")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the photograph {name!r} comes with {package}, which cannot be imported ({error}): pip install {package}"
        ) from error
    if package == "scikit-image":
        return torch.tensor(getattr(door, name)()).permute(2, 0, 1)
    with Image.open(door.get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        pixels = torch.frombuffer(bytearray(file.convert("RGB").tobytes()), dtype=torch.uint8)
        return pixels.reshape(file.height, file.width, 3).permute(2, 0, 1)
