"""One NumPyro side of scripts/compare_peers.py on a panel file, in a process of its own, because JAX's precision is global to a process.

    peers_numpyro.py svi PANEL --coordinates orthogonal --iterations 30000 --posterior FILE
    peers_numpyro.py coordinates PANEL --point FILE

Prints a JSON object: what was found, or how long it took. The clock of svi starts after compilation and stops when the device is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pandas as pd
from numpyro.infer import Trace_ELBO
from numpyro.infer.util import potential_energy

import orthogonal_model as orthogonal
import published_model as published

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers/numpyro"))
import numpyro_svi  # noqa: E402

Answer = dict[str, Any]
Point = dict[str, jax.Array]


def run_svi(panel: published.Panel, options: argparse.Namespace) -> Answer:
    """All iterations of SVI, compilation told apart; writes the posterior."""
    optimizer = published.published_optimizer() if options.decay_over is None else decayed_optimizer(options.decay_over)
    objective = Trace_ELBO if options.objective == "elbo" else published.published_objective
    start = time.perf_counter()
    svi = numpyro_svi.CompiledSvi(
        panel, options.form, options.coordinates, objective(num_particles=published.PARTICLES), optimizer, options.seed
    )
    compiled = time.perf_counter()
    left = options.iterations
    while left > 0:
        left -= len(svi.advance(min(left, numpyro_svi.MOST_ITERATIONS)))
    seconds = time.perf_counter() - compiled
    write_posterior(options.posterior, panel, *svi.natural_moments())
    return {"compile_seconds": compiled - start, "seconds": seconds}


def decayed_optimizer(iterations: int) -> optax.GradientTransformation:
    """The published AdamW, but its learning rate falls from 0.01 to 1e-5 over so many iterations."""
    rate = optax.exponential_decay(init_value=0.01, transition_steps=iterations, decay_rate=1e-3, end_value=1e-5)
    return optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)


def write_posterior(file: Path, panel: published.Panel, mean: Answer, sd: Answer) -> None:
    """Means and sds of the natural parameters, in the columns of Infermark's posterior.csv."""
    keys = {"global_a": [""], "category_a": panel.categories, "product_a": panel.products, "product_effect": panel.products}
    keys["time_cat_effects"] = [f"{category}@{week}" for category in panel.categories for week in panel.weeks]
    tables = [
        pd.DataFrame({"site": site, "key": keys[site], "mean": np.ravel(mean[site]), "sd": np.ravel(sd[site])})
        for site in keys
    ]
    pd.concat(tables).to_csv(file, index=False)


def as_arrays(point: dict[str, np.ndarray]) -> Point:
    """A point of the panel in JAX's active precision."""
    return {name: jax.numpy.asarray(value) for name, value in point.items()}


def compare_coordinates(panel: published.Panel, point_file: Path) -> Answer:
    """How far the forms in orthogonal coordinates are from the published code, in each coordinate's log joint and gradient.

    At points near the data: the published log joint at the natural parameters, and half ln T a category that the
    coordinates differ by; gradients are compared in the orthogonal coordinates. Writes the natural log joint and gradient at
    the first point's natural parameters, for the other side to be held against.
    """
    gap = 0.5 * len(panel.categories) * np.log(len(panel.weeks))
    arguments = panel.published_arguments()

    def through_natural(z: Point) -> jax.Array:
        natural = orthogonal.natural_values(z, panel)
        return potential_energy(published.published_model, (), arguments, natural) - gap

    start, draw = orthogonal.start_values(panel), np.random.default_rng(1)
    points = [
        as_arrays({name: value + size * draw.normal(size=np.shape(value)) for name, value in start.items()})
        for size in (0.0, 0.05, 0.2)
    ]
    expected = [jax.jit(jax.value_and_grad(through_natural))(point) for point in points]
    log_joint, gradient = [], []
    for model, arguments_of in orthogonal.ORTHOGONAL_MODELS.values():
        of_form = arguments_of(panel)
        program = jax.jit(jax.value_and_grad(lambda z: potential_energy(model, (), of_form, z)))  # noqa: B023, called at once
        for point, (value, by_site) in zip(points, expected, strict=True):
            our_value, ours = program(point)
            log_joint.append(abs(float(our_value) - float(value)) / abs(float(value)))
            flat = [np.concatenate([np.ravel(sites[name]) for name in by_site]) for sites in (ours, by_site)]
            gradient.append(float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])))
    natural = orthogonal.natural_values(points[0], panel)
    model, arguments_of = published.MODELS["published"]
    program = jax.jit(jax.value_and_grad(lambda point: potential_energy(model, (), arguments_of(panel), point)))
    value, by_site = program(natural)
    record = {
        "point": {name: np.asarray(site).tolist() for name, site in natural.items()},
        "log_joint": -float(value),
        "grad": {name: (-np.asarray(site)).tolist() for name, site in by_site.items()},
    }
    point_file.write_text(json.dumps(record))
    # np.max, unlike max, lets a NaN through to the comparison with the tolerance.
    return {"log_joint_relative_error": float(np.max(log_joint)), "gradient_relative_error": float(np.max(gradient))}


def main() -> None:
    """Runs one side, or compares the coordinates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("method", choices=["svi", "coordinates"])
    parser.add_argument("panel", type=Path)
    parser.add_argument("--point", type=Path, help="coordinates: where the point compared at is written")
    parser.add_argument("--form", choices=list(published.MODELS), default="published", help="svi: of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=1, help="svi: how many (1)")
    parser.add_argument("--coordinates", choices=["published", "orthogonal"], default="published", help="svi: of the guide")
    parser.add_argument("--objective", choices=["renyi", "elbo"], default="renyi", help="svi: what is maximized")
    parser.add_argument("--precision", choices=["f32", "f64"], default="f32", help="svi: of everything")
    parser.add_argument("--decay-over", type=int, metavar="N", help="svi: its rate falls to 1e-5 over N iterations")
    parser.add_argument("--posterior", type=Path, help="svi: CSV of means and sds")
    options = parser.parse_args()
    needed = options.posterior if options.method == "svi" else options.point
    if needed is None:
        parser.error("svi needs --posterior, coordinates needs --point")
    numpyro_svi.choose_device("cpu")
    jax.config.update("jax_enable_x64", options.method == "coordinates" or options.precision == "f64")
    panel = published.read_panel(options.panel)
    print(json.dumps(run_svi(panel, options) if options.method == "svi" else compare_coordinates(panel, options.point)))


if __name__ == "__main__":
    main()
