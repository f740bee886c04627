"""The tables of scripts/compare_peers.py: CSV and Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any

from peers_common import NOT_MEASURED, figure

SCHEMA_VERSION = 1
CSV_COLUMNS = (
    "panel", "side", "method", "products", "threads", "precision", "objective", "coordinates", "iterations", "repeats", "seconds",
    "setup_seconds", "process_seconds", "cpu_seconds", "peak_memory_bytes", "iterations_per_second", "sd_ratio_median",
    "sd_ratio_q05", "sd_ratio_q95", "mean_distance_q95", "coverage_95", "ratio", "ratio_low", "ratio_high",
    "process_ratio", "cpu_ratio", "ratio_to", "status", "reason",
)  # fmt: skip


def csv_text(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; what a row lacks reads `not measured`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval=NOT_MEASURED, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: NOT_MEASURED if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def quality_cells(row: dict[str, Any]) -> list[str]:
    """How wide the intervals are beside the exact ones, how far the means, and what the intervals cover."""
    if "sd_ratio_median" not in row:
        return [NOT_MEASURED] * 3
    ratio = f"{row['sd_ratio_median']:.3f} ({row['sd_ratio_q05']:.3f} to {row['sd_ratio_q95']:.3f})"
    covered = row["coverage_95"]
    return [ratio, figure(row["mean_distance_q95"], 2), NOT_MEASURED if covered is None else f"{100.0 * covered:.1f}%"]


def speed_cells(row: dict[str, Any]) -> list[str]:
    """Seconds and ratios; none where the sides disagree."""
    if row["status"] == "failed":
        return [NOT_MEASURED] * 4 + [""] * 2
    rate = figure(row["iterations_per_second"]) if "iterations_per_second" in row else ""
    cells = [figure(row["seconds"]), figure(row["process_seconds"]), figure(row["cpu_seconds"])]
    cells.append(f"{row['peak_memory_bytes'] / 1e6:,.0f}")
    ratio = "{} ({} to {})".format(*(figure(row["ratio" + part]) for part in ("", "_low", "_high"))) if "ratio" in row else ""
    return [*cells, rate, ratio]


def markdown_text(record: dict[str, Any]) -> str:
    """The table a person reads, and what was found of agreement."""
    system, configuration = record["system"], record["configuration"]
    lines = [
        "# Infermark and strong peers on the same panels and cores",
        "",
        f"{system['cpu']}, {configuration['threads']} of {system['cores']} cores; NumPyro {system['packages']['numpyro']}, "
        f"JAX {system['packages']['jax']}, NumPy {system['packages']['numpy']}; Infermark "
        f"{system['infermark'].removeprefix('infermark ')}; commit {system['git_commit'][:12]} ({system['git_tree']}); "
        f"{system['started']}.",
        "",
        "The sides took turns. Seconds run from loaded data to the posterior, compilation and layout apart; process is the",
        "whole program with reading and writing, CPU its processor seconds on all threads. Sds and means of the elasticities",
        "are beside those of `laplace --plain`: median (5% to 95%) of the ratios, and the distance in its sds that 95% of the",
        "means keep. Times Infermark: seconds over those of `laplace --plain`, or over `svi` in the same coordinates, an",
        "iteration each. The elimination finds the sds of the elasticities alone, Infermark those of all parameters.",
        "",
        "| panel | side | coordinates | iterations | sds over exact | means, 95% within | 95% intervals cover | seconds "
        "| process | CPU | MB | it/s | times Infermark | status |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        cells = [row["panel"], row["side"], row["coordinates"], str(row.get("iterations", ""))]
        lines.append("| " + " | ".join([*cells, *quality_cells(row), *speed_cells(row), row["status"]]) + " |")
    lines.append("")
    for panel in record["panels"]:
        for check in panel["checks"]:
            found = ", ".join(f"{what} {value:.1e}" for what, value in check["found"].items())
            verdict = "agree" if check["passed"] else "DISAGREE"
            lines.append(f"- {panel['label']}: {' and '.join(check['sides'])} {verdict}: {found or check['reason']}.")
    lines += [
        f"- {row['panel']}, {row['side']}: {row['status']}, {row['reason']}."
        for row in record["rows"]
        if row["status"] != "ok"
    ]
    return "\n".join(lines) + "\n"
