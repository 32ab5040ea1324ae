"""The Sphinx extension of the tray of toys: a script, a style sheet and what they need, for the page that holds it."""

from __future__ import annotations

from pathlib import Path

from ssdlib.widgets.base import read_static

FOLDER = Path(__file__).resolve().parents[1]
ARITHMETIC = (
    "playground/convolution",
    "photograph/resize",
    "photograph/predictions",
    "toys/network",
    "toys/board",
)


def read(name: str) -> str:
    """Text of a script of a page of the book."""
    return (FOLDER / f"{name}.mjs").read_text(encoding="utf-8")


def arithmetic() -> str:
    """All that the page computes: what Node can run, and tests compare with ssdlib."""
    return "\n".join([read_static("maths.mjs"), *map(read, ARITHMETIC)])
