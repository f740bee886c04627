"""Writes arviz.txt: draws, and what ArviZ says of them.

Usage: python make_arviz.py arviz.txt
Needs arviz; the versions used are recorded in the file.
"""

import sys
import warnings

import arviz as az
import numpy as np
import scipy

warnings.simplefilter("ignore")
rng = np.random.default_rng(20261122)


def ar1(chains, draws, phi, shift=None):
    """First-order autoregressions with unit innovations."""
    x = np.zeros((chains, draws))
    x[:, 0] = rng.normal(size=chains) / np.sqrt(1 - phi * phi)
    for t in range(1, draws):
        x[:, t] = phi * x[:, t - 1] + rng.normal(size=chains)
    return x if shift is None else x + np.array(shift)[:, None]


CASES = {
    "iid_4x100": rng.normal(size=(4, 100)),
    "ar1_0.9_4x120": ar1(4, 120, 0.9),
    "ar1_0.99_2x150": ar1(2, 150, 0.99),
    "antithetic_ar1_-0.6_4x80": ar1(4, 80, -0.6),
    "odd_draws_3x61": ar1(3, 61, 0.5),
    "shifted_chain_4x50": ar1(4, 50, 0.3, shift=[0, 0, 0, 1.5]),
    "scaled_chain_4x50": rng.normal(size=(4, 50)) * np.array([1, 1, 1, 4])[:, None],
    "cauchy_4x75": rng.standard_cauchy(size=(4, 75)),
    "one_chain_1x90": ar1(1, 90, 0.7),
    "four_draws_2x4": rng.normal(size=(2, 4)),
    "five_draws_4x5": rng.normal(size=(4, 5)),
    "seven_draws_3x7": rng.normal(size=(3, 7)),
    "ties_4x60": np.round(ar1(4, 60, 0.5) * 2) / 2,
    "trend_2x64": np.linspace(0, 5, 64)[None, :] + rng.normal(size=(2, 64)) * 0.3,
    "offset_1e6_4x50": 1e6 + 1e-3 * ar1(4, 50, 0.4),
    "two_values_2x40": (rng.random((2, 40)) < 0.3).astype(float),
}

with open(sys.argv[1], "w") as file:
    versions = f"arviz {az.__version__}, scipy {scipy.__version__}, numpy {np.__version__}"
    file.write(f"# Draws and what ArviZ says of them. Made with {versions}.\n")
    file.write("# Per case: `case NAME CHAINS DRAWS`, then `rhat ess_bulk ess_tail mcse_mean` of\n")
    file.write('# az.rhat(method="rank"), az.ess(method="bulk"), az.ess(method="tail"), az.mcse(method="mean"),\n')
    file.write("# then one line of draws a chain. R-hat of a single chain is nan.\n")
    for name, x in CASES.items():
        rhat = az.rhat(x, method="rank") if len(x) > 1 else np.nan
        figures = [rhat, az.ess(x, method="bulk"), az.ess(x, method="tail"), az.mcse(x, method="mean")]
        file.write(f"case {name} {len(x)} {len(x[0])}\n")
        file.write(" ".join(repr(float(v)) for v in figures) + "\n")
        for row in x:
            file.write(" ".join(repr(float(v)) for v in row) + "\n")
