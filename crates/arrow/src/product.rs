//! A product's block: its 2 x 2 precision and its coupling to the border.

use infermark_model::Panel;
use infermark_model::priors::Priors;

/// Cholesky factor of a product's block `H = [[h_aa, h_ae], [h_ae, h_ee]]` over (elasticity, effect): lower triangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lower2 {
    pub(crate) aa: f64,
    pub(crate) ea: f64,
    pub(crate) ee: f64,
}

impl Lower2 {
    /// `None` where the block is not positive definite, or not finite.
    fn of(h_aa: f64, h_ae: f64, h_ee: f64) -> Option<Self> {
        let aa = h_aa.sqrt();
        let ea = h_ae / aa;
        let ee = (h_ee - ea * ea).sqrt();
        (aa > 0.0 && ee > 0.0 && aa.is_finite() && ee.is_finite()).then_some(Lower2 { aa, ea, ee })
    }

    /// `L^-1 b`.
    pub(crate) fn forward(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        let a = a / self.aa;
        [a, (e - self.ea * a) / self.ee]
    }

    /// `L^-T y`.
    pub(crate) fn backward(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        let e = e / self.ee;
        [(a - self.ea * e) / self.aa, e]
    }

    /// `L' x`.
    pub(crate) fn transpose_times(&self, [a, e]: [f64; 2]) -> [f64; 2] {
        [self.aa * a + self.ea * e, self.ee * e]
    }

    /// `ln det L`.
    pub(crate) fn ln_det(&self) -> f64 {
        self.aa.ln() + self.ee.ln()
    }
}

/// Weights of the panel's rows, read product by product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) panel: &'a Panel,
    /// One a row, in the panel's order.
    pub(crate) weights: &'a [f64],
    pub(crate) priors: &'a Priors,
}

impl Rows<'_> {
    /// Writes a product's `B`, two columns of length T + 1 (periods, then the category's elasticity), and returns the factor
    /// of its block. Columns are zero where a period is absent.
    pub(crate) fn coupling(&self, product: usize, b: &mut [f64]) -> Option<Lower2> {
        let border = b.len() / 2;
        let (by_a, by_e) = b.split_at_mut(border);
        let weights = &self.weights[self.panel.row_range(product)];
        let (mut h_aa, mut h_ae, mut h_ee) = (0.0, 0.0, 0.0);
        if !self.panel.is_dense() {
            by_a.fill(0.0);
            by_e.fill(0.0);
        }
        for (row, w) in self.panel.product_rows(product).zip(weights) {
            let wx = w * row.log_price;
            by_a[row.period] = wx;
            by_e[row.period] = *w;
            h_ee += w;
            h_ae += wx;
            h_aa += wx * row.log_price;
        }
        let precision = self.priors.product_a_sd.powi(-2);
        by_a[border - 1] = -precision;
        by_e[border - 1] = 0.0;
        Lower2::of(
            h_aa + precision,
            h_ae,
            h_ee + self.priors.product_effect_sd.powi(-2),
        )
    }

    /// Turns `B` into `V = L^-1 B` where it lies.
    pub(crate) fn solve_coupling(lower: &Lower2, b: &mut [f64]) {
        let border = b.len() / 2;
        let (by_a, by_e) = b.split_at_mut(border);
        let (over_aa, over_ee) = (1.0 / lower.aa, 1.0 / lower.ee);
        for (a, e) in by_a.iter_mut().zip(by_e) {
            *a *= over_aa;
            *e = (*e - lower.ea * *a) * over_ee;
        }
    }
}
