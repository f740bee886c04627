"""SVI of the published model in NumPyro, compiled, to be advanced in pieces."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import orthogonal_model as orthogonal
import published_model as published

# Losses that a piece has room for: as many iterations at most.
MOST_ITERATIONS = 1000


class NoSuchDevice(Exception):
    """JAX does not have the device; the message names those that it has."""

    # What the protocol calls this.
    reply = "unsupported"


def choose_device(name: str) -> jax.Device:
    """Makes `cpu`, `gpu`, `cuda` or `cuda:1` the device that JAX works on."""
    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return jax.devices()[0]
    # The card is shared with other programs, which take their turns while this one keeps what it has.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        gpus = jax.devices("gpu")
    except RuntimeError:
        gpus = []
    index = int(name.partition(":")[2] or 0)
    if index >= len(gpus):
        here = ", ".join(str(device) for device in jax.devices())
        raise NoSuchDevice(f"JAX {jax.__version__} has no {name}; its devices: {here}")
    jax.config.update("jax_default_device", gpus[index])
    return gpus[index]


class CompiledSvi:
    """SVI with an AutoNormal guide; an iteration is one optimizer step on the full panel.

    In the published coordinates it starts as published; in the orthogonal ones near the data, with a small scale.
    """

    def __init__(
        self, panel: published.Panel, form: str, coordinates: str, objective: Any, optimizer: optax.GradientTransformation, seed: int
    ) -> None:
        self.panel, self.in_orthogonal = panel, coordinates == "orthogonal"
        model, arguments_of = (orthogonal.ORTHOGONAL_MODELS if self.in_orthogonal else published.MODELS)[form]
        arguments = arguments_of(panel)
        self.svi = SVI(model, published.published_guide(model), optimizer, objective)
        start = {}
        if self.in_orthogonal:
            loc = orthogonal.start_values(panel)
            start = {f"{name}_auto_loc": jax.numpy.asarray(value) for name, value in loc.items()}
            scale = orthogonal.START_SCALE
            start |= {f"{name}_auto_scale": jax.numpy.full(np.shape(value), scale) for name, value in loc.items()}
        self.state = self.svi.init(jax.random.PRNGKey(seed), **arguments, init_params=start)

        # As SVI.run does, the panel is captured as a constant, which lets XLA compute
        # ln y! once; a loop on the device is faster than one dispatch an iteration.
        def steps(state: Any, iterations: jax.Array) -> Any:
            def step(index: jax.Array, carry: Any) -> Any:
                state, loss = self.svi.update(carry[0], **arguments)
                return state, carry[1].at[index].set(loss)

            return jax.lax.fori_loop(0, iterations, step, (state, jax.numpy.zeros(MOST_ITERATIONS)))

        self.program = jax.block_until_ready(jax.jit(steps).lower(self.state, 1).compile())

    def advance(self, iterations: int) -> np.ndarray:
        """The losses of so many iterations more, at most MOST_ITERATIONS; the device is done when it returns."""
        if not 0 < iterations <= MOST_ITERATIONS:
            raise ValueError(f"{iterations} iterations in a piece; 1 to {MOST_ITERATIONS}")
        self.state, losses = jax.block_until_ready(self.program(self.state, iterations))
        return np.asarray(losses[:iterations], dtype=np.float64)

    def natural_moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Means and sds of the natural parameters under the guide, by site."""
        params = self.svi.get_params(self.state)
        names = {name.removesuffix("_auto_loc") for name in params if name.endswith("_auto_loc")}
        loc, sd = ({name: np.asarray(params[f"{name}_auto_{kind}"]) for name in names} for kind in ("loc", "scale"))
        return orthogonal.natural_moments(loc, sd, self.panel) if self.in_orthogonal else (loc, sd)


def objective_of(settings: dict[str, Any], particles: int) -> Any:
    """NumPyro's objective of Infermark's settings: `{"kind": "renyi", "alpha": 0.0}` or `{"kind": "elbo"}`."""
    if settings["kind"] == "elbo" or settings["alpha"] == 1.0:
        return Trace_ELBO(num_particles=particles)
    return RenyiELBO(alpha=settings["alpha"], num_particles=particles)


def optimizer_of(settings: dict[str, float]) -> optax.GradientTransformation:
    """AdamW with Infermark's settings and schedule."""
    rate = optax.exponential_decay(
        init_value=settings["learning_rate"],
        transition_steps=settings["decay_iterations"],
        decay_rate=settings["decay_rate"],
        end_value=settings["learning_rate_floor"],
    )
    return optax.adamw(rate, b1=settings["b1"], b2=settings["b2"], eps=settings["eps"], weight_decay=settings["weight_decay"])
