"""Widgets: every idea of the detector to see and to step through, in a notebook and on a page without a kernel.

They need the extra `ssdlib[widgets]` (anywidget and ipywidgets).
"""

from __future__ import annotations

from ssdlib.widgets.base import BookWidget
from ssdlib.widgets.encoding_playground import EncodingPlayground
from ssdlib.widgets.jaccard import JaccardPlayground

__all__ = ["BookWidget", "EncodingPlayground", "JaccardPlayground"]
