//! Distances between guides.

use crate::norm;
use infermark_model::PerSite;
use infermark_model::guide::Guide;

/// All parameters of a guide in one vector.
pub fn flat(guide: &Guide) -> Vec<f64> {
    let mut all = guide.loc.clone();
    all.extend(&guide.unconstrained_scale);
    all.extend(
        guide
            .unconstrained_centredness
            .iter()
            .flat_map(PerSite::reparameterized),
    );
    all
}

/// Entry by entry.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Distance of two gradients (or guides), as a share of the norm of the second.
pub fn relative_distance(found: &Guide, expected: &Guide) -> f64 {
    let expected = flat(expected);
    norm(&difference(&flat(found), &expected)) / norm(&expected)
}
