"""What every measurement says beside its figures: commit, date, hardware, versions; and where records go."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import date
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import torch
import torchvision

from ssdlib.data.files import write_text
from ssdlib.engine.config import config_from_dict, differences

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
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "gpu": gpu, **processor_features()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bfloat16", "amx_tile": "AMX"}
"""What decides about the speed of networks on a CPU: how Linux calls it, and how we do."""

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")
"""Environment variables that keep PyTorch and oneDNN from using all that a processor has."""


def processor_features() -> dict[str, Any]:
    """The instructions of the processor among `FEATURES`, and the limits that were set to using them."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    features = [name for word, name in FEATURES.items() if word in words]
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return {"features": features, **({"limited_by": " ".join(limits)} if limits else {})}


def processor_kind() -> str:
    """The widest vectors that PyTorch uses here: "avx512", "avx2", or what it calls them."""
    return torch.backends.cpu.get_cpu_capability().lower()


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


def begun(
    path: Path, settings: dict[str, Any], fixed: Iterable[str], configs: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """The record that a benchmark goes on with, which writes it after each of its runs; an empty one if there is none.

    Args:
        path: of the record.
        settings: what the record would say now.
        fixed: entries that must be as they were.
        configs: configurations that must be as they were, by what messages call them: the way to each in the record.

    Raises:
        ValueError: if the record is of other settings.
    """
    if not path.is_file():
        return {**settings, "runs": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in fixed:
        if record.get(name) != settings[name]:
            raise ValueError(f"{path} is of {name} {record.get(name)!r}, not {settings[name]!r}: give another --name")
    for title, way in configs.items():
        # Not the dicts: fields that came later have the values that the older runs had.
        now, then = (config_from_dict(reduce(getitem, way, where)) for where in (settings, record))
        changed = differences(now, then)
        if changed:
            raise ValueError(f"{path}, {title}, is of {', '.join(changed)}: give another --name")
    return record


def coco_entries(figures: Mapping[str, float], names: Iterable[str]) -> dict[str, float | None]:
    """Figures of COCO's for a record: null where no object has a size, as JSON has nothing for "not a number"."""
    return {name: None if math.isnan(figures[name]) else round(figures[name], 4) for name in names}


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
