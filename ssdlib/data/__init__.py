"""Data sets: the VOC and the COCO layout, their check, downloads, and the synthetic scenes."""

from __future__ import annotations

from .annotations import Finding
from .check import Report, check_dataset, check_voc
from .coco import CocoDataset
from .download import download_voc
from .images import load_image
from .opening import JoinedDataset, open_dataset
from .records import DataWarning, RecordDataset
from .sample import sample_root
from .toy import TOY_CLASSES, make_toy_voc
from .voc import VOCDataset

__all__ = [
    "TOY_CLASSES",
    "CocoDataset",
    "DataWarning",
    "Finding",
    "JoinedDataset",
    "RecordDataset",
    "Report",
    "VOCDataset",
    "check_dataset",
    "check_voc",
    "download_voc",
    "load_image",
    "make_toy_voc",
    "open_dataset",
    "sample_root",
]
