"""The sides of scripts/compare_peers.py: how each program is run, and what it took."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers_agreement as agreement
from peers_agreement import Finding, Marginals
from peers_common import GRADIENT_TOLERANCE, LOG_JOINT_TOLERANCE, Row, RunFailed, flat, infermark_json, norm

SCRIPTS = Path(__file__).resolve().parent

PLAIN, CORRECTED = "infermark-laplace-plain", "infermark-laplace"
ELIMINATION, SIMPLE = "numpy-elimination", "numpy-elimination-simple"
COORDINATES = ("published", "orthogonal")


@dataclass(frozen=True)
class Fit:
    """What one run of a side took, and the elasticities that it found."""

    seconds: float  # from loaded data to the posterior
    setup_seconds: float | None  # before them, with the data in memory: layout, compilation
    process_seconds: float  # the whole process, with reading and writing
    cpu_seconds: float  # of the whole process, all threads
    peak_memory_bytes: int
    iterations: int | None
    posterior: Marginals


@dataclass
class Side:
    """One program with one method: how it runs, and what has come of it."""

    name: str
    method: str  # exact or svi
    described: Row
    run: Callable[[], Fit]
    repeats: int
    fits: list[Fit] = field(default_factory=list)
    failure: str | None = None


def run_process(command: list[str]) -> tuple[str, Row]:
    """Standard output of a program that succeeds, with its seconds, processor seconds and peak memory."""
    with tempfile.NamedTemporaryFile("r") as taken:
        measured = [sys.executable, "-I", "-S", str(SCRIPTS / "measured_process.py"), taken.name, *command]
        done = subprocess.run(measured, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            named = command[2:] if command[0] == "env" else command
            program = " ".join(Path(part).name for part in named[:2])
            raise RunFailed(f"{program} ended with status {done.returncode}: {said[-1].strip()}")
        seconds, cpu_seconds, peak = taken.read().split()
    told = {"process_seconds": float(seconds), "cpu_seconds": float(cpu_seconds), "peak_memory_bytes": int(peak)}
    return done.stdout, told


def infermark_fit(options: argparse.Namespace, panel: Path, method: list[str]) -> Fit:
    """`infermark fit` of the published model with these options."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "fit"
        command = [str(options.infermark), "fit", str(panel), "--model", "published", "--out", str(out)]
        _, taken = run_process([*command, "--threads", str(options.threads), *method])
        report = json.loads((out / "run.json").read_text())["report"]
        return Fit(
            seconds=report["run_seconds"],
            setup_seconds=report["setup_seconds"],
            iterations=report["detail"].get("iterations"),
            posterior=agreement.elasticities(out / "posterior.csv"),
            **taken,
        )


def elimination_fit(panel: Path, command: list[str]) -> Fit:
    """A NumPy script."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "posterior.csv"
        told, taken = run_process([*command, str(panel), "--out", str(out)])
        answer = json.loads(told)
        posterior = agreement.elasticities(out)
        return Fit(answer["seconds"][-1], answer["setup_seconds"], iterations=None, posterior=posterior, **taken)


def numpyro_fit(options: argparse.Namespace, panel: Path, coordinates: str) -> Fit:
    """NumPyro's AutoNormal, all iterations; compilation is told apart."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "posterior.csv"
        command = [sys.executable, str(SCRIPTS / "peers_numpyro.py"), "svi", str(panel), "--form", options.form]
        command += ["--coordinates", coordinates, "--objective", options.objective, "--precision", options.precision]
        command += ["--seed", str(options.seed), "--posterior", str(out), "--iterations", str(options.svi_iterations)]
        if coordinates == "orthogonal" and options.schedule == "decayed":
            command += ["--decay-over", str(options.svi_iterations)]
        told, taken = run_process(command)
        answer = json.loads(told)
        posterior = agreement.elasticities(out)
        return Fit(answer["seconds"], answer["compile_seconds"], iterations=options.svi_iterations, posterior=posterior, **taken)


def exact_sides(options: argparse.Namespace, panel: Path) -> list[Side]:
    """The exact Gaussian by two programs, plain and corrected, tuned and simple; the first is what the others are held against."""
    described = {"objective": "posterior mode", "coordinates": "published", "precision": "f64"}

    def laplace(*more: str) -> Callable[[], Fit]:
        return lambda: infermark_fit(options, panel, ["--method", "laplace", *more])

    def tuned() -> Fit:
        script = str(SCRIPTS / "numpy_elimination.py")
        return elimination_fit(panel, [sys.executable, script, "--threads", str(options.threads)])

    def simple() -> Fit:
        # All that it does on several threads is BLAS.
        threads = f"OPENBLAS_NUM_THREADS={options.threads}"
        return elimination_fit(panel, ["env", threads, sys.executable, str(SCRIPTS / "numpy_elimination_simple.py")])

    return [
        Side(PLAIN, "exact", described, laplace("--plain"), options.repeats),
        Side(ELIMINATION, "exact", described, tuned, options.repeats),
        Side(SIMPLE, "exact", described, simple, options.repeats),
        Side(CORRECTED, "exact", described | {"objective": "mode, skewness corrected"}, laplace(), options.repeats),
    ]


def svi_sides(options: argparse.Namespace, panel: Path) -> list[Side]:
    """NumPyro's AutoNormal and Infermark's svi, in both coordinates."""
    found = []
    for coordinates in COORDINATES:
        objective = "ELBO" if options.objective == "elbo" else "Renyi alpha 0"
        described = {"objective": objective, "coordinates": coordinates, "precision": options.precision}
        method = ["--method", "svi", "--coordinates", coordinates, "--iterations", str(options.svi_iterations)]
        method += ["--objective", options.objective, "--precision", options.precision, "--seed", str(options.seed)]

        def numpyro(coordinates: str = coordinates) -> Fit:
            return numpyro_fit(options, panel, coordinates)

        def infermark(method: list[str] = method) -> Fit:
            return infermark_fit(options, panel, method)

        found.append(Side(f"numpyro-{coordinates}", "svi", described, numpyro, options.svi_repeats))
        found.append(Side(f"infermark-svi-{coordinates}", "svi", described, infermark, options.svi_repeats))
    return found


def coordinates_agree(options: argparse.Namespace, panel: Path) -> Finding:
    """NumPyro in both coordinates and Infermark: log joint and gradient in double precision."""
    with tempfile.TemporaryDirectory() as directory:
        told, point = Path(directory) / "numpyro.json", Path(directory) / "point.json"
        worker = [sys.executable, str(SCRIPTS / "peers_numpyro.py"), "coordinates", str(panel), "--point", str(told)]
        found = json.loads(run_process(worker)[0])
        theirs = json.loads(told.read_text())
        point.write_text(json.dumps(theirs["point"]))
        ours = infermark_json(options.infermark, ["evaluate", str(panel), "--point", str(point)])
    difference = {
        site: [a - b for a, b in zip(flat(ours["grad"][site]), flat(gradient), strict=True)]
        for site, gradient in theirs["grad"].items()
    }
    ours_to_theirs = abs(ours["log_joint"] / theirs["log_joint"] - 1.0)
    return agreement.finding(
        ("infermark", "numpyro"),
        [
            ("log joint in orthogonal coordinates, relative", found["log_joint_relative_error"], LOG_JOINT_TOLERANCE),
            ("its gradient", found["gradient_relative_error"], GRADIENT_TOLERANCE),
            ("log joint of Infermark, relative", ours_to_theirs, LOG_JOINT_TOLERANCE),
            ("its gradient, natural", norm(difference) / norm(theirs["grad"]), GRADIENT_TOLERANCE),
        ],
    )
