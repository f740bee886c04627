"""Which quantities of the exact method need double precision (docs/exact.md, "On a GPU").

    "$(scripts/python_env.sh)" scripts/exact_precision.py 40000 4

Draws a panel of the published process, finds its exact mode and standard deviations by eliminating products, and
then again with one quantity at a time in less than double precision: three Newton steps from the exact mode, with
a gradient of that precision, or for what the gradient does not depend on with such a precision matrix. Prints
the largest error of a mode in exact standard deviations, and of a standard deviation as a part of it, by kind of
parameter. Needs NumPy alone.
"""

import argparse
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

PERIODS = 156
OF_64_PRODUCTS = 128  # columns: two a product
PRIOR = np.append(np.full(PERIODS, 1 / 9), 1.0)  # of a border: periods, category_a about global_a
TO_TOP = np.append(np.zeros(PERIODS), -1.0)
SINGLE = np.float32

OF_GRADIENT = ["f32 rates", "f32 log rates", "f32 sums over a product's rows", "f32 sums over products"]
OF_PRECISION = [
    "f32 couplings, f64 products",
    "f32 couplings, f32 sums of 64 products",
    "two-float couplings, f64 sums",
    "two-float couplings, f32 sums of 64 products",
]


def published(products, categories, rng):
    """Log prices and counts of each category, one row a product, of those that sell more than 100 units."""
    panel = []
    for _ in range(categories):
        base, trend, volatility = rng.uniform(1000, 10000), rng.uniform(0, 0.01), rng.uniform(0.01, 0.05)
        moves = np.cumsum(trend + volatility * rng.standard_normal(PERIODS - 1))
        path = np.maximum(1 + np.concatenate([[0], moves]), 0.1)
        n = products // categories
        elasticity = np.clip(rng.normal(-2, 0.7, n), -5, -0.1)
        price = np.empty((n, PERIODS))
        price[:, 0] = rng.uniform(100, 1000, n)
        for t in range(1, PERIODS):
            price[:, t] = price[:, t - 1] * np.where(rng.random(n) < 0.5, 1 + rng.uniform(-0.2, 0.2, n), 1.0)
        price = np.maximum(np.round(price, 2), 0.01)
        level = rng.lognormal(3, 0.5, n)[:, None] * (1 + rng.uniform(-0.05, 0.05, (n, PERIODS)))
        units = rng.poisson(base * path * level * price ** elasticity[:, None]).astype(float)
        kept = units.sum(1) > 100
        panel.append((np.log(price[kept]), units[kept]))
    return panel


def two_floats(values):
    """The sum of the two is good to 48 bits."""
    high = values.astype(SINGLE).astype(float)
    return high, (values - high).astype(SINGLE).astype(float)


def gram(v, less):
    """`V' V`, `V` of two rows a product, in the precision that `less` says."""
    if less == "f32 couplings, f64 products":
        v = v.astype(SINGLE).astype(float)
        return v.T @ v
    if less == "two-float couplings, f64 sums":
        high, low = two_floats(v)
        return high.T @ high + high.T @ low + low.T @ high
    if less not in OF_PRECISION:
        return v.T @ v
    total = np.zeros((v.shape[1], v.shape[1]))
    for start in range(0, len(v), OF_64_PRODUCTS):
        high, low = (part.astype(SINGLE) for part in two_floats(v[start : start + OF_64_PRODUCTS]))
        total += (high.T @ high).astype(float)
        if less.startswith("two-float"):
            total += (high.T @ low).astype(float) + (low.T @ high).astype(float)
    return total


def evaluate(x, y, a, e, tau, mean, less, rng):
    """Of one category: the blocks' factors, couplings, gradients of products and border, and the border's precision."""
    if less == "f32 log rates":
        centre = x.mean(1, keepdims=True)
        base = (a[:, None] * centre + e[:, None]).astype(SINGLE)
        log_rate = a.astype(SINGLE)[:, None] * (x - centre).astype(SINGLE) + base + tau.astype(SINGLE)
        rate = np.exp(log_rate).astype(float)
    else:
        rate = np.exp(a[:, None] * x + e[:, None] + tau)
        if less == "f32 rates":
            # Beside its rounding an exponential of single precision is off by up to a unit of the last place.
            rate = (rate * (1 + rng.uniform(-1, 1, rate.shape) * 2.0**-24)).astype(SINGLE).astype(float)

    def by_product(values):
        if less == "f32 sums over a product's rows":
            return np.add.reduce(values.astype(SINGLE), axis=1, dtype=SINGLE).astype(float)
        return values.sum(1)

    def by_period(values):
        if less == "f32 sums over products":
            return np.cumsum(values.astype(SINGLE), axis=0, dtype=SINGLE)[-1].astype(float)
        return values.sum(0)

    rate_x = rate * x
    h_aa, h_ae, h_ee = by_product(rate_x * x) + 1 / 4, by_product(rate_x), by_product(rate) + 1 / 9
    g_a = (y * x).sum(1) - by_product(rate_x) - (a - mean) / 4
    g_e = y.sum(1) - by_product(rate) - e / 9
    l_aa = np.sqrt(h_aa)
    l_ea = h_ae / l_aa
    l_ee = np.sqrt(h_ee - l_ea**2)
    v_a = np.column_stack([rate_x / l_aa[:, None], -0.25 / l_aa])
    v_e = (np.column_stack([rate, 0 * l_aa]) - l_ea[:, None] * v_a) / l_ee[:, None]
    y_a = g_a / l_aa
    y_e = (g_e - l_ea * y_a) / l_ee
    told = np.maximum(h_aa - 1 / 4 - h_ae * (h_ae / h_ee), 0)
    precision = np.diag(np.append(by_period(rate), 0.0)) - gram(np.concatenate([v_a, v_e]), less)
    precision[-1, :-1] = precision[:-1, -1]
    # Not a difference of numbers that are nearly the same.
    precision[-1, -1] = (told / (1 + 4 * told)).sum()
    gradient = np.append(y.sum(0) - by_period(rate), ((a - mean) / 4).sum()) - v_a.T @ y_a - v_e.T @ y_e
    return (l_aa, l_ea, l_ee), (v_a, v_e), (y_a, y_e), gradient, precision


def fit(panel, less, steps, start, rng):
    """Points of the categories, the top, and all standard deviations after some Newton steps; or why there are none."""
    if start is None:
        at = [[np.full(len(x), -2.0), np.log(y.mean(1) + 0.1) + 2 * x.mean(1), np.zeros(PERIODS), -2.0] for x, y in panel]
        top = -2.0
    else:
        at, top = start
    for made in range(steps + 1):
        found = []
        for (x, y), point in zip(panel, at):
            own = evaluate(x, y, *point, less, rng)
            if less in OF_PRECISION:
                own = (*evaluate(x, y, *point, None, rng)[:4], own[4])
            found.append(own)
        least = min(np.linalg.eigvalsh(own[4] + np.diag(PRIOR))[0] for own in found)
        if least <= 0:
            return None, None, f"not positive definite: the least eigenvalue is {least:.3g}"
        inverses = [np.linalg.inv(own[4] + np.diag(PRIOR)) for own in found]
        borders = [np.append(point[2], point[3] - top) for point in at]
        gradients = [own[3] - PRIOR * border for own, border in zip(found, borders)]
        schur = 1 + len(panel) - sum(TO_TOP @ inverse @ TO_TOP for inverse in inverses)
        if made == steps:
            return (at, top), np.concatenate([sds(own, inverse, schur) for own, inverse in zip(found, inverses)]), None
        pull = sum(border[-1] for border in borders) - (top + 2)
        d_top = (pull - sum(TO_TOP @ i @ g for i, g in zip(inverses, gradients))) / schur
        following = []
        for own, point, inverse, gradient in zip(found, at, inverses, gradients):
            (l_aa, l_ea, l_ee), (v_a, v_e), (y_a, y_e) = own[:3]
            move = inverse @ (gradient - TO_TOP * d_top)
            d_e = (y_e - v_e @ move) / l_ee
            d_a = (y_a - v_a @ move - l_ea * d_e) / l_aa
            # The first steps from far away would overshoot.
            part = min(1.0, 1.5 / max(np.abs(move).max(), 1e-9)) if made < 4 else 1.0
            changes = [d_a, d_e, move[:-1], move[-1]]
            following.append([own + part * change for own, change in zip(point, changes)])
        at, top = following, top + d_top
    raise AssertionError("the last round returns")


def sds(own, inverse, schur):
    """Standard deviations of elasticities, effects, periods and category_a."""
    (l_aa, l_ea, l_ee), (v_a, v_e) = own[:2]
    moved = inverse @ TO_TOP
    covariance = inverse + np.outer(moved, moved) / schur
    aa, ae, ee = (((u @ covariance) * v).sum(1) for u, v in [(v_a, v_a), (v_a, v_e), (v_e, v_e)])
    along_a, along_e = 1 / l_aa, -l_ea / (l_aa * l_ee)
    elasticity = along_a**2 * (1 + aa) + 2 * along_a * along_e * ae + along_e**2 * (1 + ee)
    return np.sqrt(np.concatenate([elasticity, (1 + ee) / l_ee**2, np.diag(covariance)]))


def main():
    """Draws the panel, fits it in every precision, and prints the errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("products", type=int, help="drawn; those with 100 units and fewer are dropped")
    parser.add_argument("categories", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    panel = published(options.products, options.categories, rng)
    counts = [sum(len(x) for x, _ in panel), sum(x.size for x, _ in panel), sum(y.sum() for _, y in panel)]
    print("{} products, {} rows, {:.3g} units".format(*counts))
    flat = lambda at: np.concatenate([np.concatenate([*point[:3], [point[3]]]) for point in at])
    exact, sd, _ = fit(panel, None, 14, None, rng)
    mode = flat(exact[0])
    again, _, _ = fit(panel, None, 2, exact, rng)
    print(f"two more exact steps move the mode by {(np.abs(flat(again[0]) - mode) / sd).max():.1e} standard deviations")
    kinds = np.concatenate([np.concatenate([np.zeros(2 * len(x)), np.ones(PERIODS), [2]]) for x, _ in panel])
    names = ["products", "periods", "category_a"]
    for less in OF_GRADIENT + OF_PRECISION:
        found, of_less, why = fit(panel, less, 3, exact, rng)
        if why:
            print(f"{less}: {why}")
            continue
        off, relative = np.abs(flat(found[0]) - mode) / sd, np.abs(of_less / sd - 1)
        largest = lambda errors: ", ".join(f"{name} {errors[kinds == kind].max():.1e}" for kind, name in enumerate(names))
        print(f"{less}: mode off by {largest(off)}; standard deviations by {largest(relative)}")


if __name__ == "__main__":
    main()
