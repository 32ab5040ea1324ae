"""Calls of our commands: in this process, as processes of their own, and as several that torchrun would start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from support.repository import ROOT
from typer.testing import CliRunner, Result

from ssdlib.cli import app


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


def refused(*args: object) -> str:
    """The message of a call that must end with status 2 and no stack trace."""
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.output


def run_tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Call tools/notebooks.py as a user does."""
    command = [sys.executable, str(ROOT / "tools" / "notebooks.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def torchrun(out: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run two processes on the loopback device and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error::UserWarning:ssdlib", *arguments]
    started = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(i), "LOCAL_RANK": str(i)},
            cwd=out,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        texts = [process.communicate(timeout=600) for process in started]  # minutes, on a busy machine
    finally:
        for process in started:
            with process:  # closes its pipes: else a later test would be blamed for them
                process.kill()
    return subprocess.CompletedProcess(
        command, max(abs(p.returncode) for p in started), "".join(t[0] for t in texts), "".join(t[1] for t in texts)
    )
