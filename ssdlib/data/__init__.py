"""Data sets: the VOC and the COCO layout, their check, downloads, and the synthetic scenes."""

from __future__ import annotations

from ssdlib.data.annotated import AnnotatedDataset, DataWarning
from ssdlib.data.annotations import Finding
from ssdlib.data.check import check_dataset, check_voc
from ssdlib.data.coco import CocoDataset
from ssdlib.data.convert import Conversion, convert_dataset
from ssdlib.data.download import download_voc
from ssdlib.data.formats.openimages import OpenImagesDataset
from ssdlib.data.images import load_image
from ssdlib.data.opening import JoinedDataset, open_dataset
from ssdlib.data.report import Report
from ssdlib.data.sample import sample_root
from ssdlib.data.shards import ShardDataset, write_shards
from ssdlib.data.sheet import Sheet, make_sheet
from ssdlib.data.split import Split, split_dataset
from ssdlib.data.synthetic import TOY_CLASSES, make_toy_voc
from ssdlib.data.voc import VOCDataset

__all__ = [
    "TOY_CLASSES",
    "AnnotatedDataset",
    "CocoDataset",
    "Conversion",
    "DataWarning",
    "Finding",
    "JoinedDataset",
    "OpenImagesDataset",
    "Report",
    "ShardDataset",
    "Sheet",
    "Split",
    "VOCDataset",
    "check_dataset",
    "check_voc",
    "convert_dataset",
    "download_voc",
    "load_image",
    "make_sheet",
    "make_toy_voc",
    "open_dataset",
    "sample_root",
    "split_dataset",
    "write_shards",
]
