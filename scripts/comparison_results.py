"""What a comparison ran on, and how its results are written: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# 2: low and high where 1 had min and max, git_tree where it had git_dirty, seconds where it had hours.
# 3: speedups over the published NumPyro code and over its dense form, where 2 had one over the former.
SCHEMA_VERSION = 3
UNKNOWN = "unknown"
NOT_MEASURED = "not measured"
NOT_RUN = "not run"
PACKAGES = ("numpyro", "jax", "jaxlib", "optax", "numpy", "pandas", "pyarrow")
# JAX's way to a GPU, of which an installation has one at most.
GPU_PACKAGES = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin", "jax-rocm60-plugin")
CSV_COLUMNS = (
    "panel", "method", "backend", "device", "threads", "precision", "objective", "particles",
    "products", "rows", "iterations", "repeats", "seconds", "iterations_per_second",
    "iterations_per_second_low", "iterations_per_second_high", "read_seconds", "compile_seconds", "setup_seconds",
    "estimated_seconds_1m", "speedup_over_published", "speedup_over_published_low", "speedup_over_published_high",
    "speedup_over_dense", "speedup_over_dense_low", "speedup_over_dense_high", "status", "reason",
)  # fmt: skip


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


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    return field_of("/proc/cpuinfo", "model name")


def git_tree(root: Path, commit: str, infermark_version: str) -> str:
    """Whether tracked files outside results/ differ from the commit: `clean`, `dirty`, or `unknown`.

    `unknown` also where the binary says that it was built from another commit.
    """
    if commit == UNKNOWN or (infermark_version != NOT_RUN and commit not in infermark_version):
        return UNKNOWN
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return "dirty" if done.stdout.strip() else "clean"


def gpu_names(root: Path) -> str:
    """NVIDIA's GPUs with their driver, or `unknown`."""
    return output_of(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], root)


def system_record(root: Path, infermark: Path | None, device: str) -> dict[str, Any]:
    """The machine, the software and the source tree; what cannot be read is `unknown`."""
    plugins = {name: package_version(name) for name in GPU_PACKAGES} if device != "cpu" else {}
    memory = field_of("/proc/meminfo", "MemTotal").removesuffix(" kB")
    commit = output_of(["git", "rev-parse", "HEAD"], root)
    infermark_version = output_of([str(infermark), "--version"], root) if infermark else NOT_RUN
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": int(memory) * 1024 if memory.isdigit() else UNKNOWN,
        "frequency_governor": governor.read_text().strip() if governor.exists() else UNKNOWN,
        "gpu": "not used" if device == "cpu" else gpu_names(root),
        "kernel": platform.platform(),
        "load_average_at_start": os.getloadavg(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES}
        | {name: found for name, found in plugins.items() if found != UNKNOWN},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "rustc": output_of(["rustc", "--version"], root),
        "infermark": infermark_version,
        "infermark_sha256": sha256_of(infermark) if infermark else NOT_RUN,
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


def rate_summary(iterations: int, seconds: list[float]) -> dict[str, Any]:
    """Median and range of the repeats, with the raw samples."""
    rates = [iterations / sample for sample in seconds]
    return {
        "iterations": iterations,
        "repeats": len(seconds),
        "seconds": statistics.median(seconds),
        "seconds_samples": seconds,
        "iterations_per_second": statistics.median(rates),
        "iterations_per_second_low": min(rates),
        "iterations_per_second_high": max(rates),
    }


# What is compared against, by the form of NumPyro's model.
PEERS = {"published": "the published NumPyro code", "dense": "the same model in dense NumPyro"}


def numpyro_backend(method: str, form: str) -> str:
    """The name of a side of NumPyro's."""
    return f"numpyro-{method}" if form == "published" else f"numpyro-{form}-{method}"


def speedup_summary(ours: dict[str, Any], theirs: dict[str, Any], form: str) -> dict[str, float]:
    """Median and range of the ratios of the pairs of repeats of the same turn, over that form of NumPyro's model."""
    our_seconds = [sample / ours["iterations"] for sample in ours["seconds_samples"]]
    their_seconds = [sample / theirs["iterations"] for sample in theirs["seconds_samples"]]
    ratios = [slow / fast for fast, slow in zip(our_seconds, their_seconds, strict=True)]
    return {
        f"speedup_over_{form}": statistics.median(ratios),
        f"speedup_over_{form}_low": min(ratios),
        f"speedup_over_{form}_high": max(ratios),
    }


def side_in_words(row: dict[str, Any]) -> str:
    """Everything that must be said of one side of a speedup."""
    return (
        f"{row['backend']} ({row['device']}, {row['threads']} threads, {row['precision']}, {row['objective']}, "
        f"{row['particles']} particles, {row['iterations']} iterations x {row['repeats']})"
    )


def speedup_of(row: dict[str, Any], form: str) -> list[float] | None:
    """Median, low and high of a row's speedup over a form of NumPyro's model, where it has one."""
    names = [f"speedup_over_{form}{part}" for part in ("", "_low", "_high")]
    return [row[name] for name in names] if names[0] in row else None


def speedup_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One sentence a speedup, naming both sides in full."""
    lines = []
    for ours in rows:
        for form, peer in PEERS.items():
            if (speedup := speedup_of(ours, form)) is None:
                continue
            case = (ours["panel"], numpyro_backend(ours["method"], form))
            theirs = next(row for row in rows if (row["panel"], row["backend"]) == case)
            times, low, high = speedup
            lines.append(
                f"{ours['panel']} {ours['method']}: {times:.2f} times the iterations per second of {peer} "
                f"({low:.2f} to {high:.2f}): {side_in_words(ours)} against {side_in_words(theirs)}."
            )
    return lines


def note_lines(panels: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """What the table cannot say: how well the two sides agree, and what a row's status means."""
    lines = []
    for panel in panels:
        checked = panel["parity"]
        if "gradient_relative_error" in checked:
            lines.append(
                f"{panel['label']}: relative difference of the log joint {checked['log_joint_relative_error']:.1e} "
                f"(tolerance {checked['log_joint_tolerance']:.0e}), of its gradient "
                f"{checked['gradient_relative_error']:.1e} (tolerance {checked['gradient_tolerance']:.0e}), "
                f"{checked['precisions']}."
            )
        dense = checked.get("dense", {})
        if "gradient_relative_error" in dense:
            lines.append(
                f"{panel['label']}: NumPyro's dense form against the published code at {dense['points']} points, both in f64: "
                f"relative difference of the log joint up to {dense['log_joint_relative_error']:.1e} (tolerance "
                f"{dense['log_joint_tolerance']:.0e}), of its gradient up to {dense['gradient_relative_error']:.1e} "
                f"(tolerance {dense['gradient_tolerance']:.0e})."
            )
    for row in rows:
        if "estimated_hours_3000_transitions" in row:
            adapting, drawing = row["leapfrog_steps"][: row["warmup"]], row["leapfrog_steps"][row["warmup"] :]
            lines.append(
                f"{row['panel']} {row['backend']}: {row['warmup']} warm-up transitions of "
                f"{statistics.fmean(adapting):.0f} leapfrog steps on average, then {row['draws']} draws of "
                f"{statistics.fmean(drawing):.0f}. 1,000 and 2,000 of them: "
                f"{row['estimated_hours_3000_transitions']:.2g} h, estimated; a longer warm-up adapts "
                "better and takes other numbers of steps."
            )
        if row["status"] != "ok":
            lines.append(f"{row['panel']} {row['method']}, {row['backend']}: {row['status']}, {row['reason']}.")
    return lines


def csv_text(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; what a row lacks reads `not measured`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval=NOT_MEASURED, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def figure(value: Any, digits: int = 3) -> str:
    """A number to a few significant digits; text as it is."""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def markdown_text(record: dict[str, Any]) -> str:
    """The table a person reads, with both sides of each speedup spelled out."""
    system, rows, device = record["system"], record["rows"], record["configuration"]["device"]
    shared = "cores" if device == "cpu" else "GPU"
    jax_devices = "" if device == "cpu" else f" on {', '.join(system['jax_devices']) or UNKNOWN}; {system['gpu']}"
    lines = [
        f"# Infermark and NumPyro on the same panel and {shared}",
        "",
        f"{system['cpu']}, {record['configuration']['threads']} of {system['cores']} cores; "
        f"NumPyro {system['packages']['numpyro']}, JAX {system['packages']['jax']}{jax_devices}; "
        f"Infermark {system['infermark'].removeprefix('infermark ')}; "
        f"commit {system['git_commit'][:12]} ({system['git_tree']}); "
        f"{system['started']}.",
        "",
        "Iterations are timed in steady state; reading, compiling and warming up are apart. The sides took turns,",
        "repeat by repeat. An iteration is one optimizer step for svi, one gradient for gradient and nuts. Hours for",
        "1M iterations are estimated from the iterations in the row. The published NumPyro code gathers each effect",
        "for every row; dense NumPyro is the same model on a products x weeks grid.",
        "",
        "| panel | rows | method | backend | precision | threads | iterations | it/s, median (range) "
        "| hours for 1M, estimated | times the published NumPyro code, median (range) "
        "| times dense NumPyro, median (range) | status |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "iterations_per_second" in row:
            rate = "{} ({} to {})".format(
                *(figure(row["iterations_per_second" + part]) for part in ("", "_low", "_high"))
            )
            iterations = f"{row['iterations']} x {row['repeats']}"
        else:
            rate, iterations = NOT_MEASURED, "0"
        speedups = []
        for form in PEERS:
            found = speedup_of(row, form)
            speedups.append("{} ({} to {})".format(*map(figure, found)) if found else "")
        hours = figure(row["estimated_seconds_1m"] / 3600.0) if "estimated_seconds_1m" in row else ""
        lines.append(
            f"| {row['panel']} | {figure(row['rows'])} | {row['method']} | {row['backend']} | {row['precision']} "
            f"| {row['threads']} | {iterations} | {rate} | {hours} | {' | '.join(speedups)} | {row['status']} |"
        )
    lines.append("")
    lines += [f"- {line}" for line in record["speedups"] + record["notes"]]
    return "\n".join(lines) + "\n"


def write_results(directory: Path, record: dict[str, Any], force: bool) -> None:
    """Writes a comparison with NumPyro: compare.json, compare.csv and compare.md."""
    texts = {
        "compare.json": json.dumps(record, indent=1) + "\n",
        "compare.csv": csv_text(record["rows"]),
        "compare.md": markdown_text(record),
    }
    write_folder(directory, texts, force)


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
