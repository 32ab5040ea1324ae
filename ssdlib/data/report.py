"""The health report of a data set as numbers and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdlib.data.annotations import Finding, summarize
from ssdlib.data.names import counted, printable


@dataclass(frozen=True)
class ClassSummary:
    """Objects of one class, and their size: the square root of box area over image area."""

    name: str
    objects: int
    difficult: int
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class Report:
    """What :func:`ssdlib.data.check_dataset` found.

    Attributes:
        sets: number of images in each image set.
        images: number of different ids; in the COCO layout an id is the file of the image here.
        width_range, height_range: smallest and largest in pixels.
        classes: one summary for each class, sorted by name.
        empty: ids of images without objects.
        findings: objects that were repaired or refused.
        errors: files that are missing or unreadable, one message each.
        warnings: the same image in two sets, or twice in one; near-duplicates in two sets; sets with different
            categories; no object at all; objects that are smaller than a pixel where the image is resized for SSD300,
            and so are nothing to learn.
    """

    root: Path
    sets: dict[str, int]
    images: int
    width_range: tuple[int, int]
    height_range: tuple[int, int]
    classes: tuple[ClassSummary, ...]
    empty: tuple[str, ...]
    findings: tuple[Finding, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """False when an object was refused or a file is missing or unreadable."""
        return not self.errors and all(finding.action != "refused" for finding in self.findings)

    def text(self) -> str:
        """Return the report as plain text, one table for the sets and one for the classes."""
        sets = table(["image set", "images"], [[name, str(n)] for name, n in self.sets.items()])
        rows = [
            [c.name, str(c.objects), str(c.difficult), *(f"{x:.3f}" for x in (c.smallest, c.median, c.largest))]
            for c in self.classes
        ]
        classes = table(["class", "objects", "difficult", "smallest", "median", "largest"], rows)
        total = sum(c.objects for c in self.classes)
        size = f"{_span(self.width_range)} wide and {_span(self.height_range)} high"
        lines = [
            printable(self.root),
            *sets,
            "",
            f"{counted(self.images, 'image')}, {size}, in pixels",
            f"{counted(total, 'object')} of {counted(len(self.classes), 'class', 'classes')}; "
            f"{counted(len(self.empty), 'image')} without objects",
            *classes,
            "(sizes: square root of box area / image area)",
            "",
            f"objects and files set right or left out: {summarize(self.findings) or 'none'}",
            *(f"  {finding}" for finding in self.findings),
            *_list("missing or unreadable", self.errors),
            *_list("warnings", self.warnings),
            "",
            "ok" if self.ok else "not ok: something was refused, missing or unreadable",
        ]
        return "\n".join(lines)


def _span(bounds: tuple[int, int]) -> str:
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]} to {bounds[1]}"


def _list(title: str, messages: Sequence[str]) -> list[str]:
    return ["", f"{title}: {len(messages)}", *(f"  {printable(message)}" for message in messages)] if messages else []


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out text in columns: the first flush left, the others flush right."""
    header, rows = list(header), [[printable(cell[:60]) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    lines = []
    for row in (header, ["-" * w for w in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
