"""Posteriors of several programs on one panel: how good each is, and whether those agree that must.

Standard library alone, so that its self-test runs anywhere:

    python3 scripts/compare_peers_self_test.py
"""

from __future__ import annotations

import csv
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

# Key to mean and sd.
Marginals = dict[str, tuple[float, float]]

# The NumPy elimination and `laplace --plain` find the same mode in double precision. What is left is what
# either leaves to gain at its last step: up to 1e-9 nats, 4.5e-5 standard deviations.
MODE_TOLERANCE = 1e-4
SD_TOLERANCE = 1e-4
# Corrected for skewness, means move and sds change, on products with few sales far more than in the median.
CORRECTED_MEDIAN_MEAN, CORRECTED_MEDIAN_SD = 0.1, 0.03
# Two runs of SVI from different noise. Measured on 300 published products, NumPyro after 30,000 iterations and Infermark
# after 24,000: means 0.018 sds apart in the median, sds 0.1%, coverages 0.3 points; 0.16 sds where the learning rate
# of one of them stays high to the end. Single products say less: 5% of their sds are more than 10% from the exact ones.
SVI_MEDIAN_SD, SVI_MEDIAN_MEAN = 0.03, 0.1
# Coverages of the same truth: sd ratios within the median's tolerance move them by 0.6 points, and a product
# whose interval ends at its truth by one product.
SVI_COVERAGE, PRODUCTS_OF_CHANCE = 0.015, 3
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Quality:
    """A posterior of the elasticities beside the exact Gaussian's, and beside the truth where it is known."""

    sd_ratio_median: float
    sd_ratio_q05: float
    sd_ratio_q95: float
    mean_distance_q95: float
    coverage_95: float | None


@dataclass(frozen=True)
class Finding:
    """One check of two sides: what was found, and the reason where they disagree."""

    sides: tuple[str, str]
    found: dict[str, float]
    reason: str | None

    @property
    def passed(self) -> bool:
        """Whether the sides agree."""
        return self.reason is None


def elasticities(path: Path) -> Marginals:
    """Mean and sd by product: of `product_a` in Infermark's columns, or of a file with product, mean and sd.

    Raises ValueError where a number is not finite, an sd is not above 0, or a product comes twice.
    """
    found: Marginals = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("site", "product_a") != "product_a":
                continue
            key = row["key"] if "key" in row else row["product"]
            mean, sd = float(row["mean"]), float(row["sd"])
            if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0.0):
                raise ValueError(f"{path.name}: {key} has mean {mean} and sd {sd}")
            if key in found:
                raise ValueError(f"{path.name}: {key} comes twice")
            found[key] = (mean, sd)
    if not found:
        raise ValueError(f"{path.name}: no elasticities")
    return found


def truths(path: Path) -> dict[str, float]:
    """True elasticities by product, of `infermark generate --truth`."""
    with path.open(newline="") as file:
        return {row["product"]: float(row["elasticity"]) for row in csv.DictReader(file)}


def quantile(values: list[float], part: float) -> float:
    """The value below which that part of them lies, the nearest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.floor(part * len(ordered)))]


def coverage(posterior: Marginals, truth: dict[str, float]) -> float:
    """The share of the products whose central 95% interval, of a normal, holds the truth."""
    return statistics.fmean(abs(truth[key] - mean) <= NORMAL_95 * sd for key, (mean, sd) in posterior.items())


def pairs(ours: Marginals, theirs: Marginals) -> list[tuple[float, float]]:
    """By product, the distance of the means in the second's sds, and the ratio of the sds less 1.

    Raises ValueError where the two are not of the same products, or a number is none.
    """
    if ours.keys() != theirs.keys():
        raise ValueError(f"the products differ: {len(ours)} and {len(theirs)}, {len(ours.keys() & theirs.keys())} in both")
    found = [
        (abs(mean - theirs[key][0]) / theirs[key][1], sd / theirs[key][1] - 1.0) for key, (mean, sd) in ours.items()
    ]
    # max and median would pass over a NaN.
    if not all(math.isfinite(value) for pair in found for value in pair):
        raise ValueError("a mean or sd is not finite")
    return found


def quality(posterior: Marginals, exact: Marginals, truth: dict[str, float] | None) -> Quality:
    """How a posterior stands beside the exact Gaussian's."""
    found = pairs(posterior, exact)
    ratios = [1.0 + ratio for _, ratio in found]
    return Quality(
        sd_ratio_median=statistics.median(ratios),
        sd_ratio_q05=quantile(ratios, 0.05),
        sd_ratio_q95=quantile(ratios, 0.95),
        mean_distance_q95=quantile([distance for distance, _ in found], 0.95),
        coverage_95=coverage(posterior, truth) if truth else None,
    )


def finding(sides: tuple[str, str], bounds: list[tuple[str, float, float]]) -> Finding:
    """A finding of (what, value, most); written so that a NaN disagrees."""
    beyond = [f"{what} {value:.2g} (at most {most:.2g})" for what, value, most in bounds if not value <= most]
    reason = f"{sides[0]} and {sides[1]} disagree: {', '.join(beyond)}" if beyond else None
    return Finding(sides, {what: value for what, value, _ in bounds}, reason)


def same_gaussian(sides: tuple[str, str], ours: Marginals, theirs: Marginals) -> Finding:
    """The same mode and the same sds, product by product."""
    found = pairs(ours, theirs)
    return finding(
        sides,
        [
            ("largest distance of modes in sds", max(distance for distance, _ in found), MODE_TOLERANCE),
            ("largest relative difference of sds", max(abs(ratio) for _, ratio in found), SD_TOLERANCE),
        ],
    )


def corrected_gaussian(sides: tuple[str, str], ours: Marginals, theirs: Marginals) -> Finding:
    """The skewness correction changes most products little."""
    return _medians(sides, ours, theirs, CORRECTED_MEDIAN_MEAN, CORRECTED_MEDIAN_SD)


def same_svi(sides: tuple[str, str], ours: Marginals, theirs: Marginals, truth: dict[str, float] | None) -> Finding:
    """Two runs of SVI in the same coordinates: the same sds in the median, and the same coverage."""
    told = _medians(sides, ours, theirs, SVI_MEDIAN_MEAN, SVI_MEDIAN_SD)
    if not truth:
        return told
    most = max(SVI_COVERAGE, PRODUCTS_OF_CHANCE / len(ours))
    difference = abs(coverage(ours, truth) - coverage(theirs, truth))
    covered = finding(sides, [("difference of 95% coverages", difference, most)])
    reasons = [reason for reason in (told.reason, covered.reason) if reason]
    return Finding(sides, told.found | covered.found, "; ".join(reasons) or None)


def _medians(sides: tuple[str, str], ours: Marginals, theirs: Marginals, mean: float, sd: float) -> Finding:
    found = pairs(ours, theirs)
    ratio = statistics.median(ratio for _, ratio in found)
    return finding(
        sides,
        [
            ("median distance of means in sds", statistics.median(distance for distance, _ in found), mean),
            ("relative difference of sds in the median", abs(ratio), sd),
        ],
    )
