"""Writes the reference vectors of the orthogonal coordinates, made with NumPyro in float64.

    data=crates/test-support/data
    "$(scripts/python_env.sh)" scripts/orthogonal_vectors.py $data/panel.csv $data/vectors_orthogonal.json
    "$(scripts/python_env.sh)" scripts/orthogonal_vectors.py $data/panel.csv $data/vectors_orthogonal.json --check

With --check nothing is written: the file there is held against what this makes. Exits
1 on a disagreement. Before anything is written, the log joint in these coordinates is
held against that of the published model at the same natural parameters, and every
loss and gradient that NumPyro's objective returned against a second evaluation with
the recorded noise put in its guide's place.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
from jax import random  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from jax.scipy.special import logsumexp  # noqa: E402
from numpyro import handlers, optim  # noqa: E402
from numpyro.distributions.transforms import ZeroSumTransform  # noqa: E402
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO  # noqa: E402
from numpyro.infer.autoguide import AutoNormal  # noqa: E402
from numpyro.infer.elbo import get_importance_trace  # noqa: E402
from numpyro.infer.util import potential_energy  # noqa: E402

from orthogonal_model import (  # noqa: E402
    Sites,
    centres,
    natural_moments,
    natural_values,
    orthogonal_arguments,
    orthogonal_dense_arguments,
    orthogonal_dense_model,
    orthogonal_model,
    period_weights,
    start_values,
)
from published_model import CLIP, PARTICLES, Panel, published_model, published_optimizer, read_panel  # noqa: E402

STEPS = 12
# As in vectors.json: every step's noise and loss, the arrays of some.
STEPS_WITH_GRADIENT, STEPS_WITH_PARAMETERS = (0, 5), (0, 5, 11)
# Two evaluations in float64 that differ in the order of summation.
TOLERANCE = 1e-12
# Another processor's XLA sums in another order, and twelve steps pass that on.
CHECK_TOLERANCE = 1e-10
OBJECTIVES = {
    "renyi": RenyiELBO(alpha=0, num_particles=PARTICLES),
    "renyi_half": RenyiELBO(alpha=0.5, num_particles=PARTICLES),
    "elbo": Trace_ELBO(num_particles=PARTICLES),
}
NOTE = (
    "float64; log densities include every constant, the Jacobian is left out as in NumPyro's unconstrained potential; "
    "a site's arrays follow vectors.json, but product_effect holds the product's centred effect e'', and "
    "time_cat_effects, per category, the contrasts y_1 .. y_(T-1) and then the level l. With x = ln price: "
    "m = sum(y x) / (sum(y) + 1 / 9), omega = the period's share of the "
    "category's units (1/T where nothing was sold); s = isometric zero-sum transform of y; tau = l + s; w = sum_t omega s; "
    "effect = e'' - a m - l - w; eta = a (x - m) + e'' + s - w. Prior: y ~ Normal(0, 3), l ~ Normal(0, 3 / sqrt T), "
    "effect ~ Normal(0, 3): log_joint = natural log joint + C/2 ln T"
)


class Disagreement(Exception):
    """Two evaluations that must be equal are not; the message says which."""


def relative_error(ours: Any, theirs: Any) -> float:
    """The norm of the difference of two trees of arrays, relative to the norm of the second."""
    a, b = ravel_pytree(ours)[0], ravel_pytree(theirs)[0]
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def require_equal(what: str, ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    """Raises `Disagreement` unless the relative error is within the tolerance; NaN is not."""
    error = relative_error(ours, theirs)
    if not error <= tolerance:
        raise Disagreement(f"{what}: relative error {error:.1e} (tolerance {tolerance:.0e})")


def in_layout(sites: Sites) -> Sites:
    """NumPyro's sites under the names and in the order of the natural layout."""
    level = jnp.asarray(sites["category_level"])[:, None]
    latents = jnp.concatenate([sites["period_contrasts"], level], axis=1) if "period_contrasts" in sites else level
    named = {name: sites[name] for name in ("global_a", "category_a", "product_a")}
    return named | {"product_effect": sites["centred_effect"], "time_cat_effects": latents.ravel()}


def params_in_layout(params: Sites) -> Sites:
    """The guide's parameters likewise: SITE_auto_loc and SITE_auto_scale."""
    found = {}
    for kind in ("loc", "scale"):
        suffix = f"_auto_{kind}"
        sites = {name.removesuffix(suffix): value for name, value in params.items() if name.endswith(suffix)}
        found |= {f"{name}{suffix}": value for name, value in in_layout(sites).items()}
    return found


def as_lists(sites: Sites) -> Sites:
    """Arrays as numbers and lists for JSON, sites by name."""
    return {name: np.asarray(sites[name]).tolist() for name in sorted(sites)}


def moments(panel: Panel, loc: Sites, sd: Sites) -> Sites:
    """Mean and sd of every natural parameter under independent normals: J diag(sd^2) J' by dense algebra."""
    flat, unravel = ravel_pytree(loc)

    def natural(z: jax.Array) -> jax.Array:
        return ravel_pytree(natural_values(unravel(z), panel))[0]

    jacobian = jax.jacfwd(natural)(flat)
    require_equal("the map to natural parameters is linear", jacobian @ flat, natural(flat))
    covariance = jacobian @ jnp.diag(ravel_pytree(sd)[0] ** 2) @ jacobian.T
    back = ravel_pytree(natural_values(loc, panel))[1]
    found = back(natural(flat)), back(jnp.sqrt(jnp.diag(covariance)))
    for what, closed, dense in zip(("means", "sds"), natural_moments(loc, sd, panel), found, strict=True):
        require_equal(f"natural {what} in closed form", closed, dense)
    return {"mean": as_lists(found[0]), "sd": as_lists(found[1])}


def log_joints(panel: Panel, points: list[Sites]) -> list[Sites]:
    """Log joint and gradient at each point, both forms of the model and the natural model held against each other."""
    arguments, dense, natural = orthogonal_arguments(panel), orthogonal_dense_arguments(panel), panel.published_arguments()
    gap = 0.5 * len(panel.categories) * np.log(len(panel.weeks))

    def constrained(z: Sites) -> Sites:
        return z | ({"period_contrasts": ZeroSumTransform(1)(z["period_contrasts"])} if "period_contrasts" in z else {})

    def compiled(log_joint: Callable[[Sites], jax.Array]) -> Callable[[Sites], tuple[jax.Array, Sites]]:
        return jax.jit(jax.value_and_grad(log_joint))

    by_row = compiled(lambda z: -potential_energy(orthogonal_model, (), arguments, z))
    by_grid = compiled(lambda z: -potential_energy(orthogonal_dense_model, (), dense, z))
    through_natural = compiled(
        lambda z: gap - potential_energy(published_model, (), natural, natural_values(z, panel))
    )
    records = []
    for z in points:
        value, gradient = by_row(z)
        on_grid = by_grid(z)
        require_equal("dense form, log joint", on_grid[0], value)
        require_equal("dense form, gradient", on_grid[1], gradient)
        traced = handlers.trace(handlers.substitute(orthogonal_model, data=constrained(z))).get_trace(**arguments)
        densities = [jnp.sum(site["fn"].log_prob(site["value"])) for site in traced.values() if site["type"] == "sample"]
        require_equal("sum of the sites' log densities", sum(densities), value)
        values, other_way = natural_values(z, panel), through_natural(z)
        require_equal("natural log joint + C/2 ln T", other_way[0], value)
        require_equal("gradient through the natural parameters", other_way[1], gradient, 1e-11)
        records.append(
            {
                "z": as_lists(in_layout(z)),
                "log_joint": float(value),
                "grad": as_lists(in_layout(gradient)),
                "natural": as_lists(values),
            }
        )
    return records


def points_of(panel: Panel) -> list[Sites]:
    """Near the data, with both clip bounds active, and twice away from both."""
    near = {name: jnp.asarray(value) for name, value in start_values(panel).items()}
    draw = np.random.default_rng(20)

    def moved(size: float) -> Sites:
        return {name: value + size * draw.normal(size=value.shape) for name, value in near.items()}

    # A few products far up or down; one row beyond the upper bound is already 5e8 of the log joint.
    waves = jnp.zeros(len(panel.products)).at[jnp.array([3, 17, 30])].set(jnp.array([20.5, -9.0, -12.0]))
    clipped = moved(0.3)
    return [moved(0.1), moved(0.5), moved(1.0), clipped | {"centred_effect": clipped["centred_effect"] + waves}]


def clipped_rows(panel: Panel, natural: Sites) -> tuple[int, int]:
    """How many rows lie below the lower and above the upper clip bound."""
    values = {name: np.asarray(value) for name, value in natural.items()}
    eta = values["product_a"][panel.product_idx] * panel.log_price
    eta += values["product_effect"][panel.product_idx] + values["time_cat_effects"][panel.time_cat_idx]
    return int((eta < CLIP[0]).sum()), int((eta > CLIP[1]).sum())


class Recorder:
    """NumPyro's SVI on one panel, its noise made visible."""

    def __init__(self, panel: Panel, objective: str) -> None:
        self.panel, self.arguments = panel, orthogonal_arguments(panel)
        self.objective = OBJECTIVES[objective]
        guide = AutoNormal(orthogonal_model, init_scale=0.1)
        self.svi = SVI(orthogonal_model, guide, published_optimizer(), self.objective)
        self.svi.init(random.key(0), **self.arguments)  # makes the guide's prototype
        self.drawn = jax.jit(jax.value_and_grad(self.drawn_loss, argnums=1))
        self.with_noise = jax.jit(jax.value_and_grad(self.loss_with, has_aux=True))

    def drawn_loss(self, step_key: jax.Array, unconstrained: Sites) -> jax.Array:
        """The objective as NumPyro computes it, noise included."""
        params = self.svi.constrain_fn(unconstrained)
        return self.objective.loss(step_key, params, orthogonal_model, self.svi.guide, **self.arguments)

    def noise(self, step_key: jax.Array, params: Sites) -> list[Sites]:
        """The standard normals that the guide draws under a step's key, one dictionary a particle."""
        if isinstance(self.objective, RenyiELBO):
            _, step_key = random.split(step_key)
        drawn = []
        for key in random.split(step_key, PARTICLES):
            guide_key = random.split(key)[1]
            trace = handlers.trace(handlers.seed(handlers.substitute(self.svi.guide, params), guide_key))
            values = {n: s["value"] for n, s in trace.get_trace(**self.arguments).items() if s["type"] == "sample"}
            values["period_contrasts"] = ZeroSumTransform(1).inv(values["period_contrasts"])
            drawn.append({n: (z - params[f"{n}_auto_loc"]) / params[f"{n}_auto_scale"] for n, z in values.items()})
        return drawn

    def log_weights(self, unconstrained: Sites, noise: list[Sites]) -> jax.Array:
        """ln p(y, z) - ln q(z) of each particle, with the noise given."""
        params = self.svi.constrain_fn(unconstrained)
        log_weights = []
        for eps in noise:
            z = {n: params[f"{n}_auto_loc"] + params[f"{n}_auto_scale"] * value for n, value in eps.items()}
            z["period_contrasts"] = ZeroSumTransform(1)(z["period_contrasts"])
            guide = handlers.seed(handlers.substitute(self.svi.guide, data=z), random.key(0))
            model = handlers.seed(orthogonal_model, random.key(0))
            traces = get_importance_trace(model, guide, (), self.arguments, params)
            density = [sum(jnp.sum(s["log_prob"]) for s in t.values() if s["type"] == "sample") for t in traces]
            log_weights.append(density[0] - density[1])
        return jnp.stack(log_weights)

    def loss_with(self, unconstrained: Sites, noise: list[Sites]) -> tuple[jax.Array, jax.Array]:
        """The objective once more, with the noise given, and the log weights that it is made of."""
        weights = self.log_weights(unconstrained, noise)
        if not isinstance(self.objective, RenyiELBO):
            return -jnp.mean(weights), weights
        order = 1.0 - self.objective.alpha
        return -(logsumexp(order * weights) - jnp.log(PARTICLES)) / order, weights

    def evaluate(self, step_key: jax.Array, unconstrained: Sites) -> tuple[Sites, Any, Any]:
        """One loss and gradient as NumPyro draws and computes them, with the noise; checked against `loss_with`."""

        loss, gradient = self.drawn(step_key, unconstrained)
        noise = self.noise(step_key, self.svi.constrain_fn(unconstrained))
        (again, log_weights), gradient_again = self.with_noise(unconstrained, noise)
        require_equal("loss with the recorded noise", again, loss)
        require_equal("gradient with the recorded noise", gradient_again, gradient, 1e-11)
        record = {"loss": float(loss), "log_weights": log_weights.tolist()}
        record |= {"eps": [as_lists(in_layout(eps)) for eps in noise]}
        return record, loss, gradient

    def moments(self, unconstrained: Sites) -> Sites:
        """Of the natural parameters, under the guide."""
        params = self.svi.constrain_fn(unconstrained)
        sites = start_values(self.panel)
        loc, sd = ({n: params[f"{n}_auto_{kind}"] for n in sites} for kind in ("loc", "scale"))
        return moments(self.panel, loc, sd)


def start_guide(panel: Panel) -> Sites:
    """Unconstrained parameters near the best guide, where no particle outweighs the others; to three decimals.

    2,000 steps of Adam on the ELBO from `start_values`, then a little noise, so that no gradient is near zero.
    """
    loc = {f"{name}_auto_loc": jnp.asarray(value) for name, value in start_values(panel).items()}
    guide = AutoNormal(orthogonal_model, init_scale=0.1)
    svi = SVI(orthogonal_model, guide, optim.Adam(0.01), OBJECTIVES["elbo"])
    arguments = orthogonal_arguments(panel)
    scale = {name.replace("_auto_loc", "_auto_scale"): jnp.full(value.shape, 0.1) for name, value in loc.items()}
    done = svi.run(random.key(3), 2000, **arguments, init_params=loc | scale, progress_bar=False)
    draw = np.random.default_rng(12)
    found = {}
    for name, value in sorted(svi.optim.get_params(done.state.optim_state).items()):
        size = 0.1 if name.endswith("_scale") else 0.02
        found[name] = jnp.asarray(np.round(value + size * draw.normal(size=value.shape), 3))
    return found


def objectives(panel: Panel, unconstrained: Sites) -> Sites:
    """Loss and gradient of each objective at a guide under noise of its own."""
    found = {}
    for number, (name, objective) in enumerate(OBJECTIVES.items()):
        recorder = Recorder(panel, name)
        record, _, gradient = recorder.evaluate(random.key(100 + number), unconstrained)
        alpha = objective.alpha if isinstance(objective, RenyiELBO) else None
        found[name] = {"alpha": alpha} | record | {"grad": as_lists(params_in_layout(gradient))}
    return {"guide_unconstrained": as_lists(params_in_layout(unconstrained)), "particles": PARTICLES} | found


def trajectory(panel: Panel, unconstrained: Sites) -> Sites:
    """Twelve steps of NumPyro's own SVI.update from a guide, in the form of vectors.json."""
    recorder = Recorder(panel, "renyi")
    svi = recorder.svi
    state = svi.init(random.key(1), **recorder.arguments, init_params=svi.constrain_fn(unconstrained))
    start = svi.optim.get_params(state.optim_state)
    update = jax.jit(lambda state: svi.update(state, **recorder.arguments))
    steps = []
    for number in range(STEPS):
        before, step_key = svi.optim.get_params(state.optim_state), random.split(state.rng_key)[1]
        record, loss, gradient = recorder.evaluate(step_key, before)
        state, updated_loss = update(state)
        require_equal("the loss of SVI.update", updated_loss, loss)
        if number in STEPS_WITH_GRADIENT:
            record["grad"] = as_lists(params_in_layout(gradient))
        if number in STEPS_WITH_PARAMETERS:
            record["params_after"] = as_lists(params_in_layout(svi.optim.get_params(state.optim_state)))
        steps.append(record)
    after = svi.optim.get_params(state.optim_state)
    return {
        "init_unconstrained": as_lists(params_in_layout(start)),
        "steps": steps,
        "natural_moments_before": recorder.moments(start),
        "natural_moments_after": recorder.moments(after),
    }


def without_sales(panel: Panel, product: int, category: int) -> Panel:
    """The panel with every unit of one product and of one category taken away."""
    gone = (panel.product_idx == product) | (panel.category_idx[panel.product_idx] == category)
    return dataclasses.replace(panel, units=np.where(gone, 0, panel.units))


def first_week(panel: Panel) -> Panel:
    """The rows of the first week alone, a panel of one period; every product must have that row."""
    kept = panel.time_cat_idx % len(panel.weeks) == 0
    products, product_idx = np.unique(panel.product_idx[kept], return_inverse=True)
    category_idx = panel.category_idx[products]
    if len(np.unique(category_idx)) < len(panel.categories):
        raise ValueError("a category has no row in the first week")
    return Panel(
        products=panel.products[products],
        categories=panel.categories,
        weeks=panel.weeks[:1],
        category_idx=category_idx,
        product_idx=product_idx.astype(np.int32),
        time_cat_idx=category_idx[product_idx].astype(np.int32),
        log_price=panel.log_price[kept],
        units=panel.units[kept],
    )


def vectors(panel: Panel) -> Sites:
    """Everything that the file holds."""
    points = points_of(panel)
    below, above = clipped_rows(panel, natural_values(points[-1], panel))
    if not (below and above):
        raise Disagreement(f"the last point clips {below} rows below and {above} above; both must be some")
    guide = start_guide(panel)
    unsold, single = without_sales(panel, 5, 3), first_week(panel)
    return {
        "note": NOTE,
        "made_with": {"numpyro": numpyro.__version__, "jax": jax.__version__},
        "centre": centres(panel).tolist(),
        "period_weights": period_weights(panel).tolist(),
        "orthogonal_log_joint": log_joints(panel, points),
        "objectives": objectives(panel, guide),
        "svi": {"particles": PARTICLES, "orthogonal": trajectory(panel, guide)},
        # Where the definitions need a case of their own.
        "without_sales": {
            "altered": "units are 0 for product 5 and for every product of category 3, counted from 0",
            "centre": centres(unsold).tolist(),
            "period_weights": period_weights(unsold).tolist(),
            "orthogonal_log_joint": log_joints(unsold, points_of(unsold)[:2]),
        },
        "one_period": {
            "altered": "the rows of the first week alone, and the products that have one",
            "products": single.products.tolist(),
            "centre": centres(single).tolist(),
            "orthogonal_log_joint": log_joints(single, points_of(single)[:2]),
        },
    }


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two JSON values differ by more than the tolerance; an array of numbers is compared by its norm."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return [line for name in ours for line in differences(ours[name], theirs[name], f"{path}/{name}")]
    lists = isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs)
    if lists and any(isinstance(value, (dict, list, str)) for value in ours):
        return [line for i, pair in enumerate(zip(ours, theirs, strict=True)) for line in differences(*pair, f"{path}/{i}")]
    numbers = all(type(value) in (int, float) for value in (ours, theirs))
    if lists or numbers:
        a, b = (np.asarray(value, dtype=np.float64) for value in (ours, theirs))
        error = np.linalg.norm(a - b) / max(np.linalg.norm(b), np.finfo(float).tiny)
        return [] if error <= CHECK_TOLERANCE else [f"{path}: relative difference {error:.1e}"]
    return [] if ours == theirs else [f"{path}: {str(ours)[:60]} and {str(theirs)[:60]}"]


def main() -> int:
    """Writes the file, or checks the one that is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("panel", type=Path, help="the panel of the reference vectors")
    parser.add_argument("vectors", type=Path, help="the file to write")
    parser.add_argument("--check", action="store_true", help="hold the file that is there against what this makes")
    options = parser.parse_args()
    try:
        made = vectors(read_panel(options.panel))
    except Disagreement as disagreement:
        print(f"nothing was written: {disagreement}", file=sys.stderr)
        return 1
    if options.check:
        found = differences(json.loads(options.vectors.read_text()), made)
        for line in found[:20]:
            print(line, file=sys.stderr)
        print(f"{options.vectors}: {len(found)} differences above {CHECK_TOLERANCE:.0e}")
        return 1 if found else 0
    options.vectors.write_text(json.dumps(made) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
