//! Settled products against a direct implementation of the bound.

use super::*;

const PRIOR: Prior<3> = Prior {
    mean: [-1.5, 0.4, 2.0],
    precision: [1.5, 0.7, 0.1],
};

/// The regressors of a row, as many as a product of D latents has: the price, then whether it is promoted.
fn design<const D: usize>(price: f64, period: usize) -> [f64; D] {
    let all = [price, f64::from(period % 3 == 1), 1.0];
    from_fn(|k| if k + 1 < D { all[k] } else { 1.0 })
}

fn prior<const D: usize>() -> Prior<D> {
    let of = |all: [f64; 3]| from_fn(|k| if k + 1 < D { all[k] } else { all[2] });
    Prior {
        mean: of(PRIOR.mean),
        precision: of(PRIOR.precision),
    }
}

type Rows<const D: usize> = std::vec::IntoIter<Row<D>>;

fn product<const D: usize>(
    prices: [f64; 6],
    units: [f64; 6],
) -> Product<Rows<D>, impl Fn(&Row<D>, f64, [f64; 2]) -> Means, D> {
    let rows = prices.iter().zip(units).enumerate().map(|(t, (x, units))| Row {
        design: design(*x, t),
        units,
        effect: 0.3 * (t as f64).sin(),
        variance: 40.0,
        weight: 0.01,
    });
    Product {
        prior: prior(),
        rows: rows.collect::<Vec<_>>().into_iter(),
        least_variance: 0.2,
        few: STEPS,
        of: |row: &Row<D>, eta: f64, [own, rest]: [f64; 2]| {
            OwnWeight::new(eta + 0.5 * own, rest, row.weight).means(row.units, eta)
        },
    }
}

/// The bound of the module documentation, written out.
fn bound<Of: Fn(&Row<D>, f64, [f64; 2]) -> Means, const D: usize>(
    product: &Product<Rows<D>, Of, D>,
    before: &Normal<D>,
    at: &Normal<D>,
) -> f64 {
    let variance = |row: &Row<D>, of: &BlockMatrix<D>| -> f64 {
        let pairs = (0..D).flat_map(|j| (0..D).map(move |k| (j, k)));
        pairs.map(|(j, k)| row.design[j] * row.design[k] * of[j][k]).sum()
    };
    let rows: f64 = product
        .rows
        .clone()
        .map(|row| {
            let of_border = row.variance - variance(&row, &before.covariance);
            let latents: f64 = row.design.iter().zip(at.mean).map(|(x, m)| x * m).sum();
            let eta = latents + row.effect;
            // The maximum over the border's part of the variance, which the row itself reduces.
            let own = variance(&row, &at.covariance);
            let of = |rho: f64| {
                let precision = 1.0 / of_border - row.weight;
                0.5 * (rho.ln() - precision * rho) - (eta + 0.5 * (own + rho)).exp()
            };
            let grid = (-4000..=1000).map(|k| of(of_border * (f64::from(k) * 2e-3).exp()));
            row.units * eta + grid.fold(f64::NEG_INFINITY, f64::max)
        })
        .sum();
    let prior = prior::<D>();
    let of_prior = |k: usize| {
        let from = at.mean[k] - prior.mean[k];
        prior.precision[k] * (from * from + at.covariance[k][k])
    };
    let pulls: f64 = (0..D).map(of_prior).sum();
    // By elimination, one row after the other.
    let mut left = at.covariance;
    let mut ln_det = 0.0;
    for pivot in 0..D {
        ln_det += left[pivot][pivot].ln();
        for i in pivot + 1..D {
            let factor = left[i][pivot] / left[pivot][pivot];
            for j in pivot..D {
                left[i][j] -= factor * left[pivot][j];
            }
        }
    }
    rows - 0.5 * pulls + 0.5 * ln_det
}

fn check<const D: usize>() {
    let low = [0.1, -0.2, 0.0, -0.3, 0.05, 0.2];
    let high = low.map(|x| x + 5.5);
    for (prices, units, start) in [
        (low, [0.0; 6], [-1.5, 2.0]),
        (low, [0.0, 1.0, 0.0, 2.0, 0.0, 0.0], [-1.5, 2.0]),
        (low, [0.0; 6], [-1.5, 8.0]),
        (high, [0.0; 6], [1.0, 2.0]),
        (high, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [-1.5, -3.0]),
    ] {
        let product = product::<D>(prices, units);
        let mut mean = [0.2; D];
        mean[0] = start[0];
        mean[D - 1] = start[1];
        let found = product.settle(mean);
        let [before, mut normal] = found.unwrap_or_else(|| panic!("{prices:?} {units:?} {start:?}"));
        // As in successive passes: each starts from the result of the one before.
        for _ in 0..6 {
            normal = product.settle_from(&before, normal).unwrap();
        }
        let there = bound(&product, &before, &normal);
        let v = &normal.covariance;
        let means = (0..D).map(|k| v[k][k].sqrt());
        let sds = means.chain(covariances::<D>().map(|[j, k]| {
            let square = v[j][j] * v[k][k];
            if j == k {
                v[j][j]
            } else {
                (square - v[j][k] * v[j][k]).sqrt()
            }
        }));
        for (k, sd) in sds.enumerate() {
            for by in [-0.02 * sd, 0.02 * sd] {
                let mut step = [0.0; MOST_UNKNOWNS];
                step[k] = by;
                let change = bound(&product, &before, &normal.moved(&step, 1.0)) - there;
                // The grid is coarse: 1e-6 of curvature in each of six rows.
                assert!(change < 1e-5, "{D} latents, {k}: {change} by {by} at {normal:?}");
            }
        }
    }
}

#[test]
fn a_settled_product_is_where_the_bound_is_largest() {
    check::<1>();
    check::<2>();
    check::<3>();
}

#[test]
fn a_product_of_many_sales_is_left_alone() {
    let mut product = product::<2>([0.1; 6], [50.0; 6]);
    let rows = product.rows.map(|row| Row { weight: 50.0, ..row });
    product.rows = rows.collect::<Vec<_>>().into_iter();
    assert_eq!(product.settle([-1.5, 4.0]), None);
}
