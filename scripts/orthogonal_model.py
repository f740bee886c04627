"""The published NumPyro model in coordinates in which a mean-field guide's intervals hold.

The posterior is that of `published_model`; only the coordinates differ, linearly and
with a constant Jacobian. With x = ln price, y = units, T periods:

    log rate = product_a (x - m) + centred_effect + s - w
    m   sum(y x) / (sum(y) + 1 / 3^2), the product's mean of x, weighted by its units y and held
        to 0 by the prior of its effect, Normal(0, 3): nothing is left between product_a and
        centred_effect, and a product without sales has m = 0
    s   a category's period effects about their mean, `period_contrasts`, a zero-sum vector
    w   its mean of s, weighted by its units in each period (1/T where nothing was sold)

so that, with `category_level` l the mean of the category's period effects,

    time_cat_effects = l + s
    product_effect   = centred_effect - product_a m - l - w

The prior of the period effects, independent Normal(0, 3), is Normal(0, 3 / sqrt T) for
the level and, apart from it, a zero-sum normal of sd 3 for the contrasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import ZeroSumTransform
from numpyro.handlers import mask

from published_model import CLIP, Panel

# Prior of the period effects: mean 0 and this sd, as in `published_model`.
PERIOD_SD = 3.0
# The same of the products' effects.
EFFECT_SD = 3.0
# The guide's scales at the start, smaller than the published 0.1: most posterior sds are.
START_SCALE = 0.01
Sites = dict[str, Any]


def sums_by(index: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    """Sums of `values` over the rows that share an index, [length]."""
    return np.bincount(index, weights=values, minlength=length)


def centres(panel: Panel) -> np.ndarray:
    """The mean ln price of each product, weighted by its units and held to 0 by its effect's prior, [products]."""
    count = len(panel.products)
    units = panel.units.astype(np.float64)
    sold = sums_by(panel.product_idx, units, count)
    weighted = sums_by(panel.product_idx, units * panel.log_price, count)
    return weighted / (sold + EFFECT_SD**-2)


def period_totals(panel: Panel) -> np.ndarray:
    """Units sold by category and period, [categories, periods]."""
    shape = (len(panel.categories), len(panel.weeks))
    return sums_by(panel.time_cat_idx, panel.units.astype(np.float64), shape[0] * shape[1]).reshape(shape)


def period_weights(panel: Panel) -> np.ndarray:
    """The share of each period in its category's units, [categories, periods]; rows sum to 1."""
    totals = period_totals(panel)
    sold = totals.sum(axis=1, keepdims=True)
    return np.where(sold > 0.0, totals / np.where(sold > 0.0, sold, 1.0), 1.0 / totals.shape[1])


def orthogonal_arguments(panel: Panel) -> Sites:
    """What `orthogonal_model` takes, arrays in JAX's active precision."""
    centre = centres(panel)
    return {
        "category_idx": jnp.asarray(panel.category_idx),
        "product_idx": jnp.asarray(panel.product_idx),
        "time_cat_idx": jnp.asarray(panel.time_cat_idx),
        "relative_log_price": jnp.asarray(panel.log_price - centre[panel.product_idx]),
        "units": jnp.asarray(panel.units),
        "centre": jnp.asarray(centre),
        "weights": jnp.asarray(period_weights(panel)),
    }


def orthogonal_dense_arguments(panel: Panel) -> Sites:
    """What `orthogonal_dense_model` takes; a product's absent weeks have log price and units 0."""
    dense = panel.dense_arguments()
    centre = centres(panel)
    return {
        "category_idx": dense["category_idx"],
        "relative_log_price": jnp.asarray(np.asarray(dense["log_price"], dtype=np.float64) - centre[:, None]),
        "units": dense["units"],
        "present": dense["present"],
        "centre": jnp.asarray(centre),
        "weights": jnp.asarray(period_weights(panel)),
    }


def sample_sites(category_idx: jax.Array, centre: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The latent sites: product_a and centred_effect, [products] each, and s - w, [categories, periods]."""
    categories, periods = weights.shape
    global_a = numpyro.sample("global_a", dist.Normal(-2.0, 1.0))
    with numpyro.plate("categories", categories):
        category_a = numpyro.sample("category_a", dist.Normal(global_a, 1.0))
        level = numpyro.sample("category_level", dist.Normal(0.0, PERIOD_SD / jnp.sqrt(periods)))
        contrasts = jnp.zeros((categories, 1))
        if periods > 1:
            contrasts = numpyro.sample("period_contrasts", dist.ZeroSumNormal(PERIOD_SD, event_shape=(periods,)))
    weighted_mean = jnp.sum(weights * contrasts, axis=1)
    with numpyro.plate("products", category_idx.shape[0]):
        product_a = numpyro.sample("product_a", dist.Normal(category_a[category_idx], 2.0))
        # product_effect ~ Normal(0, 3), in the coordinate that is inferred.
        mean = product_a * centre + (level + weighted_mean)[category_idx]
        centred_effect = numpyro.sample("centred_effect", dist.Normal(mean, 3.0))
    return product_a, centred_effect, contrasts - weighted_mean[:, None]


def orthogonal_model(
    category_idx: jax.Array,
    product_idx: jax.Array,
    time_cat_idx: jax.Array,
    relative_log_price: jax.Array,
    units: jax.Array,
    centre: jax.Array,
    weights: jax.Array,
) -> None:
    """`published_model` in the coordinates of this module, one gather per row."""
    product_a, centred_effect, period_effects = sample_sites(category_idx, centre, weights)
    eta = product_a[product_idx] * relative_log_price + centred_effect[product_idx] + period_effects.ravel()[time_cat_idx]
    with numpyro.plate("rows", units.shape[0]):
        numpyro.sample("units", dist.Poisson(jnp.exp(jnp.clip(eta, *CLIP))), obs=units)


def orthogonal_dense_model(
    category_idx: jax.Array,
    relative_log_price: jax.Array,
    units: jax.Array,
    present: jax.Array | bool,
    centre: jax.Array,
    weights: jax.Array,
) -> None:
    """`orthogonal_model` on a products x weeks grid: the same sites, no gather per row."""
    product_a, centred_effect, period_effects = sample_sites(category_idx, centre, weights)
    eta = product_a[:, None] * relative_log_price + centred_effect[:, None] + period_effects[category_idx]
    products, weeks = units.shape
    with numpyro.plate("rows", products, dim=-2), numpyro.plate("weeks", weeks, dim=-1), mask(mask=present):
        numpyro.sample("units", dist.Poisson(jnp.exp(jnp.clip(eta, *CLIP))), obs=units)


# Each form of the model, and what it takes of a panel.
ORTHOGONAL_MODELS: dict[str, tuple[Callable[..., None], Callable[[Panel], Sites]]] = {
    "published": (orthogonal_model, orthogonal_arguments),
    "dense": (orthogonal_dense_model, orthogonal_dense_arguments),
}


def natural_values(sites: Sites, panel: Panel) -> Sites:
    """The natural parameters of unconstrained sites, as `published_model` names them.

    `period_contrasts` has shape [categories, periods - 1]; the isometric zero-sum
    transform makes the contrasts of it.
    """
    weights = period_weights(panel)
    contrasts = jnp.zeros_like(weights)
    if weights.shape[1] > 1:
        contrasts = ZeroSumTransform(1)(jnp.asarray(sites["period_contrasts"]))
    level = jnp.asarray(sites["category_level"])
    shift = (level + jnp.sum(weights * contrasts, axis=1))[panel.category_idx]
    return {
        "global_a": sites["global_a"],
        "category_a": sites["category_a"],
        "product_a": sites["product_a"],
        "product_effect": sites["centred_effect"] - sites["product_a"] * centres(panel) - shift,
        "time_cat_effects": (level[:, None] + contrasts).ravel(),
    }


def natural_moments(loc: Sites, sd: Sites, panel: Panel) -> tuple[Sites, Sites]:
    """Mean and sd of every natural parameter under independent normals in the unconstrained sites, in double precision.

    The map is linear, so an sd is the root of the sum of squares of what each normal adds to it.
    """
    loc, variance = ({n: np.asarray(v, dtype=np.float64) for n, v in sites.items()} for sites in (loc, sd))
    variance = {name: value**2 for name, value in variance.items()}
    category, weights = panel.category_idx, period_weights(panel)
    periods = weights.shape[1]
    # contrasts = basis @ y, with orthonormal columns; here by the transform's own formula, not by its code.
    basis = np.zeros((periods, periods - 1))
    if periods > 1:
        norm = 1.0 / (np.sqrt(periods) + periods)
        basis = np.concatenate([np.eye(periods - 1) - norm, np.full((1, periods - 1), -1.0 / np.sqrt(periods))])
    empty = np.zeros((weights.shape[0], periods - 1))
    contrasts, spread = loc.get("period_contrasts", empty), variance.get("period_contrasts", empty)
    mean_shift = loc["category_level"] + ((weights @ basis) * contrasts).sum(axis=1)
    variance_shift = variance["category_level"] + ((weights @ basis) ** 2 * spread).sum(axis=1)
    centre = centres(panel)
    mean = {name: loc[name] for name in ("global_a", "category_a", "product_a")} | {
        "product_effect": loc["centred_effect"] - loc["product_a"] * centre - mean_shift[category],
        "time_cat_effects": (loc["category_level"][:, None] + contrasts @ basis.T).ravel(),
    }
    variances = {name: variance[name] for name in ("global_a", "category_a", "product_a")} | {
        "product_effect": variance["centred_effect"] + variance["product_a"] * centre**2 + variance_shift[category],
        "time_cat_effects": (variance["category_level"][:, None] + spread @ (basis**2).T).ravel(),
    }
    return mean, {name: np.sqrt(value) for name, value in variances.items()}


def start_values(panel: Panel) -> dict[str, np.ndarray]:
    """Unconstrained values near the data: log of mean units, and of each period's share of the category's units."""
    mean_units = sums_by(panel.product_idx, panel.units.astype(np.float64), len(panel.products))
    mean_units /= np.bincount(panel.product_idx)
    categories = len(panel.categories)
    start = {
        "global_a": np.asarray(-2.0),
        "category_a": np.full(categories, -2.0),
        "product_a": np.full(len(panel.products), -2.0),
        "centred_effect": np.log(mean_units + 0.5 / len(panel.weeks)),
        "category_level": np.zeros(categories),
    }
    if len(panel.weeks) > 1:
        log_totals = np.log(period_totals(panel) + 0.5)
        contrasts = log_totals - log_totals.mean(axis=1, keepdims=True)
        start["period_contrasts"] = np.asarray(ZeroSumTransform(1).inv(jnp.asarray(contrasts)))
    return start
