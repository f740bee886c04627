//! Where chains start: uniform in (-2, 2) in every `z`, as NumPyro's `init_to_uniform` does.

use infermark_model::guide::START_RADIUS;
use infermark_model::noise::{PARTICLES_PER_BLOCK, START_ITERATION, Stream};

/// Starts that are tried until log density and gradient are finite.
pub(crate) const ATTEMPTS: u32 = 100;

/// Noise groups that one attempt may use: chains, at most 1024, over the four numbers of a noise block.
const GROUPS_PER_ATTEMPT: u32 = 256;

/// The start of a chain. Chain 0 starts at its first attempt where the variational guide of the same seed starts.
pub(crate) fn start_point(latents: usize, seed: u64, chain: usize, attempt: u32) -> Vec<f64> {
    let stream = Stream {
        seed,
        iteration: START_ITERATION,
    };
    let (group, lane) = (chain / PARTICLES_PER_BLOCK, chain % PARTICLES_PER_BLOCK);
    let group = attempt * GROUPS_PER_ATTEMPT + group as u32;
    // In single precision, as the guide does.
    let radius = START_RADIUS as f32;
    (0..latents as u64)
        .map(|latent| f64::from(radius * (2.0 * stream.uniforms(latent, group)[lane] - 1.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::guide::Guide;
    use infermark_model::{Layout, Parameterization};

    #[test]
    fn the_first_chain_starts_where_the_guide_does() {
        let layout = Layout::new(70, 3, 11);
        for seed in [0, 9, u64::MAX] {
            let guide = Guide::start(&layout, Parameterization::Centered, seed);
            assert_eq!(start_point(layout.latents(), seed, 0, 0), guide.loc);
        }
    }

    #[test]
    fn starts_differ_by_seed_chain_and_attempt() {
        let base = start_point(50, 1, 0, 0);
        assert!(base.iter().all(|z| z.abs() <= START_RADIUS));
        assert_eq!(base, start_point(50, 1, 0, 0));
        for other in [
            start_point(50, 2, 0, 0),
            start_point(50, 1, 1, 0),
            start_point(50, 1, 4, 0),
            start_point(50, 1, 0, 1),
        ] {
            assert!(base.iter().zip(&other).filter(|(a, b)| a == b).count() == 0);
        }
    }
}
