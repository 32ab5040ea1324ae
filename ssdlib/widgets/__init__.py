"""Widgets: every idea of the detector to see and to step through, in a notebook and on a page without a kernel.

They need the extra `ssdlib[widgets]` (anywidget and ipywidgets).
"""

from __future__ import annotations

from ssdlib.widgets.anatomy_explorer import AnatomyExplorer
from ssdlib.widgets.base import BookWidget
from ssdlib.widgets.encoding_playground import EncodingPlayground
from ssdlib.widgets.flipbook import Flipbook
from ssdlib.widgets.grid_explorer import GridExplorer
from ssdlib.widgets.hard_negative_miner import HardNegativeMiner
from ssdlib.widgets.jaccard import JaccardPlayground
from ssdlib.widgets.matching_explorer import MatchingExplorer
from ssdlib.widgets.nms_stepper import NmsStepper
from ssdlib.widgets.pipeline_timeline import PipelineTimeline
from ssdlib.widgets.precision_recall_explorer import PrecisionRecallExplorer
from ssdlib.widgets.prior_explorer import PriorExplorer
from ssdlib.widgets.quiz import Quiz
from ssdlib.widgets.roi_explorer import RoiExplorer
from ssdlib.widgets.training_player import TrainingPlayer
from ssdlib.widgets.window_explorer import WindowExplorer

__all__ = [
    "AnatomyExplorer",
    "BookWidget",
    "EncodingPlayground",
    "Flipbook",
    "GridExplorer",
    "HardNegativeMiner",
    "JaccardPlayground",
    "MatchingExplorer",
    "NmsStepper",
    "PipelineTimeline",
    "PrecisionRecallExplorer",
    "PriorExplorer",
    "Quiz",
    "RoiExplorer",
    "TrainingPlayer",
    "WindowExplorer",
]
