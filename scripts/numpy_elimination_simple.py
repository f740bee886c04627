"""The posterior mode and the sds of all elasticities in NumPy, the simple way: what a statistician writes first.

    "$(scripts/python_env.sh)" scripts/numpy_elimination_simple.py PANEL.parquet --out posterior.csv

The same eliminations as scripts/numpy_elimination.py in half of the lines: a category's products all
at once, in arrays that are as large as its data, and BLAS on all cores (OPENBLAS_NUM_THREADS) for the rank-k updates.
Writes and prints what numpy_elimination.py does.
"""

import argparse
import json
import resource
import time

import numpy as np  # before numpy_elimination, which takes the cores from BLAS

import pyarrow as pa
import pyarrow.csv

from numpy_elimination import process_seconds, read

STEPS, TOLERANCE = 50, 1e-8  # Newton steps at most; nats still to gain at the last one


def evaluate(x, y, present, a, e, tau, mean):
    """Of one category: value, blocks' solutions of gradient and border, and the border's own gradient and precision."""
    rate = np.exp(a[:, None] * x + e[:, None] + tau) * present
    rate_x = rate * x
    h_aa, h_ae, h_ee = (rate_x * x).sum(1) + 1 / 4, rate_x.sum(1), rate.sum(1) + 1 / 9
    g_a, g_e = ((y - rate) * x).sum(1) - (a - mean) / 4, (y - rate).sum(1) - e / 9
    value = (y * (a[:, None] * x + e[:, None] + tau) - rate).sum() - ((a - mean) ** 2).sum() / 8 - (e**2).sum() / 18
    by_a = np.column_stack([rate_x, np.full(len(a), -1 / 4)])
    by_e = np.column_stack([rate, np.zeros(len(a))])
    det = h_aa * h_ee - h_ae**2
    solve = lambda u, v: ((h_ee * u.T - h_ae * v.T).T / det.reshape(-1, *[1] * (u.ndim - 1)),
                          (h_aa * v.T - h_ae * u.T).T / det.reshape(-1, *[1] * (u.ndim - 1)))  # fmt: skip
    (z_a, z_e), (s_a, s_e) = solve(by_a, by_e), solve(g_a, g_e)
    own = np.append(rate.sum(0), len(a) / 4)
    precision = np.diag(own) - by_a.T @ z_a - by_e.T @ z_e
    gradient = np.append((y - rate).sum(0), ((a - mean) / 4).sum()) - z_a.T @ g_a - z_e.T @ g_e
    return value, s_a @ g_a + s_e @ g_e, (s_a, s_e), (z_a, z_e), h_ee / det, gradient, precision


def fit(data):
    """Mode and sds of the elasticities by category, the Newton steps, and what was left to gain."""
    periods, categories = data[0][0].shape[1], len(data)
    at = [[np.full(len(x), -2.0), np.log(y.mean(1) + 0.1) + 2 * x.mean(1), np.zeros(periods), -2.0] for x, y, _ in data]
    top, step, d_top, size, last, left, steps = -2.0, None, 0.0, 0.0, -np.inf, np.inf, 0
    prior = np.append(np.full(periods, 1 / 9), 1.0)
    while True:
        there = [[p + size * d for p, d in zip(*pair)] for pair in zip(at, step)] if step else at
        top_there = top + size * d_top
        found = [evaluate(*own, *point) for own, point in zip(data, there)]
        borders = [np.append(tau, mean - top_there) for _, _, tau, mean in there]
        value = sum(f[0] for f in found) - sum((prior * b**2).sum() for b in borders) / 2 - (top_there + 2) ** 2 / 2
        if value < last and left > 1e-3:
            size /= 2
            continue
        at, top, last, size, steps = there, top_there, value, 1.0, steps + 1
        to_top = np.append(np.zeros(periods), -1.0)
        inverses = [np.linalg.inv(f[6] + np.diag(prior)) for f in found]
        gradients = [f[5] - prior * b for f, b in zip(found, borders)]
        schur = 1 + categories - sum(to_top @ i @ to_top for i in inverses)
        g_top = sum(b[-1] for b in borders) - (top + 2) - sum(to_top @ i @ g for i, g in zip(inverses, gradients))
        d_top = g_top / schur
        left = sum(f[1] for f in found) + sum(g @ i @ g for i, g in zip(inverses, gradients)) + g_top**2 / schur
        moves = [i @ (g - to_top * d_top) for i, g in zip(inverses, gradients)]
        step = [[f[2][0] - f[3][0] @ m, f[2][1] - f[3][1] @ m, m[:-1], m[-1]] for f, m in zip(found, moves)]
        if left <= TOLERANCE or steps == STEPS:
            covariances = [i + np.outer(i @ to_top, i @ to_top) / schur for i in inverses]
            sds = [np.sqrt(f[4] + ((f[3][0] @ c) * f[3][0]).sum(1)) for f, c in zip(found, covariances)]
            return [p[0] + d[0] for p, d in zip(at, step)], sds, steps, left, value


def main():
    """Fits the panel and prints what was found and what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("panel", help="Parquet or CSV: product, category, week, price, units")
    parser.add_argument("--out", help="CSV of product, mode and sd of its elasticity")
    parser.add_argument("--repeats", type=int, default=1, help="fits in this process; the first counts the start-up of BLAS")
    options = parser.parse_args()
    seconds, cpu_seconds = [], []
    for _ in range(options.repeats):
        names, of_product, x, y, present = read(options.panel)
        loaded, start = process_seconds(), time.perf_counter()
        members = [np.flatnonzero(of_product == c) for c in range(of_product.max() + 1)]
        data = [(x[own], y[own], 1.0 if present is None else present[own]) for own in members]
        del x, y, present
        setup, start, cpu_start = time.perf_counter() - start, time.perf_counter(), time.process_time()
        modes, sds, steps, left, value = fit(data)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    if options.out:
        order = np.argsort(np.concatenate(members))
        mode, sd = (np.concatenate(parts)[order] for parts in (modes, sds))
        pa.csv.write_csv(pa.table({"product": names, "mean": mode, "sd": sd}), options.out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = {"newton_steps": steps, "decrement": left, "log_joint_up_to_a_constant": value, "seconds": seconds}
    told |= {"cpu_seconds": cpu_seconds, "setup_seconds": setup, "loaded_after_seconds": loaded}
    print(json.dumps(told | {"process_seconds": process_seconds(), "products": len(names), "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
