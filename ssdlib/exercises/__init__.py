"""Checkers for the exercises: each tries the reader's answer on cases and prints whether it is right.

A checker accepts every answer with the right results, however it is written. For a wrong one it prints the first case
that goes wrong, what was expected, what came, and a hint where the mistake is a known one. It returns nothing and never
raises.
"""

from __future__ import annotations

from ssdlib.exercises.ablation import check_share_of_splits
from ssdlib.exercises.after_ssd import check_cheapest_way
from ssdlib.exercises.boxes import check_iou_of_partners
from ssdlib.exercises.coding import check_change_variances, check_decode_corners, check_encode_corners
from ssdlib.exercises.data import check_turn_boxes
from ssdlib.exercises.family import check_window_sums
from ssdlib.exercises.introduction import check_keep_surest
from ssdlib.exercises.latency import check_departures
from ssdlib.exercises.loss import check_localization_loss, check_mine_by_rank
from ssdlib.exercises.matching import check_match_table
from ssdlib.exercises.metrics import check_outcomes
from ssdlib.exercises.model import check_positions_in_use
from ssdlib.exercises.nms import check_soft_nms
from ssdlib.exercises.overfeat import check_half_the_stride
from ssdlib.exercises.own_data import check_yolo_to_pixels
from ssdlib.exercises.priors import check_bottle_recipe, check_index_of
from ssdlib.exercises.segmentation import check_mean_iou
from ssdlib.exercises.thresholds import check_best_threshold
from ssdlib.exercises.tracks import check_crossings
from ssdlib.exercises.training import check_batch_norm
from ssdlib.exercises.two_stages import check_interpolate
from ssdlib.exercises.yolo import check_read_cell

__all__ = [
    "check_batch_norm",
    "check_best_threshold",
    "check_bottle_recipe",
    "check_change_variances",
    "check_cheapest_way",
    "check_crossings",
    "check_decode_corners",
    "check_departures",
    "check_encode_corners",
    "check_half_the_stride",
    "check_index_of",
    "check_interpolate",
    "check_iou_of_partners",
    "check_keep_surest",
    "check_localization_loss",
    "check_match_table",
    "check_mean_iou",
    "check_mine_by_rank",
    "check_outcomes",
    "check_positions_in_use",
    "check_read_cell",
    "check_share_of_splits",
    "check_soft_nms",
    "check_turn_boxes",
    "check_window_sums",
    "check_yolo_to_pixels",
]
