"""Runs Infermark and the published NumPyro model on the same panel and the same cores.

    "$(scripts/python_env.sh)" scripts/compare_numpyro.py --panel FILE --products 10000 --out DIR

SVI in single precision as published, and one double-precision gradient of the
log joint, the larger part of what a leapfrog step of NUTS costs. First both sides
evaluate the log joint and its gradient at one point; if they disagree nothing
is timed. Then they take turns: ours, theirs, ours, theirs. Writes compare.json
with the raw samples, compare.csv and compare.md; prints the table.

Exit status: 0 done, 1 the two sides disagree, a run failed or was interrupted, 2
usage.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comparison_results as results

ROOT = Path(__file__).resolve().parent.parent
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
# The published NUTS run: transitions that adapted, and those kept after them.
PUBLISHED_WARMUP, PUBLISHED_DRAWS = 1000, 2000

OBJECTIVES = {"svi": "Renyi alpha 0", "gradient": "log joint", "nuts": "log joint"}


class RunFailed(Exception):
    """A side could not be run; the message says which and why."""


@contextmanager
def told_as_failure(side: str) -> Iterator[None]:
    """Files, pipes and answers of a side that are not as they should be are that side's failure, not this program's."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(f"{side}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Configuration:
    """What is run, the same for every panel."""

    iterations: int
    infermark_iterations: int
    repeats: int
    threads: int
    seed: int
    nuts_warmup: int
    nuts_draws: int
    infermark: Path | None


class NumpyroWorker:
    """A process of scripts/numpyro_worker.py, from its set-up to its end."""

    def __init__(self, method: str, panel: Path, *options: str) -> None:
        command = [sys.executable, str(ROOT / "scripts/numpyro_worker.py"), method, str(panel), *options]
        self.method = method
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.setup = self.answer()
        except BaseException:
            self.process.kill()
            raise

    def __enter__(self) -> NumpyroWorker:
        return self

    def __exit__(self, *_: object) -> None:
        # What was not taken any more says nothing new: the worker's end was told.
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def answer(self) -> Row:
        """The next line the worker prints."""
        line = self.process.stdout.readline()
        if not line:
            raise RunFailed(f"NumPyro's {self.method} ended with status {self.process.wait()}; see its message above")
        return json.loads(line)

    def run(self, iterations: int) -> Row:
        """Runs that many iterations."""
        self.process.stdin.write(json.dumps({"iterations": iterations}) + "\n")
        self.process.stdin.flush()
        return self.answer()


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


def infermark_time(configuration: Configuration, panel: Path, method: str) -> Row:
    """One repeat on Infermark's side, warm-up and set-up apart."""
    arguments = ["time", str(panel), "--method", method, "--json", "--repeats", "1"]
    arguments += ["--iterations", str(configuration.infermark_iterations), "--threads", str(configuration.threads)]
    answer = infermark_json(configuration.infermark, arguments)
    needed = ("backend", "device", "threads", "precision", "rows", "products", "iterations", "setup_seconds", "seconds")
    missing = [name for name in needed if name not in answer]
    if missing or len(answer["seconds"]) != 1:
        raise RunFailed(f"infermark time left out {', '.join(missing) or 'its one repeat'}")
    return answer


def norm(sites: dict[str, Any]) -> float:
    """The Euclidean norm over all sites."""
    return math.sqrt(math.fsum(value * value for site in sites.values() for value in flat(site)))


def flat(values: Any) -> list[float]:
    """A number, or a list nested to any depth, as one list."""
    return [leaf for value in values for leaf in flat(value)] if isinstance(values, list) else [values]


def parity(configuration: Configuration, panel: Path, theirs: Row, directory: Path) -> Row:
    """Compares the log joint and its gradient at the point that NumPyro chose."""
    point_file = directory / "parameters.json"
    point_file.write_text(json.dumps(theirs["point"]))
    ours = infermark_json(configuration.infermark, ["evaluate", str(panel), "--point", str(point_file)])
    difference = {}
    for site, gradient in theirs["grad"].items():
        pairs = zip(flat(ours["grad"][site]), flat(gradient), strict=True)
        difference[site] = [a - b for a, b in pairs]
    log_joint_error = abs(ours["log_joint"] - theirs["log_joint"]) / abs(theirs["log_joint"])
    gradient_error = norm(difference) / norm(theirs["grad"])
    # Written so that a NaN on either side fails.
    passed = log_joint_error <= LOG_JOINT_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE
    return {
        "passed": passed,
        "log_joint_numpyro": theirs["log_joint"],
        "log_joint_infermark": ours["log_joint"],
        "log_joint_relative_error": log_joint_error,
        "log_joint_tolerance": LOG_JOINT_TOLERANCE,
        "gradient_relative_error": gradient_error,
        "gradient_tolerance": GRADIENT_TOLERANCE,
    }


def numpyro_row(setup: Row, method: str, label: str, threads: int) -> Row:
    """What describes NumPyro's side of a case."""
    told = ("precision", "particles", "products", "rows", "read_seconds", "compile_seconds")
    return {
        "panel": label,
        "method": method,
        "backend": f"numpyro-{method}",
        "device": results.cpu_model(),
        "threads": threads,
        "objective": OBJECTIVES[method],
        "status": "ok",
        "reason": "none",
    } | {name: setup[name] for name in told}


def take_turns(configuration: Configuration, worker: NumpyroWorker, panel: Path, label: str) -> list[Row]:
    """Times both sides in turn and returns NumPyro's row, then Infermark's."""
    method = worker.method
    busy = results.busy_fraction()
    worker.run(2)  # warm-up: first touch of buffers, thread pool
    ours, theirs = [], []
    for repeat in range(configuration.repeats):
        if configuration.infermark:
            ours.append(infermark_time(configuration, panel, method))
        theirs.append(worker.run(configuration.iterations))
        print(f"{label} {method}: repeat {repeat + 1} of {configuration.repeats}", file=sys.stderr)
    their_row = numpyro_row(worker.setup, method, label, configuration.threads)
    their_row |= results.rate_summary(configuration.iterations, [answer["seconds"] for answer in theirs])
    their_row["peak_memory_bytes"] = theirs[-1]["peak_memory_bytes"]
    rows = [their_row]
    if ours:
        told = ours[0]
        row = {"panel": label, "method": method, "objective": OBJECTIVES[method], "status": "ok", "reason": "none"}
        row |= {name: told[name] for name in ("backend", "device", "threads", "precision", "products", "rows")}
        row |= {"particles": told.get("particles", 1), "warmup_iterations": told.get("warmup_iterations")}
        row |= {"setup_seconds": told["setup_seconds"]}
        row |= results.rate_summary(told["iterations"], [answer["seconds"][0] for answer in ours])
        row |= results.speedup_summary(row, their_row)
        same = ("rows", "products", "particles") if method == "svi" else ("rows", "products", "precision")
        differing = [name for name in same if row[name] != their_row[name]]
        if differing:
            raise RunFailed(f"the two sides did not run the same thing: {', '.join(differing)} differ")
        rows.append(row)
    for row in rows:
        if method == "svi":
            row["estimated_seconds_1m"] = 1e6 / row["iterations_per_second"]
        spread = row["iterations_per_second_high"] / row["iterations_per_second_low"]
        row["busy_fraction_before"] = busy
        noise = [f"repeats differ by a factor of {spread:.2f}"] if spread > NOISY_SPREAD else []
        if busy != results.UNKNOWN and busy > BUSY_BEFORE:
            noise.append(f"{busy:.0%} of the machine was in use beforehand")
        if noise:
            row |= {"status": "warn", "reason": "the machine was not quiet: " + ", ".join(noise)}
    return rows


def nuts_row(configuration: Configuration, panel: Path, label: str) -> Row:
    """A short NumPyro NUTS run; an iteration is a leapfrog step, that is one gradient."""
    warmup, draws = configuration.nuts_warmup, configuration.nuts_draws
    with NumpyroWorker("nuts", panel, "--seed", str(configuration.seed), "--warmup", str(warmup)) as worker:
        row = numpyro_row(worker.setup, "nuts", label, configuration.threads)
        answer = worker.run(warmup + draws)
    leapfrogs, seconds = answer["leapfrog_steps"], answer["seconds_per_transition"]
    row |= results.rate_summary(sum(leapfrogs), [answer["seconds"]])
    adapting, drawing = sum(seconds[:warmup]) / warmup, sum(seconds[warmup:]) / draws
    hours = (adapting * PUBLISHED_WARMUP + drawing * PUBLISHED_DRAWS) / 3600.0
    row |= {"warmup": warmup, "draws": draws, "estimated_hours_3000_transitions": hours}
    row |= {"leapfrog_steps": leapfrogs, "seconds_per_transition": seconds, "divergences": answer["divergences"]}
    return row | {"status": "warn", "reason": "too short for any posterior, so only its speed is measured"}


def failed_row(method: str, label: str, reason: str) -> Row:
    """A case that has no speed."""
    described = ("device", "threads", "precision", "particles", "products", "rows")
    row = dict.fromkeys(described, results.UNKNOWN)
    named = {"panel": label, "method": method, "backend": "both", "objective": OBJECTIVES[method]}
    return row | named | {"status": "failed", "reason": reason}


def compare_gradients(configuration: Configuration, panel: Path, label: str) -> tuple[Row, list[Row]]:
    """Parity, then the gradient's timing; nothing is compared where NumPyro runs alone."""
    checked: Row = {"passed": False if configuration.infermark else "not run"}
    try:
        with told_as_failure("gradient"), tempfile.TemporaryDirectory() as directory:
            point_file = Path(directory) / "numpyro.json"
            with NumpyroWorker("gradient", panel, "--point", str(point_file)) as worker:
                if configuration.infermark:
                    checked = parity(configuration, panel, json.loads(point_file.read_text()), Path(directory))
                    if not checked["passed"]:
                        errors = f"{checked['log_joint_relative_error']:.1e}, {checked['gradient_relative_error']:.1e}"
                        raise RunFailed(f"the log joints or gradients disagree: relative errors {errors}")
                return checked, take_turns(configuration, worker, panel, label)
    except RunFailed as failure:
        return checked, [failed_row("gradient", label, str(failure))]


def compare_svi(configuration: Configuration, panel: Path, label: str) -> list[Row]:
    """Times the published SVI on both sides."""
    try:
        with told_as_failure("svi"), NumpyroWorker("svi", panel, "--seed", str(configuration.seed)) as worker:
            return take_turns(configuration, worker, panel, label)
    except RunFailed as failure:
        return [failed_row("svi", label, str(failure))]


def compare_panel(configuration: Configuration, panel: Path, label: str, checked: Row, rows: list[Row]) -> None:
    """Every method on one panel, each kept in `checked` and `rows` once it is done; a failure becomes a row without speed."""
    parity_found, gradient_rows = compare_gradients(configuration, panel, label)
    checked |= parity_found
    rows += gradient_rows
    if checked["passed"] is False:
        reason = "the two sides were not shown to agree, so nothing was timed"
        rows.append(failed_row("svi", label, reason))
        return
    rows += compare_svi(configuration, panel, label)
    if configuration.nuts_draws:
        try:
            with told_as_failure("nuts"):
                rows.append(nuts_row(configuration, panel, label))
        except RunFailed as failure:
            rows.append(failed_row("nuts", label, str(failure)))


def parse_arguments() -> argparse.Namespace:
    """Reads and checks the command line; wrong use ends with status 2."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, action="append", required=True, help="Parquet or CSV; may be repeated")
    parser.add_argument("--products", action="append", default=[], help="the panel's label in the table, one a panel")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--iterations", type=int, default=50, help="NumPyro's, per repeat (50)")
    parser.add_argument("--infermark-iterations", type=int, help="Infermark's, per repeat (20 times NumPyro's)")
    parser.add_argument("--repeats", type=int, default=5, help="turns each side takes (5)")
    parser.add_argument("--threads", type=int, default=len(cores), help="cores both sides are held to (all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of NumPyro's SVI and NUTS (0)")
    parser.add_argument("--nuts-draws", type=int, default=0, help="NumPyro NUTS draws to time (0: no NUTS)")
    parser.add_argument("--nuts-warmup", type=int, default=50, help="NUTS transitions that adapt before them (50)")
    parser.add_argument("--infermark", type=Path, default=ROOT / "target/release/infermark", help="the binary")
    parser.add_argument("--peer-only", action="store_true", help="run NumPyro alone")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args()
    if min(options.iterations, options.repeats, options.nuts_warmup) < 1 or not 1 <= options.threads <= len(cores):
        parser.error(f"--iterations, --repeats and --nuts-warmup start at 1; --threads is 1 to {len(cores)} here")
    if options.products and len(options.products) != len(options.panel):
        parser.error("give one --products label a --panel")
    for panel in options.panel:
        if not panel.is_file():
            parser.error(f"no such panel: {panel}")
    if options.out.exists() and not options.force:
        parser.error(f"{options.out} exists; results are not overwritten (--force replaces it)")
    if not options.peer_only and not os.access(options.infermark, os.X_OK):
        parser.error(
            f"no binary at {options.infermark}: build it (cargo build --release), name it with --infermark, "
            "or run NumPyro alone with --peer-only"
        )
    os.sched_setaffinity(0, cores[: options.threads])  # both sides inherit it
    return options


def main() -> int:
    """Runs every panel, writes the folder, and prints the table."""
    options = parse_arguments()
    configuration = Configuration(
        iterations=options.iterations,
        infermark_iterations=options.infermark_iterations or 20 * options.iterations,
        repeats=options.repeats,
        threads=options.threads,
        seed=options.seed,
        nuts_warmup=options.nuts_warmup,
        nuts_draws=options.nuts_draws,
        infermark=None if options.peer_only else options.infermark.resolve(),
    )
    system = results.system_record(ROOT, configuration.infermark)
    labels = options.products or [panel.stem for panel in options.panel]
    panels, rows = [], []
    # A request to stop ends like Ctrl-C: what was measured by then is written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    interrupted = False
    try:
        for panel, label in zip(options.panel, labels, strict=True):
            checked: Row = {"passed": "not run"}
            panels.append({"label": label, "file": panel.name, "sha256": results.sha256_of(panel), "parity": checked})
            compare_panel(configuration, panel, label, checked, rows)
    except KeyboardInterrupt:
        interrupted = True
        if not rows:
            print("interrupted before anything was measured", file=sys.stderr)
            return 1
    status = next((s for s in ("failed", "warn") if any(row["status"] == s for row in rows)), "ok")
    record = {
        "schema_version": results.SCHEMA_VERSION,
        "status": "warn" if interrupted and status == "ok" else status,
        "system": system,
        "configuration": vars(configuration) | {"infermark": None if options.peer_only else options.infermark.name},
        "panels": panels,
        "rows": rows,
        "speedups": results.speedup_lines(rows),
        "notes": results.note_lines(panels, rows) + (["interrupted: what follows was not measured"] if interrupted else []),
    }
    results.write_results(options.out, record, options.force)
    print(results.markdown_text(record))
    print(f"written to {options.out}", file=sys.stderr)
    return 1 if interrupted or record["status"] == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
