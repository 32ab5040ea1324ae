"""Checkers for the exercises: each tries the reader's answer on cases and prints whether it is right.

A checker accepts every answer with the right results, however it is written. For a wrong one it prints the first case
that goes wrong, what was expected, what came, and a hint where the mistake is a known one. It returns nothing and never
raises.
"""

from __future__ import annotations

from ssdlib.exercises.boxes import check_iou_of_partners

__all__ = [
    "check_iou_of_partners",
]
