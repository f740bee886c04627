"""Checks check_arviz.py on fits made up for it: `"$(scripts/python_env.sh)" scripts/check_arviz_self_test.py`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from check_arviz import COLUMNS, az, check_fit, load_fit, save_fit

CHAINS, DRAWS = 4, 500
PRODUCTS = ["NA", "apple", "10", "02", "pear"]
CATEGORIES = ["drinks", "food"]
PERIODS = [5, 7, 30]


def chains_of(rng: np.random.Generator, persistence: float, offset: float) -> np.ndarray:
    """An autoregressive (chain, draw) array; `offset` parts the chains' means."""
    noise = rng.normal(size=(CHAINS, DRAWS))
    values = np.zeros_like(noise)
    for draw in range(1, DRAWS):
        values[:, draw] = persistence * values[:, draw - 1] + noise[:, draw]
    return 3.0 + values + offset * np.arange(CHAINS)[:, None]


def keys_by_site() -> dict[str, list[str]]:
    """The keys of posterior.csv, written out apart from the code under test."""
    return {
        "global_a": [""],
        "category_a": CATEGORIES,
        "product_a": PRODUCTS,
        "product_effect": PRODUCTS,
        "time_cat_effects": [f"{category}@{period}" for category in CATEGORIES for period in PERIODS],
    }


def write_fit(directory: Path) -> None:
    """A fit as `infermark fit --method nuts` lays it out, rows in shuffled order.

    posterior.csv is computed scalar by scalar on bare arrays, so that a coordinate
    that check_arviz.py puts in the wrong place disagrees with it.
    """
    rng = np.random.default_rng(20)
    scalars = {
        (site, key): chains_of(rng, rng.uniform(-0.3, 0.9), rng.uniform(0, 0.2))
        for site, keys in keys_by_site().items()
        for key in keys
    }
    rows = [
        {
            "site": site,
            "key": key,
            "mean": values.mean(),
            "sd": values.std(ddof=1),
            "q05": np.quantile(values, 0.05),
            "q95": np.quantile(values, 0.95),
            "mcse_mean": az.mcse(values, method="mean"),
            "ess_bulk": az.ess(values, method="bulk"),
            "ess_tail": az.ess(values, method="tail", prob=(0.05, 0.95)),
            "rhat": az.rhat(values, method="rank"),
        }
        for (site, key), values in scalars.items()
    ]
    pd.DataFrame(rows, columns=["site", "key", *COLUMNS]).to_csv(
        directory / "posterior.csv", index=False, float_format="%.6g"
    )

    shuffled = rng.permutation(CHAINS * DRAWS)
    chain, draw = (index.ravel()[shuffled].astype(np.int32) for index in np.indices((CHAINS, DRAWS)))
    columns: dict[str, pa.Array] = {"chain": pa.array(chain), "draw": pa.array(draw)}
    for site, keys in keys_by_site().items():
        values = np.stack([scalars[site, key].ravel()[shuffled] for key in keys], axis=1)
        if site == "global_a":
            columns[site] = pa.array(values[:, 0])
        elif site == "category_a":
            # One column as a plain list, the others of fixed size: both are allowed.
            columns[site] = pa.array(values.tolist(), pa.list_(pa.float64()))
        else:
            columns[site] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(keys))
    columns["diverging"] = pa.array(chain == 2)
    for name in ("tree_depth", "n_steps"):
        columns[name] = pa.array(rng.integers(1, 8, size=len(chain), dtype=np.int32))
    for name in ("acceptance_rate", "step_size", "energy", "lp"):
        columns[name] = pa.array(rng.normal(size=len(chain)))
    pq.write_table(pa.table(columns), directory / "draws.parquet", row_group_size=300)
    recorded = {"product": PRODUCTS, "category": CATEGORIES, "period": PERIODS, "chains": CHAINS, "draws": DRAWS}
    (directory / "coordinates.json").write_text(json.dumps(recorded))


def edit_posterior(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """An alteration of posterior.csv."""

    def alter(directory: Path) -> None:
        path = directory / "posterior.csv"
        table = pd.read_csv(path, dtype={"key": str}, keep_default_na=False)
        edit(table).to_csv(path, index=False)

    return alter


def edit_draws(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """An alteration of draws.parquet."""

    def alter(directory: Path) -> None:
        path = directory / "draws.parquet"
        pq.write_table(edit(pq.read_table(path)), path)

    return alter


def nudge_rhat(table: pd.DataFrame) -> pd.DataFrame:
    """Sets one R-hat off by three thousandths."""
    table.loc[4, "rhat"] += 0.003
    return table


def swap_products(table: pd.DataFrame) -> pd.DataFrame:
    """Exchanges two products' keys."""
    table.loc[[3, 4], "key"] = table.loc[[4, 3], "key"].to_numpy()
    return table


def double_tail_ess(table: pd.DataFrame) -> pd.DataFrame:
    """Reports a tail ESS twice as large as it is."""
    table.loc[10, "ess_tail"] *= 2.0
    return table


def drop_row(table: pd.DataFrame) -> pd.DataFrame:
    """Leaves out a row whose draws exist."""
    return table.drop(index=7)


def nothing(_: Path) -> None:
    """Leaves the fit as it is."""


def outcome(alter: Callable[[Path], None]) -> str:
    """What the check says of an altered fit: agrees, disagrees, or refused."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_fit(directory)
        alter(directory)
        try:
            _, wrong = check_fit(directory, load_fit(directory))
        except ValueError:
            return "refused"
        return "disagrees" if wrong else "agrees"


def labels_survive_saving() -> str:
    """`agrees` where a saved and reopened fit has its values under the same labels."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_fit(directory)
        fit = load_fit(directory)
        where = {"category": "food", "period": 7}
        for suffix in ("nc", "zarr"):
            path = directory / f"fit.{suffix}"
            save_fit(fit, path)
            reopened = az.from_netcdf(str(path)) if suffix == "nc" else xr.open_datatree(path, engine="zarr")
            same = (
                reopened.posterior["time_cat_effects"].sel(where).equals(fit.posterior["time_cat_effects"].sel(where))
            )
            if not (same and int(reopened.sample_stats["diverging"].sel(chain=2).sum()) == DRAWS):
                return "disagrees"
        return "agrees"


def self_test() -> int:
    """Runs every case; returns 0 where each has the outcome it should."""
    one_twice = edit_draws(lambda table: pa.concat_tables([table.slice(1), table.slice(5, 1)]))
    moments_only = edit_draws(lambda table: table.drop_columns(["product_effect", "time_cat_effects"]))
    cases: list[tuple[str, str, Callable[[], str]]] = [
        ("a consistent fit", "agrees", lambda: outcome(nothing)),
        ("only some sites' draws kept", "agrees", lambda: outcome(moments_only)),
        ("one R-hat off by 0.003", "disagrees", lambda: outcome(edit_posterior(nudge_rhat))),
        ("two products exchanged", "disagrees", lambda: outcome(edit_posterior(swap_products))),
        ("one tail ESS doubled", "disagrees", lambda: outcome(edit_posterior(double_tail_ess))),
        ("a row left out", "disagrees", lambda: outcome(edit_posterior(drop_row))),
        ("a draw missing", "refused", lambda: outcome(edit_draws(lambda table: table.slice(1)))),
        ("a draw twice", "refused", lambda: outcome(one_twice)),
        ("saved as netCDF and Zarr", "agrees", labels_survive_saving),
    ]
    failures = 0
    for name, expected, case in cases:
        found = case()
        failures += found != expected
        print(f"{'ok' if found == expected else 'FAILED'}: {name}: {found}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(self_test())
