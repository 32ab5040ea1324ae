"""Checkers for the chapter on YOLO."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlib.exercises.checking import Answer, Case, Mistake, check

Numbers = Sequence[float]


def check_read_cell(answer: Answer) -> None:
    """Check `read_cell(numbers, row, column, cells)`: the corners (4,) of a box in fractions of the image.

    The numbers are x and y of the centre within its cell, and the square roots of width and height of the image.
    """
    check(answer, _cases(), _MISTAKES)


def _corners(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def _read(numbers: Numbers, row: int, column: int, cells: int) -> list[float]:
    x, y, root_w, root_h = numbers
    return _corners((column + x) / cells, (row + y) / cells, root_w**2, root_h**2)


def _cases() -> list[Case]:
    cases = [
        (
            "the middle of the middle cell, half as wide and high as the image",
            ([0.5, 0.5, 0.5**0.5, 0.5**0.5], 3, 3, 7),
        ),
        ("a cell whose row is not its column", ([0.25, 0.75, 0.3, 0.6], 1, 4, 7)),
        ("the first cell", ([0.0, 0.5, 0.2, 0.4], 0, 0, 13)),
        ("the last cell of a coarse grid", ([1.0, 0.1, 0.9, 0.1], 2, 2, 3)),
    ]
    return [Case(what, arguments, _read(*arguments)) for what, arguments in cases]


def _in_cells(numbers: Numbers, row: int, column: int, cells: int) -> list[float]:
    x, y, root_w, root_h = numbers
    return _corners((column + x) / cells, (row + y) / cells, root_w**2 / cells, root_h**2 / cells)


def _roots(numbers: Numbers, row: int, column: int, cells: int) -> list[float]:
    x, y, w, h = numbers
    return _corners((column + x) / cells, (row + y) / cells, w, h)


def _without_cell(numbers: Numbers, row: int, column: int, cells: int) -> list[float]:
    x, y, root_w, root_h = numbers
    return _corners(x, y, root_w**2, root_h**2)


def _centred(numbers: Numbers, row: int, column: int, cells: int) -> list[float]:
    x, y, root_w, root_h = numbers
    return [(column + x) / cells, (row + y) / cells, root_w**2, root_h**2]


_MISTAKES = [
    Mistake(
        "width and height are shares of the image, not of the cell: only the centre is counted in cells.", _in_cells
    ),
    Mistake("the row goes with y, and the column with x.", lambda n, row, column, cells: _read(n, column, row, cells)),
    Mistake("the network says square roots of width and height.", _roots),
    Mistake("x and y say where in its cell the centre lies. Which cell is it, and how wide?", _without_cell),
    Mistake("corners are wanted: the centre minus and plus half of width and height.", _centred),
]
