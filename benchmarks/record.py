"""What every measurement says beside its figures: commit, date, hardware, versions; and where records go."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torchvision

from ssdlib.data.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "ssdlib" / "engine" / "records"


def circumstances(device: str | torch.device = "cpu") -> dict[str, Any]:
    """When, on what, and with which code something is measured; "+changes" where the package is not as committed.

    Other records do not count: a benchmark that writes after each of its runs would say so of all but the first.
    """
    changed = "+changes" if _git("status", "--porcelain", "ssdlib", ":!ssdlib/engine/records") else ""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return {
        "date": date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + changed,
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


def write_record(record: dict[str, Any], name: str, folder: Path = RESULTS) -> Path:
    """Write a record to NAME.json, and say so."""
    target = folder / f"{name}.json"
    text = json.dumps(record, indent=1)
    # Lists of numbers on one line: a box is read at a glance, and a curve takes no thousand lines.
    text = re.sub(
        r"\[[\d\s.,eE+-]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
    write_text(target, text + "\n")
    print(f"recorded in {target}")
    return target


def _git(*arguments: str) -> str:
    """The answer of git; empty where the code is no checkout, or there is no git, as on a machine that got a copy."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
