"""The command line: `ssd data | train | evaluate | analyse | detect | export | bench | track | models | priors`."""

from __future__ import annotations

import typer

from ssdlib.cli import analyse, bench, data, detect, evaluate, export, models, priors, track, train

app = typer.Typer(help="Single Shot MultiBox Detector: make data, train, evaluate, detect.", no_args_is_help=True)
app.add_typer(data.app, name="data")
app.add_typer(priors.app, name="priors")
for module in (train, evaluate, analyse, detect, export, bench, track, models):
    app.add_typer(module.app)
