"""Runs strong peers and Infermark on the same panel and the same cores, taking turns.

    "$(scripts/python_env.sh)" scripts/compare_peers.py --panel FILE --truth FILE --out DIR

The exact Gaussian: the NumPy elimination, tuned (scripts/numpy_elimination.py) and as it is written first
(scripts/numpy_elimination_simple.py), and `infermark fit --method laplace`, plain and corrected for skewness. Stochastic variational inference:
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
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers_agreement as agreement
import peers_common as common
import peers_results
from peers_agreement import Finding, Marginals
from peers_common import BUSY_BEFORE, NOISY_SPREAD, RunFailed, told_as_failure
from peers_sides import CORRECTED, ELIMINATION, PLAIN, SIMPLE, Row, Side, coordinates_agree, exact_sides, svi_sides

ROOT = Path(__file__).resolve().parent.parent


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
    held((SIMPLE, PLAIN), agreement.same_gaussian, (SIMPLE,))
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


def mark_noise(rows: list[Row], busy: float | str) -> None:
    """Warns of rows that were measured while others were at work, by the rule of `infermark bench`."""
    for row in rows:
        if row["status"] != "ok":
            continue
        spread = max(row["seconds_samples"]) / min(row["seconds_samples"])
        noise = [f"repeats differ by a factor of {spread:.2f}"] if spread > NOISY_SPREAD else []
        if busy != common.UNKNOWN and busy > BUSY_BEFORE:
            noise.append(f"{busy:.0%} of the machine was in use beforehand")
        if noise:
            row |= {"status": "warn", "reason": "the machine was not quiet: " + ", ".join(noise)}


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
    sides: list[Side],
    label: str,
    truth: dict[str, float] | None,
    log_joints: Callable[[], Finding],
    threads: int,
    busy: float | str,
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
    mark_noise(rows, busy)
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
    system = common.system_record(ROOT, options.infermark)
    rows, panels = [], []
    for number, panel in enumerate(options.panel):
        label = options.label[number] if options.label else panel.stem
        truth = agreement.truths(options.truth[number]) if options.truth else None
        sides = exact_sides(options, panel)
        if products_of(panel) <= options.svi_products:
            sides += svi_sides(options, panel)
        busy = common.busy_fraction()
        joints = partial(coordinates_agree, options, panel)
        found, findings = compare(sides, label, truth, joints, options.threads, busy)
        rows += found
        checks = [{"sides": f.sides, "found": f.found, "passed": f.passed, "reason": f.reason or "none"} for f in findings]
        panels.append({"label": label, "file": panel.name, "sha256": common.sha256_of(panel), "checks": checks})
    status = next((s for s in ("failed", "warn") if any(row["status"] == s for row in rows)), "ok")
    configuration = {n: v for n, v in vars(options).items() if n not in ("panel", "truth", "out", "force", "infermark")}
    record = {
        "schema_version": peers_results.SCHEMA_VERSION,
        "status": status,
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
    common.write_folder(options.out, texts, options.force)
    print(texts["peers.md"])
    print(f"written to {options.out}", file=sys.stderr)
    return 1 if status == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
