"""What the modules of scripts/compare_peers.py share: running Infermark, the machine, noise, numbers and files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Double precision on both sides; they differ in the order of summation. At 16M
# rows that leaves about 1e-12 in the log joint; the gradient's norm is smaller
# than the terms it sums, hence a digit more room.
LOG_JOINT_TOLERANCE = 1e-10
GRADIENT_TOLERANCE = 1e-9
# Repeats that differ by more than this factor, or more than this share of the
# processors in use before the first one, say that others were at work too: the
# rule of `infermark bench`.
NOISY_SPREAD = 1.2
BUSY_BEFORE = 0.1
UNKNOWN = "unknown"
NOT_MEASURED = "not measured"
PACKAGES = ("numpyro", "jax", "jaxlib", "optax", "numpy", "pandas", "pyarrow")


class RunFailed(Exception):
    """A side could not be run; the message says which and why."""


@contextmanager
def told_as_failure(side: str) -> Iterator[None]:
    """Files, pipes and answers of a side that are not as they should be are that side's failure, not this program's."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(f"{side}: {type(error).__name__}: {error}") from error


def infermark_json(binary: Path, arguments: list[str]) -> Row:
    """The object that an infermark command prints on stdout."""
    done = subprocess.run([str(binary), *arguments], capture_output=True, text=True)
    called = f"infermark {arguments[0]}"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RunFailed(f"{called} ended with status {done.returncode}: {said[-1]}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise RunFailed(f"{called} printed no JSON object: {error}") from error


def norm(sites: dict[str, Any]) -> float:
    """The Euclidean norm over all sites."""
    return math.sqrt(math.fsum(value * value for site in sites.values() for value in flat(site)))


def flat(values: Any) -> list[float]:
    """A number, or a list nested to any depth, as one list."""
    return [leaf for value in values for leaf in flat(value)] if isinstance(values, list) else [values]


def output_of(command: list[str], directory: Path) -> str:
    """The command's standard output in one line, or `unknown` where it fails."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return done.stdout.strip() or UNKNOWN


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def field_of(path: str, name: str) -> str:
    """The first value of a `name : value` line in a file of /proc, or `unknown`."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return UNKNOWN
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name), UNKNOWN)


def package_version(name: str) -> str:
    """The installed version, or `unknown`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN


def git_tree(root: Path, commit: str, infermark_version: str) -> str:
    """Whether tracked files outside results/ differ from the commit: `clean`, `dirty`, or `unknown`.

    `unknown` also where the binary says that it was built from another commit.
    """
    if commit == UNKNOWN or (commit not in infermark_version):
        return UNKNOWN
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return "dirty" if done.stdout.strip() else "clean"


def system_record(root: Path, infermark: Path) -> Row:
    """The machine, the software and the source tree; what cannot be read is `unknown`."""
    memory = field_of("/proc/meminfo", "MemTotal").removesuffix(" kB")
    commit = output_of(["git", "rev-parse", "HEAD"], root)
    infermark_version = output_of([str(infermark), "--version"], root)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": field_of("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory) * 1024 if memory.isdigit() else UNKNOWN,
        "frequency_governor": governor.read_text().strip() if governor.exists() else UNKNOWN,
        "gpu": "not used",
        "kernel": platform.platform(),
        "load_average_at_start": os.getloadavg(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "rustc": output_of(["rustc", "--version"], root),
        "infermark": infermark_version,
        "infermark_sha256": sha256_of(infermark),
        "git_commit": commit,
        "git_tree": git_tree(root, commit, infermark_version),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def busy_fraction(seconds: float = 1.0) -> float | str:
    """The share of the machine's processor time in use over a moment in which this program rests."""

    def processor_time() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle and waiting for input

    try:
        total, idle = processor_time()
        time.sleep(seconds)
        later_total, later_idle = processor_time()
    except OSError:
        return UNKNOWN
    return 1.0 - (later_idle - idle) / (later_total - total)


def figure(value: Any, digits: int = 3) -> str:
    """A number to a few significant digits; text as it is."""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def write_folder(directory: Path, texts: dict[str, str], force: bool) -> None:
    """Writes the folder whole or not at all: under another name first, then renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    new = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    new.mkdir()
    for name, text in texts.items():
        (new / name).write_text(text)
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    if force and directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
