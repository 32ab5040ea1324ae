"""`python -m ssdlib` is the command `ssd`; so torchrun can start it: `torchrun --nproc-per-node 8 -m ssdlib train`."""

from __future__ import annotations

from ssdlib.cli import app

app()
