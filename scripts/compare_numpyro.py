"""Runs Infermark and NumPyro on the same panel and the same cores, or the same GPU.

    "$(scripts/python_env.sh)" scripts/compare_numpyro.py --panel FILE --products 10000 --out DIR

SVI in single precision as published, and one double-precision gradient of the
log joint, the larger part of what a leapfrog step of NUTS costs. NumPyro runs twice:
the published code, one gather per row, and the same model in dense form, on a
products x weeks grid. First Infermark and the published code evaluate the log joint
and its gradient at one point, and the dense form is held against the published code
at several; what disagrees is not timed. Then they take turns. Writes compare.json with
the raw samples, compare.csv and compare.md; prints the table.

With --device gpu (or cuda, vulkan, cuda:1 ..) Infermark's svi-gpu meets NumPyro's
SVI with JAX on that GPU. Their log joints are compared on it too, ours in
single precision; gradients are not timed, since NUTS runs on the processors.

Exit status: 0 done, 1 two sides disagree, a run failed or was interrupted, 2
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
# A GPU's log joint is in single precision. At this point few rows, with rates near the upper clip, make up most of it,
# and half a unit in the last place of an exponent up to 20 is already 1e-6 of the rate.
SINGLE_LOG_JOINT_TOLERANCE = 5e-6
SINGLE_GRADIENT_TOLERANCE = 1e-4
# Scatter-adds of single precision are compiled to retry loops on GPUs: https://github.com/jax-ml/jax/issues/38806
SLOW_SCATTER_FROM, SLOW_SCATTER_UNTIL = (0, 10, 2), (0, 11, 1)
# Where the iterations of a repeat are fitted to seconds: those of the first trial on each side, and the most.
NUMPYRO_TRIAL, INFERMARK_TRIAL, MOST_ITERATIONS = 3, 300, 1_000_000
# Repeats that differ by more than this factor, or more than this share of the
# processors in use before the first one, say that others were at work too: the
# rule of `infermark bench`.
NOISY_SPREAD = 1.2
BUSY_BEFORE = 0.1
# The published NUTS run: transitions that adapted, and those kept after them.
PUBLISHED_WARMUP, PUBLISHED_DRAWS = 1000, 2000

OBJECTIVES = {"svi": "Renyi alpha 0", "gradient": "log joint", "nuts": "log joint"}
# The forms of NumPyro's model, as scripts/published_model.py names them.
FORMS = ("published", "dense")


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

    device: str
    # Without them they are fitted to `seconds`.
    iterations: int | None
    infermark_iterations: int | None
    seconds: float
    repeats: int
    threads: int
    seed: int
    nuts_warmup: int
    nuts_draws: int
    infermark: Path | None

    @property
    def on_gpu(self) -> bool:
        """Whether the sides meet on a GPU."""
        return self.device != "cpu"

    @property
    def jax_device(self) -> str:
        """The device as scripts/numpyro_worker.py names it: JAX has one kind of GPU."""
        kind, colon, index = self.device.partition(":")
        return kind if kind == "cpu" else f"gpu{colon}{index}"


class NumpyroWorker:
    """A process of scripts/numpyro_worker.py, from its set-up to its end."""

    def __init__(
        self, configuration: Configuration, method: str, panel: Path, *options: str, form: str = "published"
    ) -> None:
        command = [sys.executable, str(ROOT / "scripts/numpyro_worker.py"), method, str(panel), *options]
        command += ["--device", configuration.jax_device, "--form", form]
        self.method, self.form = method, form
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.setup = self.answer()
        except BaseException:
            self.process.kill()
            raise

    def __enter__(self) -> NumpyroWorker:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is KeyboardInterrupt:
            self.process.kill()
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
            raise RunFailed(f"NumPyro's {self.method} ({self.form}) ended with status {self.process.wait()}; see its message above")
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


def infermark_time(configuration: Configuration, panel: Path, method: str, iterations: int) -> Row:
    """One repeat on Infermark's side, warm-up and set-up apart."""
    arguments = ["time", str(panel), "--method", method, "--json", "--repeats", "1", "--device", configuration.device]
    arguments += ["--iterations", str(iterations), "--threads", str(configuration.threads)]
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
    arguments = ["evaluate", str(panel), "--point", str(point_file), "--device", configuration.device]
    ours = infermark_json(configuration.infermark, arguments)
    log_joint_tolerance, gradient_tolerance = LOG_JOINT_TOLERANCE, GRADIENT_TOLERANCE
    if configuration.on_gpu:
        log_joint_tolerance, gradient_tolerance = SINGLE_LOG_JOINT_TOLERANCE, SINGLE_GRADIENT_TOLERANCE
    difference = {}
    for site, gradient in theirs["grad"].items():
        pairs = zip(flat(ours["grad"][site]), flat(gradient), strict=True)
        difference[site] = [a - b for a, b in pairs]
    log_joint_error = abs(ours["log_joint"] - theirs["log_joint"]) / abs(theirs["log_joint"])
    gradient_error = norm(difference) / norm(theirs["grad"])
    # Written so that a NaN on either side fails.
    passed = log_joint_error <= log_joint_tolerance and gradient_error <= gradient_tolerance
    return {
        "passed": passed,
        "log_joint_numpyro": theirs["log_joint"],
        "log_joint_infermark": ours["log_joint"],
        "log_joint_relative_error": log_joint_error,
        "log_joint_tolerance": log_joint_tolerance,
        "gradient_relative_error": gradient_error,
        "gradient_tolerance": gradient_tolerance,
        "precisions": "Infermark's in f32, NumPyro's in f64" if configuration.on_gpu else "in f64",
    }


def dense_agreement(configuration: Configuration, panel: Path) -> Row:
    """Compares NumPyro's dense form with the published code in f64, at several points."""
    with NumpyroWorker(configuration, "agreement", panel) as worker:
        found = {name: worker.setup[name] for name in ("log_joint_relative_error", "gradient_relative_error", "points")}
    # Written so that a NaN on either side fails.
    passed = (
        found["log_joint_relative_error"] <= LOG_JOINT_TOLERANCE
        and found["gradient_relative_error"] <= GRADIENT_TOLERANCE
    )
    tolerances = {"log_joint_tolerance": LOG_JOINT_TOLERANCE, "gradient_tolerance": GRADIENT_TOLERANCE}
    return {"passed": passed} | found | tolerances


def numpyro_row(configuration: Configuration, worker: NumpyroWorker, label: str) -> Row:
    """What describes a side of NumPyro's in a case."""
    told = ("precision", "particles", "products", "rows", "read_seconds", "compile_seconds")
    setup, method = worker.setup, worker.method
    return {
        "panel": label,
        "method": method,
        "backend": results.numpyro_backend(method, worker.form),
        "device": setup["device"] if configuration.on_gpu else results.cpu_model(),
        "threads": configuration.threads,
        "objective": OBJECTIVES[method],
        "status": "ok",
        "reason": "none",
    } | {name: setup[name] for name in told}


def fitted(seconds: float, first: int, trial: Callable[[int], float]) -> int:
    """How many iterations take about so many seconds; `trial` runs some and returns how long they took."""
    count = first
    for share in (0.1, 1.0):
        count = max(1, min(MOST_ITERATIONS, math.ceil(count * share * seconds / trial(count))))
    return count


def our_iterations(configuration: Configuration, method: str, panel: Path) -> int:
    """The iterations of a repeat on Infermark's side; 0 where it does not run."""
    if not configuration.infermark:
        return 0

    def trial(count: int) -> float:
        return infermark_time(configuration, panel, method, count)["seconds"][0]

    return configuration.infermark_iterations or fitted(configuration.seconds, INFERMARK_TRIAL, trial)


def their_iterations(configuration: Configuration, worker: NumpyroWorker) -> int:
    """The iterations of a repeat on a side of NumPyro's."""
    return configuration.iterations or fitted(
        configuration.seconds, NUMPYRO_TRIAL, lambda count: worker.run(count)["seconds"]
    )


def slow_scatter(version: str) -> bool:
    """Whether JAX of that version is known to be slow on GPUs at what this model's gradient does."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    return SLOW_SCATTER_FROM <= numbers < SLOW_SCATTER_UNTIL


def scatter_state(version: str) -> str:
    """What is known of that jaxlib's speed on GPUs at what this model's gradient does."""
    known = "slow on GPUs at scatter-adds (jax issue 38806: 0.10.2 to 0.11.0)"
    if slow_scatter(version):
        return f"jaxlib {version} is {known}, so NumPyro's rate is lower than with another version"
    return f"jaxlib {version} is none of the versions that are {known}"


def gpu_remarks(configuration: Configuration, rows: list[Row]) -> list[str]:
    """What a reader must know of a comparison on a GPU."""
    if not configuration.on_gpu:
        return []
    remarks = []
    version = results.package_version("jaxlib")
    if slow_scatter(version):
        remarks.append(f"jaxlib {version} is slow at scatter-adds (jax issue 38806)")
    names = {row["device"] for row in rows}
    if len(names) > 1:
        remarks.append(f"the sides name their devices differently: {', '.join(sorted(names))}")
    return remarks


def take_turns(
    configuration: Configuration, method: str, workers: list[NumpyroWorker], panel: Path, label: str
) -> list[Row]:
    """Times all sides in turn and returns NumPyro's rows, then Infermark's."""
    busy = results.busy_fraction()
    for worker in workers:
        worker.run(2)  # warm-up: first touch of buffers, thread pool
    our_count = our_iterations(configuration, method, panel)
    their_counts = [their_iterations(configuration, worker) for worker in workers]
    ours: list[Row] = []
    theirs: list[list[Row]] = [[] for _ in workers]
    for repeat in range(configuration.repeats):
        if configuration.infermark:
            ours.append(infermark_time(configuration, panel, method, our_count))
        for worker, count, answers in zip(workers, their_counts, theirs, strict=True):
            answers.append(worker.run(count))
        print(f"{label} {method}: repeat {repeat + 1} of {configuration.repeats}", file=sys.stderr)
    rows = []
    for worker, count, answers in zip(workers, their_counts, theirs, strict=True):
        row = numpyro_row(configuration, worker, label)
        row |= results.rate_summary(count, [answer["seconds"] for answer in answers])
        row["peak_memory_bytes"] = answers[-1]["peak_memory_bytes"]
        rows.append(row)
    if ours:
        told = ours[0]
        row = {"panel": label, "method": method, "objective": OBJECTIVES[method], "status": "ok", "reason": "none"}
        row |= {name: told[name] for name in ("backend", "device", "threads", "precision", "products", "rows")}
        row |= {"particles": told.get("particles", 1), "warmup_iterations": told.get("warmup_iterations")}
        row |= {"setup_seconds": told["setup_seconds"]}
        row |= results.rate_summary(told["iterations"], [answer["seconds"][0] for answer in ours])
        same = ("rows", "products", "particles") if method == "svi" else ("rows", "products", "precision")
        differing = [name for name in same if any(row[name] != theirs[name] for theirs in rows)]
        if differing:
            raise RunFailed(f"the sides did not run the same thing: {', '.join(differing)} differ")
        rows.append(row)
    # Infermark over each side of NumPyro's, and NumPyro's dense form over the published code.
    for faster, row in enumerate(rows):
        for worker, slower in zip(workers[:faster], rows, strict=False):
            row |= results.speedup_summary(row, slower, worker.form)
    remarks = gpu_remarks(configuration, rows)
    for row in rows:
        if method == "svi":
            row["estimated_seconds_1m"] = 1e6 / row["iterations_per_second"]
        spread = row["iterations_per_second_high"] / row["iterations_per_second_low"]
        row["busy_fraction_before"] = busy
        noise = [f"repeats differ by a factor of {spread:.2f}"] if spread > NOISY_SPREAD else []
        if busy != results.UNKNOWN and busy > BUSY_BEFORE:
            noise.append(f"{busy:.0%} of the machine was in use beforehand")
        reasons = (["the machine was not quiet: " + ", ".join(noise)] if noise else []) + remarks
        if reasons:
            row |= {"status": "warn", "reason": "; ".join(reasons)}
    return rows


def nuts_row(configuration: Configuration, panel: Path, label: str) -> Row:
    """A short NumPyro NUTS run; an iteration is a leapfrog step, that is one gradient."""
    warmup, draws = configuration.nuts_warmup, configuration.nuts_draws
    options = ("--seed", str(configuration.seed), "--warmup", str(warmup))
    with NumpyroWorker(configuration, "nuts", panel, *options) as worker:
        row = numpyro_row(configuration, worker, label)
        answer = worker.run(warmup + draws)
    leapfrogs, seconds = answer["leapfrog_steps"], answer["seconds_per_transition"]
    row |= results.rate_summary(sum(leapfrogs), [answer["seconds"]])
    adapting, drawing = sum(seconds[:warmup]) / warmup, sum(seconds[warmup:]) / draws
    hours = (adapting * PUBLISHED_WARMUP + drawing * PUBLISHED_DRAWS) / 3600.0
    row |= {"warmup": warmup, "draws": draws, "estimated_hours_3000_transitions": hours}
    row |= {"leapfrog_steps": leapfrogs, "seconds_per_transition": seconds, "divergences": answer["divergences"]}
    return row | {"status": "warn", "reason": "too short for any posterior, so only its speed is measured"}


def failed_row(method: str, label: str, reason: str, backend: str = "all") -> Row:
    """A case that has no speed."""
    described = ("device", "threads", "precision", "particles", "products", "rows")
    row = dict.fromkeys(described, results.UNKNOWN)
    named = {"panel": label, "method": method, "backend": backend, "objective": OBJECTIVES[method]}
    return row | named | {"status": "failed", "reason": reason}


@contextmanager
def numpyro_sides(
    configuration: Configuration, method: str, panel: Path, forms: list[str], *options: str
) -> Iterator[list[NumpyroWorker]]:
    """NumPyro's sides, one a form of the model, each set up."""
    with ExitStack() as stack:
        yield [stack.enter_context(NumpyroWorker(configuration, method, panel, *options, form=form)) for form in forms]


def check_parity(configuration: Configuration, panel: Path, checked: Row) -> None:
    """Holds Infermark against the published code before anything is timed; nothing is compared where NumPyro runs alone."""
    with tempfile.TemporaryDirectory() as directory:
        point_file = Path(directory) / "numpyro.json"
        with NumpyroWorker(configuration, "gradient", panel, "--point", str(point_file)) as worker:
            checked["jax_devices"] = worker.setup["jax_devices"]
            if not configuration.infermark:
                return
            checked |= parity(configuration, panel, json.loads(point_file.read_text()), Path(directory))
    if not checked["passed"]:
        errors = f"{checked['log_joint_relative_error']:.1e}, {checked['gradient_relative_error']:.1e}"
        raise RunFailed(f"the log joints or gradients disagree: relative errors {errors}")


def check_dense(configuration: Configuration, panel: Path, checked: Row) -> str | None:
    """Holds NumPyro's dense form against the published code; returns why it is not to be timed."""
    try:
        with told_as_failure("dense form"):
            checked |= dense_agreement(configuration, panel)
    except RunFailed as failure:
        return str(failure)
    if checked["passed"]:
        return None
    errors = f"{checked['log_joint_relative_error']:.1e}, {checked['gradient_relative_error']:.1e}"
    return f"it disagrees with the published code: relative errors {errors}"


def compare_panel(configuration: Configuration, panel: Path, label: str, checked: Row, rows: list[Row]) -> None:
    """Every method on one panel, each kept in `checked` and `rows` once it is done; a failure becomes a row without speed."""
    # On a GPU gradients are not timed, since NUTS runs on the processors.
    methods = ["svi"] if configuration.on_gpu else ["gradient", "svi"]
    checked |= {"passed": False if configuration.infermark else "not run", "dense": {"passed": "not run"}}
    try:
        with told_as_failure("parity"):
            check_parity(configuration, panel, checked)
    except RunFailed as failure:
        rows += [failed_row(method, label, f"{failure}; nothing was timed") for method in methods]
        return
    forms = list(FORMS)
    if refused := check_dense(configuration, panel, checked["dense"]):
        forms.remove("dense")
        rows += [failed_row(method, label, refused, results.numpyro_backend(method, "dense")) for method in methods]
    for method in methods:
        seed = ["--seed", str(configuration.seed)]
        try:
            with told_as_failure(method), numpyro_sides(configuration, method, panel, forms, *seed) as workers:
                rows += take_turns(configuration, method, workers, panel, label)
        except RunFailed as failure:
            rows.append(failed_row(method, label, str(failure)))
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
    parser.add_argument("--device", default="cpu", help="cpu, gpu (the first card), or one of `infermark devices` (cpu)")
    parser.add_argument(
        "--iterations", type=int, help="NumPyro's, per repeat (50; on a GPU as many as --seconds take)"
    )
    parser.add_argument(
        "--infermark-iterations", type=int, help="Infermark's, per repeat (20 times NumPyro's; on a GPU likewise)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="a repeat's, on a GPU, where not given (2)")
    parser.add_argument("--repeats", type=int, default=5, help="turns each side takes (5)")
    parser.add_argument("--threads", type=int, default=len(cores), help="cores all sides are held to (all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of NumPyro's SVI and NUTS (0)")
    parser.add_argument("--nuts-draws", type=int, default=0, help="NumPyro NUTS draws to time (0: no NUTS)")
    parser.add_argument("--nuts-warmup", type=int, default=50, help="NUTS transitions that adapt before them (50)")
    parser.add_argument("--infermark", type=Path, default=ROOT / "target/release/infermark", help="the binary")
    parser.add_argument("--peer-only", action="store_true", help="run NumPyro alone")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args()
    if options.device == "cpu":
        options.iterations = 50 if options.iterations is None else options.iterations
        options.infermark_iterations = options.infermark_iterations or 20 * options.iterations
    given = [count for count in (options.iterations, options.infermark_iterations) if count is not None]
    if min(*given, options.repeats, options.nuts_warmup) < 1 or not 1 <= options.threads <= len(cores):
        parser.error(f"--iterations, --repeats and --nuts-warmup start at 1; --threads is 1 to {len(cores)} here")
    if not options.seconds > 0.0:
        parser.error("--seconds must be above 0")
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
    os.sched_setaffinity(0, cores[: options.threads])  # all sides inherit it
    return options


def main() -> int:
    """Runs every panel, writes the folder, and prints the table."""
    options = parse_arguments()
    configuration = Configuration(
        device=options.device,
        iterations=options.iterations,
        infermark_iterations=options.infermark_iterations,
        seconds=options.seconds,
        repeats=options.repeats,
        threads=options.threads,
        seed=options.seed,
        nuts_warmup=options.nuts_warmup,
        nuts_draws=options.nuts_draws,
        infermark=None if options.peer_only else options.infermark.resolve(),
    )
    system = results.system_record(ROOT, configuration.infermark, configuration.device)
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
    system["jax_devices"] = next((p["parity"]["jax_devices"] for p in panels if "jax_devices" in p["parity"]), [])
    status = next((s for s in ("failed", "warn") if any(row["status"] == s for row in rows)), "ok")
    notes = results.note_lines(panels, rows)
    if configuration.on_gpu:
        notes.append(scatter_state(system["packages"]["jaxlib"]) + ".")
    if interrupted:
        notes.append("interrupted: what follows was not measured")
    record = {
        "schema_version": results.SCHEMA_VERSION,
        "status": "warn" if interrupted and status == "ok" else status,
        "system": system,
        "configuration": vars(configuration) | {"infermark": None if options.peer_only else options.infermark.name},
        "panels": panels,
        "rows": rows,
        "speedups": results.speedup_lines(rows),
        "notes": notes,
    }
    results.write_results(options.out, record, options.force)
    print(results.markdown_text(record))
    print(f"written to {options.out}", file=sys.stderr)
    return 1 if interrupted or record["status"] == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
