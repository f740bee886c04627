"""Runs strong peers and Infermark on the same panel and the same cores, taking turns.

    "$(scripts/python_env.sh)" scripts/compare_peers.py --panel FILE --truth FILE --out DIR

The exact Gaussian: the NumPy elimination (scripts/numpy_elimination.py), and `infermark fit
--method laplace`, plain and corrected for skewness. Stochastic variational inference:
NumPyro's AutoNormal and `infermark fit --method svi`, each in the published coordinates
and in the orthogonal ones (scripts/orthogonal_model.py); on panels of at most
--svi-products products, since NumPyro takes hours beyond.

Agreement comes first: in double precision NumPyro's log joint in orthogonal coordinates is
held against its published code and that against Infermark; then modes and sds of the exact
methods, product by product, and sds, means and coverage of the two SVI in orthogonal
coordinates. Sides that disagree, or could not be held against another, have no speed.

Exit status: 0 done, 1 two sides disagree or a run failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comparison_results as results
import peers_agreement as agreement
import peers_results
from compare_numpyro import GRADIENT_TOLERANCE, LOG_JOINT_TOLERANCE, RunFailed, flat, infermark_json, norm, told_as_failure
from peers_agreement import Finding, Marginals

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
Row = dict[str, Any]

PLAIN, CORRECTED, ELIMINATION = "infermark-laplace-plain", "infermark-laplace", "numpy-elimination"
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


def run_process(command: list[str], given: str = "") -> tuple[str, Row]:
    """Standard output of a program that succeeds, with its seconds, processor seconds and peak memory."""
    with tempfile.NamedTemporaryFile("r") as taken:
        measured = [sys.executable, "-I", "-S", str(SCRIPTS / "measured_process.py"), taken.name, *command]
        done = subprocess.run(measured, input=given, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            program = " ".join(Path(part).name for part in command[:2])
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


def elimination_fit(options: argparse.Namespace, panel: Path) -> Fit:
    """The NumPy script."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "posterior.csv"
        command = [sys.executable, str(SCRIPTS / "numpy_elimination.py"), str(panel), "--out", str(out)]
        told, taken = run_process([*command, "--threads", str(options.threads)])
        answer = json.loads(told)
        posterior = agreement.elasticities(out)
        return Fit(answer["seconds"][-1], answer["setup_seconds"], iterations=None, posterior=posterior, **taken)


def numpyro_fit(options: argparse.Namespace, panel: Path, coordinates: str) -> Fit:
    """NumPyro's AutoNormal, all iterations; compilation is told apart."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "posterior.csv"
        command = [sys.executable, str(SCRIPTS / "numpyro_worker.py"), "svi", str(panel), "--form", options.form]
        command += ["--coordinates", coordinates, "--objective", options.objective, "--precision", options.precision]
        command += ["--seed", str(options.seed), "--posterior", str(out)]
        if coordinates == "orthogonal" and options.schedule == "decayed":
            command += ["--decay-over", str(options.svi_iterations)]
        told, taken = run_process(command, json.dumps({"iterations": options.svi_iterations}) + "\n")
        setup, answer = (json.loads(line) for line in told.splitlines())
        posterior = agreement.elasticities(out)
        return Fit(answer["seconds"], setup["compile_seconds"], iterations=options.svi_iterations, posterior=posterior, **taken)


def exact_sides(options: argparse.Namespace, panel: Path) -> list[Side]:
    """The exact Gaussian by three programs; the first is what the others are held against."""
    described = {"objective": "posterior mode", "coordinates": "published", "precision": "f64"}

    def laplace(*more: str) -> Callable[[], Fit]:
        return lambda: infermark_fit(options, panel, ["--method", "laplace", *more])

    return [
        Side(PLAIN, "exact", described, laplace("--plain"), options.repeats),
        Side(ELIMINATION, "exact", described, lambda: elimination_fit(options, panel), options.repeats),
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
        worker = [sys.executable, str(SCRIPTS / "numpyro_worker.py"), "coordinates", str(panel), "--point", str(told)]
        setup = json.loads(run_process(worker)[0].splitlines()[0])
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
            ("log joint in orthogonal coordinates, relative", setup["log_joint_relative_error"], LOG_JOINT_TOLERANCE),
            ("its gradient", setup["gradient_relative_error"], GRADIENT_TOLERANCE),
            ("log joint of Infermark, relative", ours_to_theirs, LOG_JOINT_TOLERANCE),
            ("its gradient, natural", norm(difference) / norm(theirs["grad"]), GRADIENT_TOLERANCE),
        ],
    )


def run_side(side: Side) -> None:
    """One turn of a side that has not failed; a failure is kept with it."""
    if side.failure:
        return
    try:
        with told_as_failure(side.name):
            side.fits.append(side.run())
    except RunFailed as failure:
        side.failure = str(failure)


def check(sides: list[Side], truth: dict[str, float] | None, log_joints: Callable[[], Finding]) -> list[Finding]:
    """Holds the first fits against each other; a side that disagrees, or has no other to agree with, fails."""
    first = {side.name: side.fits[0].posterior for side in sides if not side.failure}
    by_name = {side.name: side for side in sides}
    findings = []

    def held(names: tuple[str, str], compare: Callable[..., Finding], refused: tuple[str, ...], *more: Any) -> None:
        present = [name for name in names if name in by_name]
        if not present:
            return
        if missing := [name for name in names if name not in first]:
            found = Finding(names, {}, f"{' and '.join(missing)} ended without a posterior to compare with")
        else:
            try:
                found = compare(names, *(first[name] for name in names), *more)
            except ValueError as error:
                found = Finding(names, {}, f"{names[0]} and {names[1]}: {error}")
        findings.append(found)
        for name in refused:
            if found.reason and name in by_name:
                by_name[name].failure = by_name[name].failure or found.reason

    held((ELIMINATION, PLAIN), agreement.same_gaussian, (ELIMINATION, PLAIN))
    # Nothing but the plain Gaussian speaks for the corrected one.
    held((CORRECTED, PLAIN), agreement.corrected_gaussian, (CORRECTED,))
    if PLAIN in by_name and CORRECTED in by_name:
        by_name[CORRECTED].failure = by_name[CORRECTED].failure or by_name[PLAIN].failure
    if svi := [side for side in sides if side.method == "svi"]:
        try:
            with told_as_failure("log joints"):
                joints = log_joints()
        except RunFailed as failure:
            joints = Finding(("infermark", "numpyro"), {}, str(failure))
        findings.append(joints)
        for side in svi:
            side.failure = side.failure or joints.reason
        names = ("infermark-svi-orthogonal", "numpyro-orthogonal")
        held(names, agreement.same_svi, names, truth)
    return findings


def row_of(side: Side, label: str, exact: Marginals | None, truth: dict[str, float] | None, threads: int) -> Row:
    """What the table says of a side; without speed where it failed."""
    row: Row = {"panel": label, "side": side.name, "method": side.method, "threads": threads} | side.described
    row |= {"status": "failed" if side.failure else "ok", "reason": side.failure or "none"}
    if side.fits and exact:
        try:
            row |= vars(agreement.quality(side.fits[0].posterior, exact, truth))
        except (ValueError, KeyError) as error:
            row |= {"status": "failed", "reason": f"quality: {type(error).__name__}: {error}"}
    if side.fits:
        row["products"] = len(side.fits[0].posterior)
    if row["status"] == "failed":
        return row
    # Of several turns the first is the one that fills the file cache; a single one is all there is.
    timed = side.fits[1:] or side.fits
    seconds = [fit.seconds for fit in timed]
    row |= {"repeats": len(timed), "seconds": statistics.median(seconds), "seconds_samples": seconds}
    for name in ("setup_seconds", "process_seconds", "cpu_seconds", "peak_memory_bytes"):
        row[name] = statistics.median(getattr(fit, name) for fit in timed)
    if timed[0].iterations:
        row["iterations"] = timed[0].iterations
        row["iterations_per_second"] = statistics.median(fit.iterations / fit.seconds for fit in timed)
    return row


def add_ratios(rows: list[Row]) -> None:
    """Each peer's seconds over Infermark's of the same turns: exact methods to `laplace --plain`, SVI an iteration."""
    by_name = {row["side"]: row for row in rows if row["status"] == "ok"}
    for row in by_name.values():
        ours = by_name.get(f"infermark-svi-{row['coordinates']}" if row["method"] == "svi" else PLAIN)
        if not ours or ours is row:
            continue
        ratios = [
            (theirs / (row.get("iterations") or 1)) / (mine / (ours.get("iterations") or 1))
            for theirs, mine in zip(row["seconds_samples"], ours["seconds_samples"], strict=False)
        ]
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        row |= {"ratio_to": ours["side"], "process_ratio": row["process_seconds"] / ours["process_seconds"]}
        row["cpu_ratio"] = row["cpu_seconds"] / ours["cpu_seconds"]


def compare(
    sides: list[Side], label: str, truth: dict[str, float] | None, log_joints: Callable[[], Finding], threads: int
) -> tuple[list[Row], list[Finding]]:
    """Every side once, the checks, then the other turns of those that agree; rows and findings."""
    for side in sides:
        run_side(side)
        print(f"{label}: {side.name}: {'failed' if side.failure else 'ran'}", file=sys.stderr)
    findings = check(sides, truth, log_joints)
    for turn in range(max(side.repeats for side in sides)):
        for side in sides:
            # A side with one repeat has had it.
            if turn < side.repeats and side.repeats > 1:
                run_side(side)
    # What was refused is no measure of the others either.
    exact = next((side.fits[0].posterior for side in sides if side.name == PLAIN and not side.failure), None)
    rows = [row_of(side, label, exact, truth, threads) for side in sides]
    add_ratios(rows)
    return rows, findings


def products_of(panel: Path) -> int:
    """The number of products in the file."""
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.csv.read_csv(panel) if panel.suffix == ".csv" else pyarrow.parquet.read_table(panel, columns=["product"])
    return len(table["product"].unique())


def parse_arguments() -> argparse.Namespace:
    """Reads and checks the command line; wrong use ends with status 2."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, action="append", required=True, help="Parquet or CSV; may be repeated")
    parser.add_argument("--truth", type=Path, action="append", default=[], help="true elasticities, one file a panel")
    parser.add_argument("--label", action="append", default=[], help="the panel's label in the table, one a panel")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of the exact methods (5)")
    parser.add_argument("--threads", type=int, default=len(cores), help="cores all sides are held to (all)")
    parser.add_argument("--svi-products", type=int, default=1000, help="the largest panel on which SVI is run (1000; 0: none)")
    parser.add_argument("--svi-iterations", type=int, default=30000, help="of SVI (30000)")
    parser.add_argument("--svi-repeats", type=int, default=1, help="turns of SVI; of several the first is not timed (1)")
    parser.add_argument(
        "--schedule",
        choices=["decayed", "published"],
        default="decayed",
        help="NumPyro's learning rate in orthogonal coordinates: from 0.01 to 1e-5 over its iterations (decayed), or as published",
    )
    parser.add_argument("--objective", choices=["renyi", "elbo"], default="renyi", help="of SVI (renyi, alpha 0)")
    parser.add_argument("--precision", choices=["f32", "f64"], default="f32", help="of SVI (f32)")
    parser.add_argument("--form", choices=["dense", "published"], default="dense", help="NumPyro's, rows gathered or a grid")
    parser.add_argument("--seed", type=int, default=0, help="seed of SVI (0)")
    parser.add_argument("--infermark", type=Path, default=ROOT / "target/release/infermark", help="the binary")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    options = parser.parse_args()
    for given, what in ((options.truth, "--truth"), (options.label, "--label")):
        if given and len(given) != len(options.panel):
            parser.error(f"give one {what} a --panel")
    for file in [*options.panel, *options.truth]:
        if not file.is_file():
            parser.error(f"no such file: {file}")
    if min(options.repeats, options.svi_iterations, options.svi_repeats) < 1 or not 1 <= options.threads <= len(cores):
        parser.error(f"--repeats and --svi-iterations start at 1; --threads is 1 to {len(cores)} here")
    if options.out.exists() and not options.force:
        parser.error(f"{options.out} exists; results are not overwritten (--force replaces it)")
    if not os.access(options.infermark, os.X_OK):
        parser.error(f"no binary at {options.infermark}: build it (cargo build --release), or name it with --infermark")
    options.infermark = options.infermark.resolve()
    os.sched_setaffinity(0, cores[: options.threads])  # all sides inherit it
    return options


def main() -> int:
    """Runs every panel, writes the folder, and prints the table."""
    options = parse_arguments()
    system = results.system_record(ROOT, options.infermark, "cpu")
    system["busy_fraction_before"] = results.busy_fraction()
    rows, panels = [], []
    for number, panel in enumerate(options.panel):
        label = options.label[number] if options.label else panel.stem
        truth = agreement.truths(options.truth[number]) if options.truth else None
        sides = exact_sides(options, panel)
        if products_of(panel) <= options.svi_products:
            sides += svi_sides(options, panel)
        found, findings = compare(sides, label, truth, lambda: coordinates_agree(options, panel), options.threads)  # noqa: B023
        rows += found
        checks = [{"sides": f.sides, "found": f.found, "passed": f.passed, "reason": f.reason or "none"} for f in findings]
        panels.append({"label": label, "file": panel.name, "sha256": results.sha256_of(panel), "checks": checks})
    failed = any(row["status"] == "failed" for row in rows)
    configuration = {n: v for n, v in vars(options).items() if n not in ("panel", "truth", "out", "force", "infermark")}
    record = {
        "schema_version": peers_results.SCHEMA_VERSION,
        "status": "failed" if failed else "ok",
        "system": system,
        "configuration": configuration,
        "panels": panels,
        "rows": rows,
    }
    texts = {
        "peers.json": json.dumps(record, indent=1) + "\n",
        "peers.csv": peers_results.csv_text(rows),
        "peers.md": peers_results.markdown_text(record),
    }
    results.write_folder(options.out, texts, options.force)
    print(texts["peers.md"])
    print(f"written to {options.out}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
