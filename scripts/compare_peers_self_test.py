"""Checks compare_peers.py on fits made up for it: sides that disagree on purpose must have no speed.

    python3 scripts/compare_peers_self_test.py

Needs Python 3.11 and nothing else.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import compare_peers as peers
import peers_agreement as agreement
import peers_results
import peers_sides
from peers_common import RunFailed

PRODUCTS = 400
SVI_SIDES = {"numpyro-published", "infermark-svi-published", "numpyro-orthogonal", "infermark-svi-orthogonal"}
EXACT_SIDES = {peers_sides.PLAIN, peers_sides.ELIMINATION, peers_sides.CORRECTED}


def made_up() -> tuple[agreement.Marginals, dict[str, float]]:
    """An exact posterior, and a truth that its intervals cover as they should."""
    draw = random.Random(8)
    exact = {f"p{i}": (draw.gauss(-1.6, 0.6), math.exp(draw.uniform(-6.0, -1.0))) for i in range(PRODUCTS)}
    return exact, {key: draw.gauss(mean, sd) for key, (mean, sd) in exact.items()}


EXACT, TRUTH = made_up()


def moved(mean: float = 0.0, ratio: float = 1.0, only: str | None = None) -> agreement.Marginals:
    """The exact posterior with means moved by that many sds and sds multiplied; of one product, or of all."""
    return {
        key: (value + mean * sd, sd * ratio) if only in (None, key) else (value, sd) for key, (value, sd) in EXACT.items()
    }


def sides(**altered: Callable[[], agreement.Marginals]) -> list[peers_sides.Side]:
    """All sides, in agreement but for those altered (names with `_` for `-`)."""
    found = []
    for name in sorted(EXACT_SIDES | {peers_sides.SIMPLE} | SVI_SIDES):
        make = altered.get(name.replace("-", "_"), lambda: EXACT)
        method = "svi" if name in SVI_SIDES else "exact"
        described = {"coordinates": "orthogonal" if "orthogonal" in name else "published"}
        iterations = 100 if method == "svi" else None

        def run(make: Callable[[], agreement.Marginals] = make, iterations: int | None = iterations) -> peers_sides.Fit:
            return peers_sides.Fit(0.5, 0.1, 0.75, 1.0, 10**6, iterations, make())

        found.append(peers_sides.Side(name, method, described, run, 2))
    return found


def log_joints(error: float = 1e-14) -> agreement.Finding:
    """What `coordinates_agree` finds, with that error."""
    return agreement.finding(("infermark", "numpyro"), [("log joint, relative", error, 1e-10)])


def ending_badly() -> agreement.Marginals:
    """A program that fails."""
    raise RunFailed("it ended with status 1")


def without_one() -> agreement.Marginals:
    """The exact posterior without its last product."""
    return dict(list(EXACT.items())[:-1])


def narrower_where_true() -> agreement.Marginals:
    """Sds right in the median, but 8% of the products' intervals miss a truth that they held."""
    held = [key for key, (mean, sd) in EXACT.items() if abs(TRUTH[key] - mean) <= sd][: PRODUCTS * 8 // 100]
    return EXACT | {key: (EXACT[key][0], 0.01 * abs(TRUTH[key] - EXACT[key][0])) for key in held}


def refused(made: list[peers_sides.Side], joints: float = 1e-14) -> set[str]:
    """The sides that a comparison leaves without speed; none of them may show a figure of it anywhere."""
    rows, findings = peers.compare(made, "made up", TRUTH, lambda: log_joints(joints), 2, 0.0)
    failed = {row["side"] for row in rows if row["status"] == "failed"}
    for row in rows:
        speeds = {"seconds", "process_seconds", "cpu_seconds", "iterations_per_second", "ratio", "seconds_samples"} & row.keys()
        assert bool(speeds) == (row["status"] != "failed"), (row["side"], speeds)
        assert (row["reason"] == "none") == (row["status"] == "ok"), row["side"]
        cells = peers_results.speed_cells(row)
        assert row["status"] != "failed" or cells == ["not measured"] * 4 + [""] * 2, cells
        # A peer's ratio is never over a side that was refused.
        assert row.get("ratio_to") not in failed, row["side"]
        assert f"{row['side']}," in peers_results.csv_text([row])
    assert all(finding.passed for finding in findings) == (not failed), failed
    return failed


def check_refusals() -> None:
    """Every way of disagreeing that can be made up, one at a time."""
    svi_pair, simple = {"numpyro-orthogonal", "infermark-svi-orthogonal"}, peers_sides.SIMPLE
    nan = {"p7": (EXACT["p7"][0], math.nan)}
    cases: list[tuple[str, set[str], set[str]]] = [
        ("all agree", refused(sides()), set()),
        ("a mode moved", refused(sides(numpy_elimination=lambda: moved(mean=2e-4, only="p7"))), EXACT_SIDES),
        ("a mode moved within", refused(sides(numpy_elimination=lambda: moved(mean=5e-5, only="p7"))), set()),
        ("an sd changed", refused(sides(infermark_laplace_plain=lambda: moved(ratio=1.0002, only="p7"))), EXACT_SIDES | {simple}),
        ("the simple one's mode moved", refused(sides(numpy_elimination_simple=lambda: moved(mean=2e-4, only="p7"))), {simple}),
        ("the simple one fails", refused(sides(numpy_elimination_simple=ending_badly)), {simple}),
        ("an sd not a number", refused(sides(numpy_elimination=lambda: EXACT | nan)), EXACT_SIDES),
        ("a product missing", refused(sides(numpy_elimination=without_one)), EXACT_SIDES),
        ("the elimination fails", refused(sides(numpy_elimination=ending_badly)), EXACT_SIDES),
        ("correction far off", refused(sides(infermark_laplace=lambda: moved(mean=0.2))), {peers_sides.CORRECTED}),
        ("sds of svi", refused(sides(infermark_svi_orthogonal=lambda: moved(ratio=1.05))), svi_pair),
        ("sds of svi within", refused(sides(infermark_svi_orthogonal=lambda: moved(ratio=1.01))), set()),
        ("means of svi", refused(sides(numpyro_orthogonal=lambda: moved(mean=0.2))), svi_pair),
        ("coverage of svi", refused(sides(numpyro_orthogonal=narrower_where_true)), svi_pair),
        ("numpyro fails", refused(sides(numpyro_orthogonal=ending_badly)), svi_pair),
        ("published svi as narrow as it is", refused(sides(infermark_svi_published=lambda: moved(ratio=0.06))), set()),
        ("log joints", refused(sides(), joints=1e-6), SVI_SIDES),
        ("log joints not a number", refused(sides(), joints=math.nan), SVI_SIDES),
    ]
    for what, found, expected in cases:
        assert found == expected, (what, found ^ expected)


def check_noise() -> None:
    """Repeats far apart, or a busy machine, are told beside the figures."""
    for samples, busy, status in (([1.0, 1.1], 0.0, "ok"), ([1.0, 1.3], 0.0, "warn"), ([1.0], 0.5, "warn")):
        row = {"status": "ok", "reason": "none", "seconds_samples": samples}
        peers.mark_noise([row], busy)
        assert row["status"] == status and (row["reason"] == "none") == (status == "ok"), row


def check_quality() -> None:
    """Ratios, distances and coverage of posteriors whose values are known."""
    found = agreement.quality(moved(mean=0.5, ratio=0.25), EXACT, TRUTH)
    assert math.isclose(found.sd_ratio_median, 0.25) and math.isclose(found.sd_ratio_q95, 0.25)
    assert math.isclose(found.mean_distance_q95, 0.5)
    covered = [abs(TRUTH[key] - mean) <= agreement.NORMAL_95 * sd for key, (mean, sd) in EXACT.items()]
    assert agreement.quality(EXACT, EXACT, TRUTH).coverage_95 == sum(covered) / PRODUCTS
    assert 0.92 <= sum(covered) / PRODUCTS <= 0.98
    assert agreement.quality(EXACT, EXACT, None).coverage_95 is None


STUB = """#!{python}
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
if "--broken" in sys.argv:
    sys.exit("error: broken on purpose")
out.mkdir()
report = {{"run_seconds": 0.25, "setup_seconds": 0.125, "detail": {{"iterations": 10}}}}
(out / "run.json").write_text(json.dumps({{"report": report}}))
(out / "posterior.csv").write_text("site,key,mean,sd\\nglobal_a,,1,1\\nproduct_a,a,-1.5,{sd}\\nproduct_effect,a,2,1\\n")
"""


def check_programs() -> None:
    """What is read of a program that stands for Infermark, and what is said of one that fails or answers nonsense."""
    with tempfile.TemporaryDirectory() as directory:
        stub = Path(directory) / "infermark"

        def fit(*method: str, sd: str = "0.5") -> peers_sides.Fit:
            stub.write_text(STUB.format(python=sys.executable, sd=sd))
            stub.chmod(0o755)
            options = argparse.Namespace(infermark=stub, threads=1)
            return peers_sides.infermark_fit(options, Path("panel.parquet"), [*method])

        found = fit()
        assert (found.seconds, found.setup_seconds, found.iterations) == (0.25, 0.125, 10)
        assert found.posterior == {"a": (-1.5, 0.5)} and found.process_seconds > 0.0 and found.peak_memory_bytes > 0
        cases: list[tuple[str, Callable[[], peers_sides.Fit]]] = [
            ("broken on purpose", lambda: fit("--broken")),
            ("sd nan", lambda: fit(sd="nan")),
            ("sd 0.0", lambda: fit(sd="0")),
            ("comes twice", lambda: fit(sd="1\\nproduct_a,a,-1,1")),
        ]
        for said, wrong in cases:
            side = peers_sides.Side(peers_sides.PLAIN, "exact", {}, wrong, 1)
            peers.run_side(side)
            assert side.failure and said in side.failure and not side.fits, side


def main() -> int:
    """Runs the checks."""
    check_noise()
    check_quality()
    check_programs()
    check_refusals()
    print("compare_peers: agreement is required, and what disagrees has no speed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
