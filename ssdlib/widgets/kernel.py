"""Widgets for which Python has to compute: a detector on the reader's own image, and a training run to watch.

On a page without a kernel they are a note that says so. They are made of ipywidgets, versions 7 (Colab) and 8.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image, ImageOps, UnidentifiedImageError

from ssdlib.engine import train
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.loading import DetectionDataset
from ssdlib.model import SSD
from ssdlib.plotting import draw_on_image

LARGEST_SIDE = 1200  # pixels of the picture that is sent to the browser


class NeedsKernel(ipywidgets.VBox):
    """A column of ipywidgets, with a note in its place on pages without a kernel.

    Attributes:
        note: what the reader could do here, as a text.
    """

    note = ""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        html = (
            '<div class="ssd-needs-kernel"><p><strong>Needs a kernel.</strong> '
            f"{escape(self.note)} Open this chapter in JupyterLab or Colab and run its cells.</p></div>"
        )
        return {**(data or {}), "text/plain": repr(self), "text/html": html}, metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class TryYourImage(NeedsKernel):
    """Upload a photograph, and see what a detector finds in it.

    Args:
        model: any SSD; it is put into evaluation mode.

    Example:
        >>> from ssdlib.zoo.checkpoint import demo_model
        >>> TryYourImage(demo_model())
        TryYourImage()
    """

    note = "Here you can upload an image of your own and see what the detector finds in it."

    def __init__(self, model: SSD) -> None:
        self.model = model
        self.upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="Choose an image")
        self.min_score = ipywidgets.FloatSlider(
            value=0.5, min=0.05, max=0.95, step=0.05, description="least score", continuous_update=False
        )
        self.found = ipywidgets.Label("no image yet")
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "display": "none"})
        self.image: Image.Image | None = None
        self.upload.observe(self._uploaded, names="value")
        self.min_score.observe(lambda change: self._detect(), names="value")
        super().__init__([self.upload, self.min_score, self.found, self.picture])

    def _uploaded(self, change: Any) -> None:
        files = list(change["new"].values() if isinstance(change["new"], Mapping) else change["new"])
        if not files:
            return
        try:
            with Image.open(io.BytesIO(bytes(files[0]["content"]))) as image:
                self.image = ImageOps.exif_transpose(image).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            self.image = None
            self.picture.layout.display = "none"
            self.found.value = f"this file cannot be read as an image: {error}"
            return
        self.image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        self._detect()

    def _detect(self) -> None:
        if self.image is None:
            return
        (found,) = self.model.predict([self.image], min_score=self.min_score.value)
        names = [self.model.classes[label - 1] for label in found["labels"].tolist()]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        self.found.value = f"found: {counts}" if counts else "found nothing; try a lower score"
        drawn = draw_on_image(self.image, found, self.model.classes, min_score=0)
        self.picture.value = _png(drawn)
        self.picture.layout.display = "block"


class WatchTraining(NeedsKernel):
    """Train a small SSD with settings of your choice, and watch its losses fall.

    Args:
        config: where the settings start from.
        dataset: the training images.

    Attributes:
        model: the trained model, once there is one.

    Example:
        >>> from ssdlib.data import VOCDataset, sample_root
        >>> from ssdlib.engine.presets import PRESETS
        >>> WatchTraining(PRESETS["tiny"], VOCDataset(sample_root(), "train"))
        WatchTraining()
    """

    note = "Here you can choose a learning rate and a number of steps, train, and watch the losses fall."

    def __init__(self, config: TrainConfig, dataset: DetectionDataset) -> None:
        self.config, self.dataset = config, dataset
        self.model: SSD | None = None
        self.lines: list[dict[str, float]] = []
        self.iterations = ipywidgets.IntSlider(value=120, min=20, max=600, step=20, description="steps")
        self.learning_rate = ipywidgets.FloatLogSlider(
            value=config.learning_rate, min=-5, max=-1, step=0.25, description="rate", readout_format=".1e"
        )
        self.button = ipywidgets.Button(description="Train", button_style="primary")
        self.state = ipywidgets.Label("not trained yet")
        self.curve = ipywidgets.Image(format="png", layout={"max_width": "100%", "display": "none"})
        self.button.on_click(lambda button: self.train())
        super().__init__([self.iterations, self.learning_rate, self.button, self.state, self.curve])

    def train(self) -> None:
        """Do what the button does; what stops the run, such as a loss that explodes, is told in `state`."""
        steps, rate = self.iterations.value, self.learning_rate.value
        config = replace(self.config, iterations=steps, learning_rate=rate)
        self.lines = []
        self.button.disabled = True
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.model = train(config, self.dataset, Path(folder), progress=False, after_epoch=self._after_epoch)
            self.state.value = f"done after {steps} steps"
        except (FloatingPointError, ValueError) as error:
            self.state.value = f"stopped: {error}"
        finally:
            self.button.disabled = False

    def _after_epoch(self, model: SSD, line: dict[str, float]) -> dict[str, float]:
        self.lines.append(dict(line))
        self.state.value = f"step {line['step']} of {self.iterations.value}"
        figure = Figure(figsize=(5.2, 2.6), layout="constrained")
        ax = figure.add_subplot()
        for name in ("localization", "confidence"):
            ax.plot([entry["step"] for entry in self.lines], [entry[name] for entry in self.lines], label=name)
        ax.set(xlabel="step", ylabel="loss", xlim=(0, self.iterations.value), ylim=(0, None))
        ax.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        self.curve.value = buffer.getvalue()
        self.curve.layout.display = "block"
        return {}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
