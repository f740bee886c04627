"""The posterior mode and the sds of all elasticities in NumPy, eliminating product by product: a strong peer.

    "$(scripts/python_env.sh)" scripts/numpy_elimination.py PANEL.parquet --out posterior.csv

What a statistician writes who knows that, given the border (a category's period effects
and its mean elasticity), its products are independent 2x2 blocks: products in batches
that stay in the cache, a rank-k update by BLAS for each, the batches on all cores. Newton
with step halving on the published model, in double precision, from start values of its
own. Like other Gaussian methods it ignores the clip of the log rate, at whose kink no
curvature is right.

Prints one JSON object: `seconds` from data laid out by product to the sds of all
elasticities, `setup_seconds` for laying them out, `process_seconds` from the start of the
interpreter to the file written.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the batches take the cores

import argparse
import json
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

GLOBAL_MEAN, GLOBAL_SD, CATEGORY_SD, PRODUCT_SD, EFFECT_SD, PERIOD_SD = -2.0, 1.0, 1.0, 2.0, 3.0, 3.0
STEPS, TOLERANCE = 50, 1e-8  # Newton steps at most; nats still to gain at the last one


class Batch:
    """Some products of one category: their data, [periods, products], their parameters, and the factors of their blocks."""

    def __init__(self, category, members, x, y, present):
        self.category, self.members, self.x, self.present = category, members, x, present
        self.y, self.y_sum, self.yx_sum, self.y_period = y, y.sum(0), (y * x).sum(0), y.sum(1)
        self.rate = np.empty_like(x)

    def start(self, tau):
        """A weighted regression of the log counts, about the prior mean: R's start of a Poisson model, rates y + 0.1."""
        rate = self.y + 0.1
        if self.present is not None:
            rate *= self.present
        log_rate = np.log(np.maximum(rate, 0.1)) - tau[:, None]
        total, rate_x = rate.sum(0), rate * self.x
        mean_x, mean_log = rate_x.sum(0) / total, (rate * log_rate).sum(0) / total
        rate_x -= rate * mean_x
        covariance, variance = (rate_x * log_rate).sum(0), (rate_x * self.x).sum(0)
        self.a = (covariance + GLOBAL_MEAN / PRODUCT_SD**2) / (variance + PRODUCT_SD**-2)
        self.e = mean_log - self.a * mean_x

    def evaluate(self, size, tau, mean):
        """Value, squared residual, gradient and precision of the border with these products eliminated, a step ahead."""
        x, periods, products = self.x, *self.x.shape
        a, e = (self.a + size * self.da, self.e + size * self.de) if size else (self.a, self.e)
        rate = np.multiply(x, a, out=self.rate)
        rate += e
        rate += tau[:, None]
        np.exp(rate, out=rate)
        if self.present is not None:
            rate *= self.present
        ones = np.ones(periods)
        rate_x = rate * x
        h_ee, h_ea = ones @ rate + EFFECT_SD**-2, ones @ rate_x
        value = self.y_sum @ e + self.yx_sum @ a + self.y_period @ tau - (h_ee - EFFECT_SD**-2).sum()
        value -= 0.5 * (((a - mean) / PRODUCT_SD) ** 2 + (e / EFFECT_SD) ** 2).sum()
        self.ratio = ratio = h_ea / h_ee
        u = np.empty((periods + 1, 2 * products))  # L^-1 B: H = L L' the blocks in the order (e, a), B the border's
        np.multiply(rate_x, x, out=u[:periods, :products])
        self.l1, self.l2 = l1, l2 = np.sqrt(h_ee), np.sqrt(ones @ u[:periods, :products] + PRODUCT_SD**-2 - h_ea * ratio)
        g_e, g_a = self.y_sum - h_ee + EFFECT_SD**-2 * (1.0 - e), self.yx_sum - h_ea - (a - mean) / PRODUCT_SD**2
        self.v1, self.v2 = v1, v2 = g_e / l1, (g_a - ratio * g_e) / l2
        np.multiply(rate, 1.0 / l1, out=u[:periods, :products])
        u[periods, :products] = 0.0
        rates = u[:periods, :products] @ l1
        self.eliminated_a(rate_x, u[:, products:])
        precision = u @ u.T  # NumPy calls BLAS's syrk
        np.negative(precision, out=precision)
        precision[np.diag_indices(periods + 1)] += np.append(rates, products / PRODUCT_SD**2)
        gradient = np.append(self.y_period - rates, ((a - mean) / PRODUCT_SD**2).sum()) - u @ np.concatenate([v1, v2])
        return value, v1 @ v1 + v2 @ v2, gradient, precision

    def eliminated_a(self, rate_x, u):
        """Writes the elasticities' rows of L^-1 B, [border, products]."""
        np.multiply(self.rate, self.ratio, out=u[:-1])
        np.subtract(rate_x, u[:-1], out=u[:-1])
        u[:-1] *= 1.0 / self.l2
        u[-1] = -(PRODUCT_SD**-2) / self.l2

    def solve(self, border):
        """The products' part of the Newton step, of the border's."""
        d_tau, d_mean = border[:-1], border[-1]
        along, along_x = d_tau @ self.rate, d_tau @ (self.rate * self.x) - d_mean / PRODUCT_SD**2
        self.da = (self.v2 - (along_x - self.ratio * along) / self.l2) / self.l2
        self.de = (self.v1 - along / self.l1) / self.l1 - self.ratio * self.da

    def move(self, size):
        """Takes the step."""
        self.a, self.e = self.a + size * self.da, self.e + size * self.de

    def sds(self, covariance):
        """The sds of the products' elasticities, of the border's covariance."""
        u = np.empty((len(covariance), len(self.a)))
        self.eliminated_a(self.rate * self.x, u)
        reached = covariance @ u
        reached *= u
        return np.sqrt(1.0 + reached.sum(0)) / self.l2


def read(path):
    """Product names, the category of each, and [products, periods] ln price, units and presence (None where all are)."""
    if path.endswith(".csv"):
        table = pa.csv.read_csv(path)
    else:
        table = pa.parquet.read_table(path, read_dictionary=["product", "category"]).unify_dictionaries()
    encoded = [table[name].combine_chunks() for name in ("product", "category", "week")]
    encoded = [c if isinstance(c, pa.DictionaryArray) else c.dictionary_encode() for c in encoded]
    product, category, week = (column.indices.to_numpy() for column in encoded)
    shape = (len(encoded[0].dictionary), len(encoded[2].dictionary))
    x, y = np.zeros(shape), np.zeros(shape)
    x[product, week], y[product, week] = np.log(table["price"].to_numpy()), table["units"].to_numpy()
    complete = len(product) == x.size
    present = None if complete else np.zeros(shape)
    if not complete:
        present[product, week] = 1.0
    of_product = np.zeros(shape[0], dtype=int)
    of_product[product] = category
    return encoded[0].dictionary, of_product, x, y, present


def in_batches(size, of_product, x, y, present):
    """Batches of at most `size` products of a category, [periods, products] each."""
    batches = []
    for c in range(of_product.max() + 1):
        members = np.flatnonzero(of_product == c)
        for i in np.array_split(members, -(-len(members) // size)):
            data = [None if data is None else np.ascontiguousarray(data[i].T) for data in (x, y, present)]
            batches.append(Batch(c, i, *data))
    return batches


def fit(batches, pool):
    """The mode, in the batches, and the sds of all elasticities by batch; steps and what was left to gain beside them."""
    categories, periods = batches[-1].category + 1, len(batches[0].x)
    tau, mean, top = np.full((categories, periods), 0.5), np.full(categories, GLOBAL_MEAN), GLOBAL_MEAN
    for batch in batches:
        tau[batch.category] += batch.y_period
    tau = np.log(tau / tau.mean(1, keepdims=True))
    list(pool.map(lambda b: b.start(tau[b.category]), batches))
    d_tau, d_mean, d_top, size, last, steps, left = 0.0, 0.0, 0.0, 0.0, -np.inf, 0, np.inf
    prior = np.append(np.full(periods, PERIOD_SD**-2), CATEGORY_SD**-2)
    while True:
        new_tau, new_mean, new_top = tau + size * d_tau, mean + size * d_mean, top + size * d_top
        border = np.column_stack([new_tau, new_mean - new_top])
        value = -0.5 * (prior * border**2).sum() - 0.5 * ((new_top - GLOBAL_MEAN) / GLOBAL_SD) ** 2
        gradient, left_now = -prior * border, 0.0
        precision = np.tile(np.diag(prior), (categories, 1, 1))
        found = pool.map(lambda b: b.evaluate(size, new_tau[b.category], new_mean[b.category]), batches)
        for batch, (part, residual, g, h) in zip(batches, found):
            value, left_now = value + part, left_now + residual
            gradient[batch.category] += g
            precision[batch.category] += h
        # Close to the mode a fall is rounding: a full step is safe there.
        if not value >= last and left > 1e-3:
            size *= 0.5
            continue
        if size:
            list(pool.map(lambda b: b.move(size), batches))
        tau, mean, top, last, steps = new_tau, new_mean, new_top, value, steps + 1
        # The global elasticity meets a category's border in its mean alone: `to_top` takes it there.
        to_top = np.zeros((categories, periods + 1))
        to_top[:, periods] = -(CATEGORY_SD**-2)
        solved = np.linalg.solve(precision, np.stack([gradient, to_top], axis=2))
        schur = GLOBAL_SD**-2 + categories * CATEGORY_SD**-2 - (to_top * solved[:, :, 1]).sum()
        g_top = (mean - top).sum() / CATEGORY_SD**2 - (top - GLOBAL_MEAN) / GLOBAL_SD**2
        g_top -= (solved[:, :, 1] * gradient).sum()
        left = left_now + (gradient * solved[:, :, 0]).sum() + g_top**2 / schur
        d_top = g_top / schur
        step = solved[:, :, 0] - solved[:, :, 1] * d_top
        list(pool.map(lambda b: b.solve(step[b.category]), batches))
        d_tau, d_mean, size = step[:, :periods], step[:, periods], 1.0
        if left <= TOLERANCE or steps == STEPS:
            list(pool.map(lambda b: b.move(1.0), batches))
            covariance = np.linalg.inv(precision) + solved[:, :, 1:] @ solved[:, :, 1:].swapaxes(1, 2) / schur
            sds = list(pool.map(lambda b: b.sds(covariance[b.category]), batches))
            return sds, {"newton_steps": steps, "decrement": left, "log_joint_up_to_a_constant": value}


def process_seconds():
    """Seconds since this process was started."""
    ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def main():
    """Fits the panel and prints what was found and what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("panel", help="Parquet or CSV: product, category, week, price, units")
    parser.add_argument("--out", help="CSV of product, mode and sd of its elasticity")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="all cores")
    parser.add_argument("--batch", type=int, default=1024, help="products in a batch (1024)")
    parser.add_argument("--repeats", type=int, default=1, help="fits in this process; the first counts the start-up of BLAS")
    options = parser.parse_args()
    seconds, cpu_seconds = [], []
    with ThreadPoolExecutor(options.threads) as pool:
        for _ in range(options.repeats):
            names, *data = read(options.panel)
            loaded, start = process_seconds(), time.perf_counter()
            batches = in_batches(options.batch, *data)
            del data
            setup = time.perf_counter() - start
            start, cpu_start = time.perf_counter(), time.process_time()
            sds, told = fit(batches, pool)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    if options.out:
        order = np.concatenate([b.members for b in batches])
        mode, sd = (np.concatenate(parts)[np.argsort(order)] for parts in ([b.a for b in batches], sds))
        pa.csv.write_csv(pa.table({"product": names, "mean": mode, "sd": sd}), options.out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told |= {"seconds": seconds, "cpu_seconds": cpu_seconds, "setup_seconds": setup}
    told |= {"loaded_after_seconds": loaded, "process_seconds": process_seconds()}
    print(json.dumps(told | {"threads": options.threads, "products": len(names), "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
