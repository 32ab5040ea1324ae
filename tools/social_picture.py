"""Draw book/_static/social.png, what a link to the book shows: its title beside detections of the book's detector."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from notebooks import compact_png

from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.files import replaced
from ssdlib.plotting import show_detections
from ssdlib.zoo.checkpoint import demo_model

ROOT = Path(__file__).resolve().parent.parent
SCENES = (19, 28)  # of the sample's test images


def draw() -> Figure:
    """1200 x 630 pixels, the format that most sites show whole."""
    model, dataset = demo_model(), VOCDataset(sample_root(), "test")
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="#10243a")
    figure.text(0.055, 0.70, "SSD from scratch", fontsize=46, weight="bold", color="white")
    figure.text(0.055, 0.56, "One object detector, built completely", fontsize=23, color="#cfe3f5")
    lines = "12 chapters to run and to play with\na tested PyTorch package\nfrom IoU to full GPU training"
    figure.text(0.055, 0.24, lines, fontsize=19, color="#9fc3e0", linespacing=1.7)
    for scene, place in zip(SCENES, ((0.60, 0.51, 0.36, 0.44), (0.60, 0.05, 0.36, 0.44)), strict=True):
        image = dataset[scene][0]
        (found,) = model.predict([image], min_score=0.5)
        show_detections(image, found, model.classes, ax=figure.add_axes(place))
    return figure


if __name__ == "__main__":
    with replaced(ROOT / "book" / "_static" / "social.png") as path:
        draw().savefig(path)
        path.write_bytes(compact_png(path.read_bytes()))
    print(ROOT / "book" / "_static" / "social.png")
