"""PipelineTimeline: frames through reading, computing and drawing, with several in flight."""

from __future__ import annotations

from typing import Any

import traitlets
from matplotlib.figure import Figure

from ssdlib.deploy.pipeline import pipeline, steady
from ssdlib.plotting import PALETTE
from ssdlib.widgets.base import BookWidget, is_number

MOST_IN_FLIGHT, MOST_MILLISECONDS = 8, 60
STAGES = [
    {"name": "read", "milliseconds": 10},
    {"name": "compute", "milliseconds": 30},
    {"name": "draw", "milliseconds": 10},
]


class PipelineTimeline(BookWidget):
    """Frames through the stages of a program: a bar for each stage of each frame, frames a second, and latency.

    Attributes:
        stages: at most three, each {"name", "milliseconds"}; a stage handles one frame at a time.
        in_flight: most frames under way at a time.
        frames: how many are drawn.

    Example:
        >>> timeline = PipelineTimeline(in_flight=1)
        >>> timeline.rate, timeline.latency
        (20.0, 50.0)
        >>> timeline.in_flight = 2
        >>> round(timeline.rate, 1), timeline.latency
        (33.3, 60.0)
    """

    _module = "pipeline_timeline"

    title = traitlets.Unicode("Frames in flight: rate and latency").tag(sync=True)
    stages = traitlets.List(traitlets.Dict(), default_value=STAGES, minlen=1, maxlen=3).tag(sync=True)
    in_flight = traitlets.Int(1, min=1, max=MOST_IN_FLIGHT).tag(sync=True)
    frames = traitlets.Int(8, min=2, max=12).tag(sync=True)

    @traitlets.validate("stages")
    def _named_and_long_enough(self, proposal: Any) -> Any:
        for stage in proposal.value:
            time = stage.get("milliseconds")
            if set(stage) != {"name", "milliseconds"} or not is_number(time) or not 1 <= time <= MOST_MILLISECONDS:
                raise traitlets.TraitError(
                    f"stages must have a name and 1 to {MOST_MILLISECONDS} milliseconds; got {stage}"
                )
        return proposal.value

    @property
    def rate(self) -> float:
        """Frames a second, once it has run for a while."""
        return round(1000 * self._steady()["rate"], 6)

    @property
    def latency(self) -> float:
        """Milliseconds from when a frame is taken until it has passed the last stage."""
        return round(self._steady()["latency"], 6)

    def describe(self) -> str:
        """The stages and what comes out, in words."""
        stages = ", ".join(f"{stage['name']} {stage['milliseconds']:g} ms" for stage in self.stages)
        return (
            f"Bars over time, a row for each of {self.frames} frames, which pass these stages: {stages}. With "
            f"{self.in_flight} in flight {self.rate:.1f} frames come out in a second, and a frame takes "
            f"{self.latency:.0f} ms."
        )

    def picture(self) -> Figure:
        """The bars of the first frames."""
        _, spans = pipeline(self._durations(), self.in_flight, self.frames)
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        ax = figure.add_subplot()
        for number, stage in enumerate(self.stages):
            start, end = spans[:, number, 0], spans[:, number, 1]
            ax.barh(range(self.frames), end - start, left=start, color=PALETTE[number], label=stage["name"])
        ax.set_yticks(range(self.frames), [str(frame + 1) for frame in range(self.frames)])
        ax.invert_yaxis()
        ax.set(xlabel="milliseconds", ylabel="frame")
        ax.set_title(f"{self.in_flight} in flight: {self.rate:.1f} frames/s, {self.latency:.0f} ms each", fontsize=10)
        ax.legend(ncols=len(self.stages), fontsize=8)
        return figure

    def _durations(self) -> list[float]:
        return [float(stage["milliseconds"]) for stage in self.stages]

    def _steady(self) -> dict[str, Any]:
        return steady(self._durations(), self.in_flight)
