"""Opens a NUTS fit of Infermark in ArviZ and checks its diagnostics against ArviZ's.

    "$(scripts/python_env.sh)" scripts/check_arviz.py FIT_DIR [--save FILE.nc|FILE.zarr]

To work with a fit in a notebook:

    from check_arviz import load_fit
    fit = load_fit(Path("FIT_DIR"))      # fit.posterior, fit.sample_stats

FIT_DIR is what `infermark fit --method nuts --out FIT_DIR` wrote: draws.parquet
and coordinates.json are read, and posterior.csv is what is checked. Where only
some sites' draws were kept, those are loaded and the rest is counted as unchecked.

Exit status: 0 the diagnostics agree, 1 they do not, 2 usage or input.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

with warnings.catch_warnings():
    # ArviZ announces its own refactoring on import.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

# Each site's dimensions after chain and draw; list columns are flattened row-major.
SITE_DIMS: dict[str, tuple[str, ...]] = {
    "global_a": (),
    "category_a": ("category",),
    "product_a": ("product",),
    "product_effect": ("product",),
    "time_cat_effects": ("category", "period"),
    "log_shape": ("category",),
}
# The sampler statistics, under the names that ArviZ's plots look for.
STATISTICS = ("diverging", "tree_depth", "n_steps", "acceptance_rate", "step_size", "energy", "lp")
COLUMNS = ("mean", "sd", "q05", "q95", "mcse_mean", "ess_bulk", "ess_tail", "rhat")


def read_sites(table: pa.Table, coordinates: dict[str, list[Any]], order: np.ndarray, source: Path) -> xr.Dataset:
    """The sites' draws as (chain, draw, the site's dimensions), in natural values."""
    chains, draws = len(coordinates["chain"]), len(coordinates["draw"])
    sites = {}
    for site, dims in SITE_DIMS.items():
        if site not in table.column_names:
            continue
        column = table.column(site).combine_chunks()
        shape = tuple(len(coordinates[dim]) for dim in dims)
        values = column.flatten() if dims else column
        size = int(np.prod(shape))
        if column.null_count or values.null_count or len(values) != len(table) * size:
            raise ValueError(f"{source}: column {site} must hold {size} numbers in every row, none of them missing")
        array = values.to_numpy(zero_copy_only=False).reshape(len(table), size)[order]
        sites[site] = (("chain", "draw", *dims), array.reshape(chains, draws, *shape))
    if not sites:
        raise ValueError(f"{source}: no column named after a site ({', '.join(SITE_DIMS)})")
    used = {dim for dims, _ in sites.values() for dim in dims}
    return xr.Dataset(sites, coords={dim: coordinates[dim] for dim in coordinates if dim in used})


def load_fit(directory: Path) -> Any:
    """The fit as ArviZ holds one, with groups `posterior` and `sample_stats`.

    An `arviz.InferenceData`, or an `xarray.DataTree` from ArviZ 1.0 on. Raises
    FileNotFoundError or ValueError, naming the file, where the fit is incomplete.
    """
    directory = Path(directory)
    source = directory / "draws.parquet"
    recorded = json.loads((directory / "coordinates.json").read_text())
    table = pq.read_table(source)
    missing = [name for name in ("chain", "draw") if name not in table.column_names]
    if missing:
        raise ValueError(f"{source}: no column {', '.join(missing)}")
    chain, draw = (table.column(name).to_numpy() for name in ("chain", "draw"))
    chains, draws = recorded["chains"], recorded["draws"]
    order = np.lexsort((draw, chain))
    chain_labels, draw_labels = np.unique(chain), np.unique(draw)
    # ArviZ needs every chain to have the same draws, each of them once.
    grid = np.stack([np.repeat(chain_labels, len(draw_labels)), np.tile(draw_labels, len(chain_labels))])
    complete = len(chain_labels) == chains and len(draw_labels) == draws
    if not (complete and np.array_equal(np.stack([chain[order], draw[order]]), grid)):
        held = ", ".join(f"chain {label}: {(chain == label).sum()}" for label in chain_labels)
        raise ValueError(
            f"{source}: expected {chains} chains of {draws} draws each (coordinates.json), found {held}; "
            "a fit that was interrupted between chains cannot be opened as a whole"
        )

    coordinates: dict[str, list[Any]] = {"chain": chain_labels.tolist(), "draw": draw_labels.tolist()}
    coordinates |= {dim: recorded[dim] for dim in ("category", "product", "period")}
    posterior = read_sites(table, coordinates, order, source)
    statistics = {
        name: (("chain", "draw"), table.column(name).to_numpy()[order].reshape(chains, draws))
        for name in STATISTICS
        if name in table.column_names
    }
    sample_stats = xr.Dataset(statistics, coords={dim: coordinates[dim] for dim in ("chain", "draw")})
    for group in (posterior, sample_stats):
        group.attrs["inference_library"] = "infermark"
    if hasattr(az, "InferenceData"):
        return az.InferenceData(posterior=posterior, sample_stats=sample_stats)
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": sample_stats})


def arviz_diagnostics(posterior: xr.Dataset) -> dict[str, xr.Dataset]:
    """What posterior.csv reports, computed by ArviZ: one dataset a column."""
    return {
        "mean": posterior.mean(("chain", "draw")),
        "sd": posterior.std(("chain", "draw"), ddof=1),
        "q05": posterior.quantile(0.05, ("chain", "draw")),
        "q95": posterior.quantile(0.95, ("chain", "draw")),
        "mcse_mean": az.mcse(posterior, method="mean"),
        "ess_bulk": az.ess(posterior, method="bulk"),
        "ess_tail": az.ess(posterior, method="tail", prob=(0.05, 0.95)),
        "rhat": az.rhat(posterior, method="rank"),
    }


def keys_of(site: xr.DataArray) -> Iterator[str]:
    """The keys of posterior.csv in the order of the site's values, row-major."""
    labels = [[str(label) for label in site.coords[dim].values] for dim in SITE_DIMS[site.name]]
    for index in np.ndindex(*(len(axis) for axis in labels)):
        yield "@".join(axis[i] for axis, i in zip(labels, index, strict=True))


def diagnostics_table(posterior: xr.Dataset) -> pd.DataFrame:
    """ArviZ's numbers in the layout of posterior.csv, indexed by (site, key)."""
    computed = arviz_diagnostics(posterior)
    parts = []
    for site in posterior.data_vars:
        # .values of a 0-d site is 0-d: ravel makes one row of it.
        columns = {name: np.ravel(dataset[site].values) for name, dataset in computed.items()}
        keys = pd.MultiIndex.from_product([[site], list(keys_of(posterior[site]))], names=["site", "key"])
        parts.append(pd.DataFrame(columns, index=keys))
    return pd.concat(parts)


def tolerances(reference: pd.DataFrame, draws: int) -> pd.DataFrame:
    """How far each number may lie from ArviZ's, in the number's own units.

    Both sides start from the same float64 draws, so what differs is rounding, the
    digits that the CSV keeps (six assumed), and conventions that no statistic
    should hang on: n or n - 1 in the sd (1/n), and which of the usual quantile
    interpolations (a few order statistics, which near the 5% point lie about
    10/n sds apart). An ESS sums autocorrelations to a cut-off, where rounding is
    amplified: a thousandth. A classical, unsplit or unranked R-hat is off by
    more than 1e-3 in the sites that matter; its tolerance is 1e-4.
    """
    sd = reference["sd"]
    allowed = pd.DataFrame(index=reference.index)
    allowed["mean"] = 1e-5 * sd + 1e-5 * reference["mean"].abs()
    allowed["sd"] = (1e-5 + 1.0 / draws) * sd
    for name in ("q05", "q95"):
        allowed[name] = (1e-5 + 30.0 / draws) * sd + 1e-5 * reference[name].abs()
    for name in ("ess_bulk", "ess_tail"):
        allowed[name] = 1e-3 * reference[name]
    allowed["mcse_mean"] = (1e-3 + 1.0 / draws) * reference["mcse_mean"]
    allowed["rhat"] = 1e-4
    return allowed


def check_fit(directory: Path, fit: Any) -> tuple[list[str], list[str]]:
    """Compares posterior.csv with ArviZ: summary lines, and one line a disagreement."""
    source = directory / "posterior.csv"
    # Keys are text even where they look like numbers, and "NA" may be a product.
    text = {"site": str, "key": str}
    written = pd.read_csv(source, dtype=text, keep_default_na=False, na_values={name: ["", "NaN"] for name in COLUMNS})
    absent = [name for name in ("site", "key", *COLUMNS) if name not in written.columns]
    if absent:
        raise ValueError(f"{source}: no column {', '.join(absent)}")
    written = written.set_index(["site", "key"])
    if not written.index.is_unique:
        raise ValueError(f"{source}: {written.index[written.index.duplicated()][0]} is listed twice")
    reference = diagnostics_table(fit.posterior)
    lost = reference.index.difference(written.index)
    unknown = [key for key in written.index.difference(reference.index) if key[0] in fit.posterior.data_vars]
    wrong = [f"{site}[{key}]: has draws but no row in posterior.csv" for site, key in lost]
    wrong += [f"{site}[{key}]: in posterior.csv, but the draws have no such coordinate" for site, key in unknown]

    shared = reference.index.intersection(written.index)
    reference, checked = reference.loc[shared], written.loc[shared]
    allowed = tolerances(reference, fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"])
    lines = []
    for name in COLUMNS:
        difference = (checked[name] - reference[name]).abs()
        # An R-hat that is undefined (a constant coordinate) must be so on both sides.
        agrees = (difference <= allowed[name]) | (checked[name].isna() & reference[name].isna())
        lines.append(f"{name}: {agrees.sum()} of {len(agrees)} agree, largest difference {difference.max():.3g}")
        wrong += [
            f"{site}[{key}] {name}: posterior.csv {checked[name][site, key]:.8g}, "
            f"ArviZ {reference[name][site, key]:.8g} (tolerance {allowed[name][site, key]:.2g})"
            for site, key in agrees.index[~agrees]
        ]
    unchecked = len(written) - len(checked) - len(unknown)
    if unchecked:
        lines.append(f"{unchecked} rows not checked: their draws were not kept")
    return lines, wrong


def save_fit(fit: Any, path: Path) -> None:
    """Writes netCDF (.nc, opens with arviz.from_netcdf) or Zarr (.zarr, xarray.open_datatree).

    Under another name first; raises ValueError where the file exists.
    """
    if path.exists():
        raise ValueError(f"{path} exists; name another file")
    # Through a DataTree, since ArviZ before 1.0 does not write the current Zarr format.
    tree = fit.to_datatree() if hasattr(fit, "to_datatree") else fit
    new = path.with_name(f".{path.stem}.new-{os.getpid()}{path.suffix}")
    try:
        if path.suffix == ".nc":
            tree.to_netcdf(new)
        elif path.suffix == ".zarr":
            tree.to_zarr(new, zarr_format=2)
        else:
            raise ValueError(f"{path}: the name must end in .nc or .zarr")
        new.rename(path)
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        else:
            new.unlink(missing_ok=True)


def main() -> int:
    """Checks one fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fit", type=Path, metavar="FIT_DIR", help="what infermark fit --method nuts wrote")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the fit as FILE.nc or FILE.zarr")
    options = parser.parse_args()
    try:
        fit = load_fit(options.fit)
        lines, wrong = check_fit(options.fit, fit)
        if options.save:
            save_fit(fit, options.save)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        print(f"check_arviz.py: {error}", file=sys.stderr)
        return 2
    sizes = fit.posterior.sizes
    print(f"{sizes['chain']} chains of {sizes['draw']} draws, sites {', '.join(fit.posterior.data_vars)}")
    print("\n".join(lines))
    for line in wrong[:10]:
        print(f"disagrees: {line}")
    if len(wrong) > 10:
        print(f"and {len(wrong) - 10} more")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
