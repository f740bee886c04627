"""NumPyro as a peer of `infermark bench`: a worker that speaks the protocol of peers/README.md.

    infermark bench --peer numpyro=peers/numpyro/worker.sh --peer "numpyro-dense=peers/numpyro/worker.sh --form dense"

A process of its own for each run, because JAX's precision is global to a process and because it keeps its compiled program
while others take their turns. Needs numpyro, optax, pandas and pyarrow: `scripts/python_env.sh` makes such an environment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROTOCOL_VERSION = 1
# The order of the natural parameters in a vector.
SITES = ("global_a", "category_a", "product_a", "product_effect", "time_cat_effects")
# Scatter-adds of single precision are compiled to retry loops on GPUs: https://github.com/jax-ml/jax/issues/38806
SLOW_SCATTER_FROM, SLOW_SCATTER_UNTIL = (0, 10, 2), (0, 11, 1)
Answer = dict[str, Any]


class Worker:
    """What one process holds: a panel once it is opened, SVI once it is started."""

    def __init__(self, form: str, platforms: str) -> None:
        self.form, self.platforms = form, platforms
        self.panel: Any = None
        self.log_joint_program: Any = None
        self.svi: Any = None

    def describe(self, protocol: int) -> Answer:
        """What this is, and where it runs."""
        del protocol  # whoever asks compares the versions
        import jax
        import jaxlib
        import numpyro

        devices = []
        if self.platforms != "gpu":
            devices.append({"id": {"kind": "cpu", "index": 0}, "name": cpu_model()})
        if self.platforms != "cpu":
            try:
                gpus = jax.devices("gpu")
            except RuntimeError:
                gpus = []
            devices += [{"id": {"kind": "cuda", "index": n}, "name": gpu.device_kind} for n, gpu in enumerate(gpus)]
        form = "" if self.form == "published" else f", {self.form} form"
        version = tuple(int(part) for part in jaxlib.__version__.split(".")[:3] if part.isdigit())
        slow = any(device["id"]["kind"] == "cuda" for device in devices) and SLOW_SCATTER_FROM <= version < SLOW_SCATTER_UNTIL
        note = ", slow at scatter-adds on GPUs" if slow else ""
        program = f"NumPyro {numpyro.__version__}, JAX {jax.__version__}{note}{form}"
        return {"protocol": PROTOCOL_VERSION, "program": program, "devices": devices}

    def open(
        self, folder: str, products: int, categories: int, periods: int, rows: int, device: str, threads: int, precision: str
    ) -> Answer:
        """Reads the panel, and settles where and in which precision it is worked on."""
        if device == "cpu" and hasattr(os, "sched_setaffinity"):
            # XLA starts as many threads as it may run on.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax
        import numpy as np

        import numpyro_svi
        import published_model as published

        jax.config.update("jax_enable_x64", precision == "f64")
        numpyro_svi.choose_device(device)

        def read(name: str, kind: str, length: int) -> Any:
            values = np.fromfile(Path(folder) / name, dtype=kind)
            if len(values) != length:
                raise ValueError(f"{name} has {len(values)} entries instead of {length}")
            return values

        category = read("category", "<u4", products).astype(np.int32)
        product = read("product", "<u4", rows).astype(np.int32)
        period = read("period", "<u4", rows).astype(np.int32)
        self.panel = published.Panel(
            products=np.arange(products),
            categories=np.arange(categories),
            weeks=np.arange(periods),
            category_idx=category,
            product_idx=product,
            time_cat_idx=category[product] * np.int32(periods) + period,
            log_price=read("log_price", "<f8", rows),
            # In double precision as wide as that: JAX 0.11.2 takes the log factorials of 32-bit integers in single precision.
            units=read("units", "<u4", rows).astype(np.int64 if precision == "f64" else np.int32),
        )
        return {}

    def log_joint(self, point: list[float]) -> Answer:
        """The log joint at natural parameters, and its gradient."""
        import jax
        import numpy as np
        from numpyro.infer.util import potential_energy

        import published_model as published

        at = self.by_site(np.asarray(point))
        if self.log_joint_program is None:
            model, arguments_of = published.MODELS[self.form]
            arguments = arguments_of(self.panel)
            # The panel is captured as a constant, as in a run.
            program = jax.jit(jax.value_and_grad(lambda point: potential_energy(model, (), arguments, point)))
            self.log_joint_program = program.lower(at).compile()
        value, gradient = self.log_joint_program(at)
        return {"log_joint": -float(value), "gradient": [-entry for entry in self.as_list(gradient)]}

    def start(self, settings: Answer, seed: int) -> Answer:
        """Compiles SVI with Infermark's settings."""
        import numpyro_svi

        self.svi = numpyro_svi.CompiledSvi(
            self.panel,
            self.form,
            settings["coordinates"],
            numpyro_svi.objective_of(settings["objective"], settings["particles"]),
            numpyro_svi.optimizer_of(settings["optimizer"]),
            seed,
        )
        return {}

    def advance(self, iterations: int) -> Answer:
        """Iterates; JSON has no NaN, so that a loss that is not finite is null."""
        losses = self.svi.advance(iterations).tolist()
        return {"losses": [loss if math.isfinite(loss) else None for loss in losses]}

    def moments(self) -> Answer:
        """Means and sds of the natural parameters."""
        mean, sd = self.svi.natural_moments()
        return {"mean": self.as_list(mean), "sd": self.as_list(sd)}

    def by_site(self, values: Any) -> Answer:
        """A vector of natural parameters as JAX's arrays by site."""
        import jax

        counts = (None, len(self.panel.categories), len(self.panel.products), len(self.panel.products), None)
        sites, start = {}, 0
        for name, count in zip(SITES, counts, strict=True):
            if name == "global_a":
                sites[name], start = jax.numpy.asarray(values[0]), 1
                continue
            count = self.panel.sizes()["time_cats"] if count is None else count
            sites[name], start = jax.numpy.asarray(values[start : start + count]), start + count
        if start != len(values):
            raise ValueError(f"the point has {len(values)} entries instead of {start}")
        return sites

    def as_list(self, sites: Answer) -> list[float]:
        """Values by site as one vector."""
        import numpy as np

        return [entry for name in SITES for entry in np.ravel(np.asarray(sites[name], dtype=np.float64)).tolist()]


def cpu_model() -> str:
    """The processor's name, as the kernel gives it where it does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "CPU")


def reply_to(question: Answer, worker: Worker) -> Answer:
    """The reply to one question; what goes wrong is a reply too."""
    answers: dict[str, Callable[..., Answer]] = {
        "describe": worker.describe,
        "open": worker.open,
        "log_joint": worker.log_joint,
        "start": worker.start,
        "advance": worker.advance,
        "moments": worker.moments,
    }
    what = question.pop("do")
    if what not in answers:
        return {"unsupported": f"the question {what}"}
    try:
        return {"ok": answers[what](**question)}
    except ModuleNotFoundError as error:
        return {"unavailable": f"{error} in {sys.executable}; scripts/python_env.sh makes an environment that has all it needs"}
    except Exception as error:  # whatever the program behind this says: it ends the run, not the benchmark
        return {getattr(error, "reply", "failed"): f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers questions until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--form", choices=["published", "dense"], default="published", help="of the model: rows gathered, or a grid")
    parser.add_argument("--platforms", choices=["all", "cpu", "gpu"], default="all", help="where it says that it runs (all)")
    options = parser.parse_args()
    worker = Worker(options.form, options.platforms)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
    # What libraries print is no reply.
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        # A reply with NaN would be no JSON; it is told as what went wrong.
        try:
            text = json.dumps(reply_to(json.loads(line), worker), allow_nan=False)
        except ValueError as error:
            text = json.dumps({"failed": f"not a finite number, or no question: {error}"})
        print(text, file=replies, flush=True)


if __name__ == "__main__":
    main()
