"""Panels with few and many sales, and their posteriors by long Hamiltonian Monte Carlo: NAME.csv and NAME-reference.csv.

    python make_reference.py            # all panels, about ten minutes on two cores

Needs NumPy 2.4 and a C compiler (`cc`). The model is written here once more, on dense matrices, and shares no code with the crates.
The log rate is not clipped.
"""

import csv
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
PERIODS = 20
SEEDS, CHAINS, WARMUP, DRAWS, STEPS = (1, 2), 16, 1000, 4000, 8
# Seed, products by category, bounds of a product's mean units per row, share of missing rows.
PANELS = {
    "sales-0.01-to-3": (1, [15] * 4, 0.01, 3, 0.0),
    "sales-0.1-to-10": (2, [15] * 4, 0.1, 10, 0.0),
    "sales-1-to-30": (3, [15] * 4, 1, 30, 0.0),
    "sales-10-to-100": (4, [15] * 4, 10, 100, 0.0),
    "one-product-categories": (5, [1] * 8 + [2] * 2 + [8], 0.1, 10, 0.0),
    "gaps": (6, [30, 20, 10], 0.1, 10, 0.5),
}


def write_panel(name):
    seed, sizes, low, high, gaps = PANELS[name]
    rng = np.random.default_rng(seed)
    category = np.concatenate([[c] * n for c, n in enumerate(sizes)]).astype(int)
    period_effect = rng.normal(0, 0.3, (len(sizes), PERIODS))
    category_a = rng.normal(-2, 0.5, len(sizes))
    with open(HERE / f"{name}.csv", "w", newline="") as file:
        file.write("product,category,period,price,units\n")
        for i, c in enumerate(category):
            usual = rng.normal(1.5, 0.8)
            promoted = rng.random(PERIODS) < 0.3
            log_price = usual - promoted * rng.uniform(0.1, 0.6, PERIODS) + rng.normal(0, 0.05, PERIODS)
            price = np.maximum(np.round(np.exp(log_price), 3), 0.001)
            x = np.log(price)
            elasticity = category_a[c] + rng.normal(0, 0.8)
            mean = np.exp(rng.uniform(np.log(low), np.log(high)))
            eta = elasticity * (x - x.mean()) + period_effect[c]
            eta += np.log(mean) - np.log(np.exp(eta).mean())
            units = rng.poisson(np.exp(eta))
            kept = np.ones(PERIODS, bool)
            if gaps > 0:
                kept = rng.random(PERIODS) >= gaps
                kept[rng.integers(PERIODS)] = True
            for t in np.nonzero(kept)[0]:
                file.write(f"p{i:02d},c{c:02d},{t + 1},{price[t]:.3f},{units[t]}\n")


class Model:
    """The Poisson model with the published priors; latents in the order global_a, category_a, product_a, product_effect,
    time_cat_effects (category, period)."""

    def __init__(self, path):
        with open(path, newline="") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: (row["product"], int(row["period"])))
        products = sorted({row["product"] for row in rows})
        categories = sorted({row["category"] for row in rows})
        n, c, t = len(products), len(categories), max(int(row["period"]) for row in rows)
        self.latents = 1 + c + 2 * n + c * t
        product = np.array([products.index(row["product"]) for row in rows])
        category = np.array([categories.index(row["category"]) for row in rows])
        self.x = np.log([float(row["price"]) for row in rows])
        self.y = np.array([float(row["units"]) for row in rows])
        self.elasticity = 1 + c + product
        self.effect = 1 + c + n + product
        self.period = 1 + c + 2 * n + category * t + [int(row["period"]) - 1 for row in rows]
        self.design = np.zeros((len(rows), self.latents))
        at = np.arange(len(rows))
        self.design[at, self.elasticity] = self.x
        self.design[at, self.effect] = 1
        self.design[at, self.period] = 1
        # ln prior = -z' P z / 2 + h' z.
        self.precision = np.zeros((self.latents, self.latents))
        self.pull = np.zeros(self.latents)
        self.precision[0, 0], self.pull[0] = 1, -2

        def difference(j, k, sd):
            direction = np.zeros(self.latents)
            direction[j], direction[k] = 1, -1
            self.precision += np.outer(direction, direction) / sd**2

        for k in range(c):
            difference(1 + k, 0, 1)
        category_of = np.zeros(n, int)
        category_of[product] = category
        for i in range(n):
            difference(1 + c + i, 1 + category_of[i], 2)
        own = np.arange(1 + c + n, self.latents)
        self.precision[own, own] += 1 / 9
        sites = ("global_a", 1), ("category_a", c), ("product_a", n), ("product_effect", n), ("time_cat_effects", c * t)
        self.names = [(site, k) for site, length in sites for k in range(length)]

    def value(self, z):
        eta = self.design @ z
        return self.y @ eta - np.exp(np.minimum(eta, 50)).sum() - 0.5 * z @ self.precision @ z + self.pull @ z

    def mode(self):
        """The mode and the precision there, by damped Newton steps."""
        z = np.linalg.solve(self.precision, self.pull)
        while True:
            rate = np.exp(self.design @ z)
            gradient = self.design.T @ (self.y - rate) - self.precision @ z + self.pull
            hessian = self.precision + (self.design * rate[:, None]).T @ self.design
            step = np.linalg.solve(hessian, gradient)
            if gradient @ step < 1e-16:
                return z, hessian
            length = 1.0
            while self.value(z + length * step) < self.value(z) and length > 1e-9:
                length /= 2
            z = z + length * step

    def write(self, path):
        z, hessian = self.mode()
        whiten = np.tril(np.linalg.inv(np.linalg.cholesky(hessian)))
        row, column = np.nonzero(self.precision)
        with open(path, "wb") as file:
            for array in ([self.latents, len(self.y), len(row)], self.elasticity, self.effect, self.period):
                np.asarray(array, np.int32).tofile(file)
            for array in (self.x, self.y, self.design @ z, whiten, self.pull - self.precision @ z, z):
                np.ascontiguousarray(array, float).tofile(file)
            row.astype(np.int32).tofile(file)
            column.astype(np.int32).tofile(file)
            self.precision[row, column].tofile(file)


def diagnostics(draws):
    """Largest split R-hat, and the least effective sample size by the variance of the chains' means; draws by chain."""
    half = draws.shape[1] // 2
    split = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])
    means = split.mean(1, dtype=float)
    within = split.var(1, ddof=1, dtype=float).mean(0)
    between = means.var(0, ddof=1)
    rhat = np.sqrt((half - 1) / half + between / within)
    return rhat.max(), (within / between * len(split)).min()


def write_reference(name, folder):
    model = Model(HERE / f"{name}.csv")
    model.write(folder / "in")
    draws = []
    for seed in SEEDS:
        settings = [seed, CHAINS, WARMUP, DRAWS, STEPS]
        subprocess.run([folder / "hmc", folder / "in", folder / "out", *map(str, settings)], check=True)
        draws.append(np.fromfile(folder / "out", np.float32).reshape(CHAINS, DRAWS, model.latents))
    draws = np.concatenate(draws)
    rhat, effective = diagnostics(draws)
    print(f"{name}: {model.latents} latents, R-hat {rhat:.4f}, at least {effective:.0f} effective draws", flush=True)
    assert rhat <= 1.005
    draws = draws.reshape(-1, model.latents)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    columns = zip(model.names, draws.mean(0, dtype=float), draws.std(0, dtype=float), low, high)
    with open(HERE / f"{name}-reference.csv", "w", newline="") as file:
        file.write("site,index,mean,sd,q05,q95\n")
        for (site, index), *values in columns:
            file.write(",".join([site, str(index), *(f"{value:.6g}" for value in values)]) + "\n")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        flags = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only"]
        subprocess.run(["cc", *flags, HERE / "hmc.c", "-o", folder / "hmc", "-lm"], check=True)
        for name in sys.argv[1:] or PANELS:
            write_panel(name)
            write_reference(name, folder)


if __name__ == "__main__":
    main()
