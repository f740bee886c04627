//! Nodes and weights of the Gauss-Hermite rules for the standard normal density.

pub(crate) const ONE: [(f64, f64); 1] = [(0.0, 1.0)];
pub(crate) const THREE: [(f64, f64); 3] = [
    (-1.732_050_807_568_877_2, 1.0 / 6.0),
    (0.0, 2.0 / 3.0),
    (1.732_050_807_568_877_2, 1.0 / 6.0),
];
pub(crate) const NINE: [(f64, f64); 9] = [
    (-4.512745863399783, 2.2345844007746607e-05),
    (-3.20542900285647, 0.0027891413212317692),
    (-2.07684797867783, 0.04991640676521782),
    (-1.0232556637891326, 0.24409750289493953),
    (0.0, 0.40634920634920635),
    (1.0232556637891326, 0.24409750289493953),
    (2.07684797867783, 0.04991640676521782),
    (3.20542900285647, 0.0027891413212317692),
    (4.512745863399783, 2.2345844007746607e-05),
];

/// Nodes of the rule for D dimensions: nine on each axis.
pub(crate) const fn nodes(dimensions: usize) -> usize {
    9usize.pow(dimensions as u32)
}

/// Indices of a node along the axes of the rule for D dimensions; the last axis varies fastest.
pub(crate) const fn axes<const D: usize>(node: usize) -> [usize; D] {
    let (mut axes, mut left, mut axis) = ([0; D], node, D);
    while axis > 0 {
        axis -= 1;
        axes[axis] = left % 9;
        left /= 9;
    }
    axes
}

/// The rule for D dimensions, the product of nine nodes on each axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule<const D: usize> {
    pub(crate) nodes: Vec<[f64; D]>,
    /// Logs of the weights.
    pub(crate) logs: Vec<f64>,
}

impl<const D: usize> Rule<D> {
    pub(crate) fn new() -> Self {
        let of = |node: usize| axes::<D>(node).map(|place| NINE[place]);
        let log = |node: usize| of(node).iter().map(|(_, weight)| weight).product::<f64>().ln();
        Rule {
            nodes: (0..nodes(D)).map(|node| of(node).map(|(at, _)| at)).collect(),
            logs: (0..nodes(D)).map(log).collect(),
        }
    }
}
