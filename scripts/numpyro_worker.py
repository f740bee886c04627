"""Runs one NumPyro method on one panel, a piece at a time, for the comparison.

A process of its own, because JAX's precision is global to a process and because
it must keep its compiled program while the other side takes its turn. It speaks
JSON, one object a line: on stdout first what setting up took, then one answer
to each request ``{"iterations": n}`` read from stdin; it ends when stdin does.
The protocol's clock starts after compilation and stops when the device is done.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pandas as pd
from numpyro.infer import NUTS, SVI, Trace_ELBO
from numpyro.infer.util import potential_energy

import orthogonal_model as orthogonal
import published_model as published

Answer = dict[str, Any]
Advance = Callable[[int], Answer]
Point = dict[str, jax.Array]
Potential = Callable[[Point], tuple[jax.Array, Point]]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until the result is ready on the device, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def choose_device(name: str) -> jax.Device:
    """Makes `cpu`, `gpu` or `gpu:1` the device that JAX works on; ends with a word where there is no such GPU."""
    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return jax.devices()[0]
    # The card is shared with the other side, which takes its turn while this one keeps what it has.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        gpus = jax.devices("gpu")
    except RuntimeError:
        gpus = []
    index = int(name.partition(":")[2] or 0)
    if index >= len(gpus):
        here = ", ".join(str(device) for device in jax.devices())
        sys.exit(f"JAX {jax.__version__} has no {name}; its devices: {here}")
    jax.config.update("jax_default_device", gpus[index])
    return gpus[index]


def start_svi(panel: published.Panel, options: argparse.Namespace) -> tuple[Answer, Advance]:
    """SVI with an AutoNormal guide; an iteration is one optimizer step on the full panel.

    In the published coordinates it is the published one, from the published start; in the orthogonal ones the
    guide starts near the data with a small scale.
    """
    in_orthogonal = options.coordinates == "orthogonal"
    model, arguments_of = (orthogonal.ORTHOGONAL_MODELS if in_orthogonal else published.MODELS)[options.form]
    arguments = arguments_of(panel)
    optimizer = published.published_optimizer() if options.decay_over is None else decayed_optimizer(options.decay_over)
    objective = Trace_ELBO if options.objective == "elbo" else published.published_objective
    svi = SVI(model, published.published_guide(model), optimizer, objective(num_particles=published.PARTICLES))
    start = {}
    if in_orthogonal:
        loc = orthogonal.start_values(panel)
        start = {f"{name}_auto_loc": jax.numpy.asarray(value) for name, value in loc.items()}
        scale = orthogonal.START_SCALE
        start |= {f"{name}_auto_scale": jax.numpy.full(np.shape(value), scale) for name, value in loc.items()}
    state = svi.init(jax.random.PRNGKey(options.seed), **arguments, init_params=start)

    # As SVI.run does, the panel is captured as a constant, which lets XLA compute
    # ln y! once; a loop on the device is faster than one dispatch an iteration.
    def steps(state: Any, iterations: jax.Array) -> Any:
        def step(_: Any, carry: Any) -> Any:
            return svi.update(carry[0], **arguments)

        return jax.lax.fori_loop(0, iterations, step, (state, jax.numpy.zeros(())))

    compile_seconds, program = timed(lambda: jax.jit(steps).lower(state, 1).compile())

    def advance(iterations: int) -> Answer:
        nonlocal state
        before = time.process_time()
        seconds, (state, loss) = timed(lambda: program(state, iterations))
        answer = {"seconds": seconds, "cpu_seconds": time.process_time() - before, "loss": float(loss)}
        if options.posterior:
            write_posterior(options.posterior, panel, svi.get_params(state), in_orthogonal)
        return answer

    return {"compile_seconds": compile_seconds, "particles": published.PARTICLES}, advance


def decayed_optimizer(iterations: int) -> optax.GradientTransformation:
    """The published AdamW, but its learning rate falls from 0.01 to 1e-5 over so many iterations."""
    rate = optax.exponential_decay(init_value=0.01, transition_steps=iterations, decay_rate=1e-3, end_value=1e-5)
    return optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)


def write_posterior(file: Path, panel: published.Panel, params: dict[str, jax.Array], in_orthogonal: bool) -> None:
    """Means and sds of the natural parameters under the guide, in the columns of Infermark's posterior.csv."""
    names = {name.removesuffix("_auto_loc") for name in params if name.endswith("_auto_loc")}
    loc, sd = ({name: np.asarray(params[f"{name}_auto_{kind}"]) for name in names} for kind in ("loc", "scale"))
    mean, sd = orthogonal.natural_moments(loc, sd, panel) if in_orthogonal else (loc, sd)
    keys = {"global_a": [""], "category_a": panel.categories, "product_a": panel.products, "product_effect": panel.products}
    keys["time_cat_effects"] = [f"{category}@{week}" for category in panel.categories for week in panel.weeks]
    tables = [
        pd.DataFrame({"site": site, "key": keys[site], "mean": np.ravel(mean[site]), "sd": np.ravel(sd[site])})
        for site in keys
    ]
    pd.concat(tables).to_csv(file, index=False)


def compiled_potential(panel: published.Panel, form: str, point: Point) -> tuple[float, Potential]:
    """Minus the log joint of a form of the model, with its gradient, and the seconds that compiling took."""
    model, arguments_of = published.MODELS[form]
    arguments = arguments_of(panel)

    # The panel is captured as a constant, as in NumPyro's own NUTS; measured, a
    # third faster than passing it, since XLA then computes ln y! only once.
    def potential(point: Point) -> jax.Array:
        return potential_energy(model, (), arguments, point)

    program = jax.jit(jax.value_and_grad(potential))
    return timed(lambda: program.lower(point).compile())


def as_arrays(point: dict[str, np.ndarray]) -> Point:
    """A point of the panel in JAX's active precision."""
    return {name: jax.numpy.asarray(value) for name, value in point.items()}


def start_gradient(panel: published.Panel, form: str, point_file: Path | None) -> tuple[Answer, Advance]:
    """The log joint and its gradient; an iteration is one evaluation of both.

    Writes the point it starts from, and both values there, to `point_file`, if one
    is given, for the sides to be compared before any is timed.
    """
    point = as_arrays(published.fixed_point(panel))
    compile_seconds, compiled = compiled_potential(panel, form, point)
    value, gradient = compiled(point)
    if point_file:
        record = {
            "point": {name: np.asarray(site).tolist() for name, site in point.items()},
            "log_joint": -float(value),
            "grad": {name: (-np.asarray(site)).tolist() for name, site in gradient.items()},
        }
        point_file.write_text(json.dumps(record))

    def advance(iterations: int) -> Answer:
        def evaluations() -> Any:
            for _ in range(iterations):
                result = jax.block_until_ready(compiled(point))
            return result

        return {"seconds": timed(evaluations)[0]}

    return {"compile_seconds": compile_seconds, "particles": 1}, advance


def start_agreement(panel: published.Panel) -> tuple[Answer, Advance]:
    """How far the dense form is from the published one: the log joint and gradient at each point they are compared at.

    Reports the relative error of the log joint, and of the gradient over all sites together; there is nothing to iterate.
    """
    points = [as_arrays(point) for point in published.comparison_points(panel)]
    found = {}
    for form in published.MODELS:
        _, compiled = compiled_potential(panel, form, points[0])
        found[form] = [compiled(point) for point in points]
        del compiled
    log_joint, gradient = [], []
    for (value, by_site), (dense_value, dense_by_site) in zip(found["published"], found["dense"], strict=True):
        log_joint.append(abs(float(dense_value) - float(value)) / abs(float(value)))
        ours, theirs = (np.concatenate([np.ravel(sites[name]) for name in by_site]) for sites in (dense_by_site, by_site))
        gradient.append(float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)))
    # np.max, unlike max, lets a NaN through to the comparison with the tolerance.
    errors = {"log_joint_relative_error": float(np.max(log_joint)), "gradient_relative_error": float(np.max(gradient))}
    return errors | {"points": len(points), "particles": 1}, lambda _: {}


def start_coordinates(panel: published.Panel, point_file: Path | None) -> tuple[Answer, Advance]:
    """How far the forms in orthogonal coordinates are from the published code, in each coordinate's log joint and gradient.

    At points near the data: the published log joint at the natural parameters, and half ln T a category that the
    coordinates differ by; gradients are compared in the orthogonal coordinates. There is nothing to iterate.
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
    if point_file:
        # The natural log joint and gradient at the first point's natural parameters, for the other side to be held against.
        natural = orthogonal.natural_values(points[0], panel)
        value, by_site = compiled_potential(panel, "published", natural)[1](natural)
        record = {
            "point": {name: np.asarray(site).tolist() for name, site in natural.items()},
            "log_joint": -float(value),
            "grad": {name: (-np.asarray(site)).tolist() for name, site in by_site.items()},
        }
        point_file.write_text(json.dumps(record))
    errors = {"log_joint_relative_error": float(np.max(log_joint)), "gradient_relative_error": float(np.max(gradient))}
    return errors | {"points": len(points), "particles": 1}, lambda _: {}


def start_nuts(panel: published.Panel, seed: int, warmup: int) -> tuple[Answer, Advance]:
    """NUTS with a diagonal metric; an iteration is one transition.

    Step size and metric adapt over the first `warmup` transitions. Answers carry
    the seconds and leapfrog steps of each transition.
    """
    arguments = panel.published_arguments()
    kernel = NUTS(published.published_model)
    start = time.perf_counter()
    state = kernel.init(jax.random.PRNGKey(seed), warmup, None, (), arguments)
    init_seconds = time.perf_counter() - start
    compile_seconds, program = timed(
        lambda: jax.jit(lambda state: kernel.sample(state, (), arguments)).lower(state).compile()
    )

    def advance(iterations: int) -> Answer:
        nonlocal state
        seconds, leapfrogs, divergences = [], [], 0
        for _ in range(iterations):
            elapsed, state = timed(lambda: program(state))  # noqa: B023, called at once
            seconds.append(elapsed)
            leapfrogs.append(int(state.num_steps))
            divergences += int(state.diverging)
        return {
            "seconds": sum(seconds),
            "seconds_per_transition": seconds,
            "leapfrog_steps": leapfrogs,
            "divergences": divergences,
        }

    return {"compile_seconds": compile_seconds, "init_seconds": init_seconds, "particles": 1}, advance


def main() -> None:
    """Sets the method up, then answers requests until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("method", choices=["svi", "gradient", "agreement", "coordinates", "nuts"])
    parser.add_argument("panel", type=Path)
    parser.add_argument("--form", choices=list(published.MODELS), default="published", help="svi, gradient: of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--point", type=Path, help="gradient, coordinates: where the point compared at is written")
    parser.add_argument("--coordinates", choices=["published", "orthogonal"], default="published", help="svi: of the guide")
    parser.add_argument("--objective", choices=["renyi", "elbo"], default="renyi", help="svi: what is maximized")
    parser.add_argument("--precision", choices=["f32", "f64"], default="f32", help="svi: of everything")
    parser.add_argument("--decay-over", type=int, metavar="N", help="svi: its rate falls to 1e-5 over N iterations")
    parser.add_argument("--posterior", type=Path, help="svi: CSV of means and sds, written after every answer")
    parser.add_argument("--warmup", type=int, default=1000, help="nuts: transitions that adapt")
    parser.add_argument("--device", default="cpu", help="cpu (the default), gpu, or gpu:1 for the second one")
    options = parser.parse_args()

    device = choose_device(options.device)
    precision = options.precision if options.method == "svi" else "f64"
    jax.config.update("jax_enable_x64", precision == "f64")

    start = time.perf_counter()
    panel = published.read_panel(options.panel)
    read_seconds = time.perf_counter() - start
    if options.method == "svi":
        setup, advance = start_svi(panel, options)
    elif options.method == "gradient":
        setup, advance = start_gradient(panel, options.form, options.point)
    elif options.method == "agreement":
        setup, advance = start_agreement(panel)
    elif options.method == "coordinates":
        setup, advance = start_coordinates(panel, options.point)
    else:
        setup, advance = start_nuts(panel, options.seed, options.warmup)

    def reply(answer: Answer) -> None:
        print(json.dumps(answer), flush=True)

    reply(
        setup
        | {
            "read_seconds": read_seconds,
            "rows": panel.rows,
            "products": len(panel.products),
            "precision": precision,
            "device": device.device_kind,
            "jax_devices": [str(here) for here in jax.devices()],
        }
    )
    for line in sys.stdin:
        answer = advance(json.loads(line)["iterations"])
        # Kilobytes on Linux.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        reply(answer | {"peak_memory_bytes": peak})


if __name__ == "__main__":
    main()
