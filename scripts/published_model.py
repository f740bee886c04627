"""The published NumPyro model, its guide, objective and optimizer, on a panel file.

`published_model` is written as it was published: one gather per row for each
effect. `dense_model` is the same model on a products x weeks grid, written for
speed. The published code asks for ``infer={"reparam": LocScaleReparam()}`` but applies no
reparameterization handler, which NumPyro then ignores, so what runs, there and
here, is the centred model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pandas as pd
from numpyro.handlers import mask
from numpyro.infer import SVI, RenyiELBO
from numpyro.infer.autoguide import AutoNormal

COLUMNS = ("product", "category", "week", "price", "units")
PARTICLES = 4
# Bounds on the log rate, outside which the published model clips it.
CLIP = (-4.0, 20.0)


@dataclass(frozen=True)
class Panel:
    """A sales panel as index arrays; rows in the file's order.

    ``category_idx`` has one entry a product, everything else ending in ``_idx``
    one a row. Products, categories and weeks are numbered in sorted order, and
    ``time_cat_idx`` is ``category * weeks + week``.
    """

    products: np.ndarray
    categories: np.ndarray
    weeks: np.ndarray
    category_idx: np.ndarray
    product_idx: np.ndarray
    time_cat_idx: np.ndarray
    log_price: np.ndarray
    units: np.ndarray

    @property
    def rows(self) -> int:
        """The number of observations."""
        return len(self.units)

    def sizes(self) -> dict[str, int]:
        """The static sizes that both models take."""
        return {"categories": len(self.categories), "time_cats": len(self.categories) * len(self.weeks)}

    def published_arguments(self) -> dict[str, Any]:
        """What `published_model` takes, arrays in JAX's active precision."""
        return {
            "category_idx": jnp.asarray(self.category_idx),
            "product_idx": jnp.asarray(self.product_idx),
            "time_cat_idx": jnp.asarray(self.time_cat_idx),
            "log_price": jnp.asarray(self.log_price),
            "units": jnp.asarray(self.units),
        } | self.sizes()

    def dense_arguments(self) -> dict[str, Any]:
        """What `dense_model` takes; absent weeks have log price and units 0.

        Raises ValueError when two rows have the same product and week.
        """
        cell = self.product_idx.astype(np.int64) * len(self.weeks) + self.time_cat_idx % len(self.weeks)
        if len(np.unique(cell)) < self.rows:
            raise ValueError("a product has two rows for one week, so the panel has no dense form")

        def grid(values: np.ndarray) -> np.ndarray:
            dense = np.zeros(len(self.products) * len(self.weeks), dtype=values.dtype)
            dense[cell] = values
            return dense.reshape(len(self.products), len(self.weeks))

        complete = self.rows == len(self.products) * len(self.weeks)
        return {
            "category_idx": jnp.asarray(self.category_idx),
            "log_price": jnp.asarray(grid(self.log_price)),
            "units": jnp.asarray(grid(self.units)),
            "present": True if complete else jnp.asarray(grid(np.ones(self.rows, dtype=bool))),
        } | self.sizes()


def read_panel(path: Path) -> Panel:
    """Reads a Parquet or CSV panel with the columns named in `COLUMNS`.

    Raises ValueError, naming the file, on a missing column, a product in two
    categories, or prices or units outside the model's support.
    """
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; found {', '.join(map(str, table.columns))}")
    price = table["price"].to_numpy(dtype=np.float64)
    units = table["units"].to_numpy()
    if len(table) == 0 or not (np.isfinite(price).all() and (price > 0).all()):
        raise ValueError(f"{path}: needs at least one row, and every price positive and finite")
    if not ((units >= 0).all() and (units == np.floor(units)).all()):
        raise ValueError(f"{path}: every value of units must be a whole number, zero or more")

    product_idx, products = pd.factorize(table["product"], sort=True)
    row_category, categories = pd.factorize(table["category"], sort=True)
    week_idx, weeks = pd.factorize(table["week"], sort=True)
    if min(product_idx.min(), row_category.min(), week_idx.min()) < 0:
        raise ValueError(f"{path}: a product, category or week is missing")
    category_idx = np.zeros(len(products), dtype=np.int32)
    category_idx[product_idx] = row_category
    if not (category_idx[product_idx] == row_category).all():
        raise ValueError(f"{path}: a product is listed in two categories")
    return Panel(
        products=np.asarray(products),
        categories=np.asarray(categories),
        weeks=np.asarray(weeks),
        category_idx=category_idx,
        product_idx=product_idx.astype(np.int32),
        time_cat_idx=(row_category * len(weeks) + week_idx).astype(np.int32),
        log_price=np.log(price),
        units=units.astype(np.int32),
    )


def published_model(
    category_idx: jax.Array,
    product_idx: jax.Array,
    time_cat_idx: jax.Array,
    log_price: jax.Array,
    units: jax.Array,
    categories: int,
    time_cats: int,
) -> None:
    """The hierarchical Poisson price-elasticity model, centred."""
    global_a = numpyro.sample("global_a", dist.Normal(-2.0, 1.0))
    with numpyro.plate("categories", categories):
        category_a = numpyro.sample("category_a", dist.Normal(global_a, 1.0))
    with numpyro.plate("products", category_idx.shape[0]):
        product_a = numpyro.sample("product_a", dist.Normal(category_a[category_idx], 2.0))
        product_effect = numpyro.sample("product_effect", dist.Normal(0.0, 3.0))
    with numpyro.plate("time_cats", time_cats):
        time_cat_effects = numpyro.sample("time_cat_effects", dist.Normal(0.0, 3.0))
    eta = product_a[product_idx] * log_price + time_cat_effects[time_cat_idx] + product_effect[product_idx]
    with numpyro.plate("rows", units.shape[0]):
        numpyro.sample("units", dist.Poisson(jnp.exp(jnp.clip(eta, *CLIP))), obs=units)


def dense_model(
    category_idx: jax.Array,
    log_price: jax.Array,
    units: jax.Array,
    present: jax.Array | bool,
    categories: int,
    time_cats: int,
) -> None:
    """`published_model` on a products x weeks grid: the same sites, no gather per row.

    ``log_price``, ``units`` and ``present`` (which rows there are; True for all)
    have shape [products, weeks].
    """
    products, weeks = units.shape
    global_a = numpyro.sample("global_a", dist.Normal(-2.0, 1.0))
    with numpyro.plate("categories", categories):
        category_a = numpyro.sample("category_a", dist.Normal(global_a, 1.0))
    with numpyro.plate("products", products):
        product_a = numpyro.sample("product_a", dist.Normal(category_a[category_idx], 2.0))
        product_effect = numpyro.sample("product_effect", dist.Normal(0.0, 3.0))
    with numpyro.plate("time_cats", time_cats):
        time_cat_effects = numpyro.sample("time_cat_effects", dist.Normal(0.0, 3.0))
    period_effects = time_cat_effects.reshape(categories, weeks)[category_idx]
    eta = product_a[:, None] * log_price + period_effects + product_effect[:, None]
    with numpyro.plate("rows", products, dim=-2), numpyro.plate("weeks", weeks, dim=-1), mask(mask=present):
        numpyro.sample("units", dist.Poisson(jnp.exp(jnp.clip(eta, *CLIP))), obs=units)


# Each form of the model, and what it takes of a panel.
MODELS = {
    "published": (published_model, Panel.published_arguments),
    "dense": (dense_model, Panel.dense_arguments),
}


def published_guide(model: Callable[..., None] = published_model) -> AutoNormal:
    """Independent normals; locations start uniform in (-2, 2), scales at 0.1."""
    return AutoNormal(model, init_scale=0.1)


def published_optimizer() -> optax.GradientTransformation:
    """AdamW with the published learning rate, max(1e-5, 0.01 * 0.99^(t/1000))."""
    rate = optax.exponential_decay(init_value=0.01, transition_steps=1000, decay_rate=0.99, end_value=1e-5)
    return optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)


def published_objective(num_particles: int = PARTICLES) -> RenyiELBO:
    """The Renyi bound with alpha = 0."""
    return RenyiELBO(alpha=0, num_particles=num_particles)


def published_svi(particles: int = PARTICLES, model: Callable[..., None] = published_model) -> SVI:
    """Stochastic variational inference on the Renyi bound with alpha = 0."""
    return SVI(model, published_guide(model), published_optimizer(), published_objective(particles))


def fixed_point(panel: Panel) -> dict[str, np.ndarray]:
    """A point near the data at which log joints are compared, in natural values.

    Made from the panel alone: an elasticity near -1.5, and each product's effect
    such that its mean log rate is the log of its mean sales, plus waves that make
    every coordinate differ.
    """
    rows = np.bincount(panel.product_idx)
    mean_units = np.bincount(panel.product_idx, weights=panel.units) / rows
    mean_log_price = np.bincount(panel.product_idx, weights=panel.log_price) / rows
    product = np.arange(len(panel.products))
    product_a = -1.5 + 0.1 * np.sin(product)
    return {
        "global_a": np.asarray(-1.6),
        "category_a": -1.5 + 0.1 * np.cos(np.arange(len(panel.categories))),
        "product_a": product_a,
        "product_effect": np.log(mean_units + 0.5) - product_a * mean_log_price + 0.05 * np.cos(product),
        "time_cat_effects": 0.1 * np.sin(np.arange(panel.sizes()["time_cats"])),
    }


def comparison_points(panel: Panel) -> list[dict[str, np.ndarray]]:
    """Points at which two forms of the model are compared: near the data, with rows beyond both clip bounds, and far off."""
    near = fixed_point(panel)
    waves = 20.0 * np.sin(np.arange(len(panel.products)))
    random = np.random.default_rng(1)
    far = [{name: random.uniform(-2.0, 2.0, np.shape(value)) for name, value in near.items()} for _ in range(2)]
    return [near, near | {"product_effect": near["product_effect"] + waves}, *far]
