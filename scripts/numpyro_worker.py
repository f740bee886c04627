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
from numpyro.infer import NUTS
from numpyro.infer.util import potential_energy

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


def start_svi(panel: published.Panel, form: str, seed: int) -> tuple[Answer, Advance]:
    """The published SVI; an iteration is one optimizer step on the full panel."""
    model, arguments_of = published.MODELS[form]
    svi, arguments = published.published_svi(model=model), arguments_of(panel)
    state = svi.init(jax.random.PRNGKey(seed), **arguments)

    # As SVI.run does, the panel is captured as a constant, which lets XLA compute
    # ln y! once; a loop on the device is faster than one dispatch an iteration.
    def steps(state: Any, iterations: jax.Array) -> Any:
        def step(_: Any, carry: Any) -> Any:
            return svi.update(carry[0], **arguments)

        return jax.lax.fori_loop(0, iterations, step, (state, jax.numpy.zeros(())))

    compile_seconds, program = timed(lambda: jax.jit(steps).lower(state, 1).compile())

    def advance(iterations: int) -> Answer:
        nonlocal state
        seconds, (state, loss) = timed(lambda: program(state, iterations))
        return {"seconds": seconds, "loss": float(loss)}

    return {"compile_seconds": compile_seconds, "particles": published.PARTICLES}, advance


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
    parser.add_argument("method", choices=["svi", "gradient", "agreement", "nuts"])
    parser.add_argument("panel", type=Path)
    parser.add_argument("--form", choices=list(published.MODELS), default="published", help="svi, gradient: of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--point", type=Path, help="gradient: where the point compared at is written")
    parser.add_argument("--warmup", type=int, default=1000, help="nuts: transitions that adapt")
    parser.add_argument("--device", default="cpu", help="cpu (the default), gpu, or gpu:1 for the second one")
    options = parser.parse_args()

    device = choose_device(options.device)
    jax.config.update("jax_enable_x64", options.method != "svi")

    start = time.perf_counter()
    panel = published.read_panel(options.panel)
    read_seconds = time.perf_counter() - start
    if options.method == "svi":
        setup, advance = start_svi(panel, options.form, options.seed)
    elif options.method == "gradient":
        setup, advance = start_gradient(panel, options.form, options.point)
    elif options.method == "agreement":
        setup, advance = start_agreement(panel)
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
            "precision": "f32" if options.method == "svi" else "f64",
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
