"""Holds the NumPyro side of the comparison against the recorded reference vectors.

    data=crates/test-support/data
    "$(scripts/python_env.sh)" scripts/check_published_model.py $data/vectors.json $data/panel.csv

Checks, in float64, the log joint and gradient of the published model and of its
dense form at each recorded point, and the Renyi losses, gradients and parameters
of the recorded optimizer steps with the recorded noise put in the guide's place.
Exits 1 on a disagreement.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.scipy.special import logsumexp  # noqa: E402
from numpyro import handlers  # noqa: E402
from numpyro.infer.util import potential_energy  # noqa: E402

from published_model import (  # noqa: E402
    MODELS,
    PARTICLES,
    Panel,
    published_model,
    published_optimizer,
    published_svi,
    read_panel,
)

# Both sides are float64 NumPyro; what differs is the order in which XLA sums,
# about 1e-13 of the largest term, and what 12 optimizer steps make of it.
TOLERANCE = 1e-10

Params = dict[str, jax.Array]


def as_arrays(values: dict[str, Any]) -> Params:
    """Lists and numbers from JSON as float64 arrays."""
    return {name: jnp.asarray(value, dtype=jnp.float64) for name, value in values.items()}


def distance(ours: Params, theirs: Params) -> float:
    """The norm of the difference, all sites together, relative to the norm."""
    squares = [(jnp.sum((ours[name] - theirs[name]) ** 2), jnp.sum(theirs[name] ** 2)) for name in theirs]
    return float(jnp.sqrt(sum(s[0] for s in squares) / sum(s[1] for s in squares)))


def log_joint_errors(panel: Panel, form: str, points: list[dict[str, Any]]) -> list[float]:
    """The larger relative error of log joint and gradient at each point."""
    model, arguments_of = MODELS[form]
    arguments = arguments_of(panel)

    def log_joint(z: Params) -> jax.Array:
        return -potential_energy(model, (), arguments, z)

    errors = []
    for point in points:
        value, gradient = jax.value_and_grad(log_joint)(as_arrays(point["z"]))
        errors.append(abs(float(value) / point["log_joint"] - 1.0))
        errors.append(distance(gradient, as_arrays(point["grad"])))
    return errors


def trajectory_errors(panel: Panel, recorded: dict[str, Any]) -> list[float]:
    """Relative errors of loss, gradient and parameters at each recorded step."""
    arguments = panel.published_arguments()
    svi = published_svi(PARTICLES)
    svi.init(jax.random.key(0), **arguments)

    def loss(unconstrained: Params, noise: list[Params]) -> jax.Array:
        params = svi.constrain_fn(unconstrained)
        log_weights = []
        for eps in noise:
            z = {s: params[f"{s}_auto_loc"] + params[f"{s}_auto_scale"] * eps[s] for s in eps}
            guide = handlers.substitute(svi.guide, data=z)
            particle = svi.loss._single_particle_elbo(published_model, guide, params, (), arguments, jax.random.key(0))
            log_weights.append(particle[0])
        return -(logsumexp(jnp.stack(log_weights)) - jnp.log(len(noise)))

    optimizer = published_optimizer()
    params = as_arrays(recorded["init_unconstrained"])
    state = optimizer.init(params)
    errors = []
    step_of = jax.jit(jax.value_and_grad(loss))
    for step in recorded["steps"]:
        value, gradient = step_of(params, [as_arrays(eps) for eps in step["eps"]])
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        errors.append(abs(float(value) / step["loss"] - 1.0))
        # Every step's loss is recorded, but not every step's arrays.
        for ours, name in ((gradient, "grad"), (params, "params_after")):
            if name in step:
                errors.append(distance(ours, as_arrays(step[name])))
    return errors


def main() -> int:
    """Runs the checks and prints the largest error of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("vectors", type=Path, help="the recorded reference vectors, vectors.json")
    parser.add_argument("panel", type=Path, help="the panel they were recorded on")
    options = parser.parse_args()
    vectors = json.loads(options.vectors.read_text())
    panel = read_panel(options.panel)
    checks = {
        "log joint and gradient": log_joint_errors(panel, "published", vectors["centered_log_joint"]),
        "log joint and gradient, dense form": log_joint_errors(panel, "dense", vectors["centered_log_joint"]),
        "Renyi loss, gradient and AdamW step": trajectory_errors(panel, vectors["svi"]["centered"]),
    }
    worst = 0.0
    for name, errors in checks.items():
        # np.max, unlike max, lets a NaN through to the comparison below.
        print(f"{name}: largest relative error {np.max(errors):.1e} of {len(errors)} (tolerance {TOLERANCE:.0e})")
        worst = np.max([worst, np.max(errors)])
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
