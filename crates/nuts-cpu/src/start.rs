//! Starting points of the chains: under the diagonal metric uniform in (-2, 2) in every `z`, like NumPyro's
//! `init_to_uniform`; under the structured one normal about the mode, twice as wide as the Gaussian there.

use infermark_model::guide::START_RADIUS;
use infermark_model::noise::{PARTICLES_PER_BLOCK, START_ITERATION, Stream};

/// Number of starts that are tried until log density and gradient are finite.
pub(crate) const ATTEMPTS: u32 = 100;

/// Noise groups that one attempt may use: chains, at most 1024, over the four numbers of a noise block.
const GROUPS_PER_ATTEMPT: u32 = 256;

/// The start of a chain. Chain 0 starts at its first attempt where the variational guide of the same seed starts.
pub(crate) fn start_point(latents: usize, seed: u64, chain: usize, attempt: u32) -> Vec<f64> {
    let (stream, group, lane) = place(seed, chain, attempt);
    // In single precision, as the guide does.
    let radius = START_RADIUS as f32;
    (0..latents as u64)
        .map(|latent| f64::from(radius * (2.0 * stream.uniforms(latent, group)[lane] - 1.0)))
        .collect()
}

/// Standard deviation of the whitened starts: twice the posterior's, so that chains that have not mixed can
/// be recognized.
const WHITENED_SPREAD: f64 = 2.0;

/// The start of a chain in whitened coordinates: normal, wider than the posterior.
pub(crate) fn whitened_start_point(latents: usize, seed: u64, chain: usize, attempt: u32) -> Vec<f64> {
    let (stream, group, lane) = place(seed, chain, attempt);
    (0..latents as u64)
        .map(|latent| WHITENED_SPREAD * f64::from(stream.normals(latent, group)[lane]))
        .collect()
}

/// The stream, the noise group and the number in its blocks that a chain's attempt uses.
fn place(seed: u64, chain: usize, attempt: u32) -> (Stream, u32, usize) {
    let stream = Stream {
        seed,
        iteration: START_ITERATION,
    };
    let (group, lane) = (chain / PARTICLES_PER_BLOCK, chain % PARTICLES_PER_BLOCK);
    (stream, attempt * GROUPS_PER_ATTEMPT + group as u32, lane)
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

    #[test]
    fn whitened_starts_are_wider_than_the_posterior() {
        let first = whitened_start_point(4000, 7, 0, 0);
        assert_eq!(first, whitened_start_point(4000, 7, 0, 0));
        let variance = first.iter().map(|x| x * x).sum::<f64>() / 4000.0;
        // The variance of 4,000 normals has an error of 2.2%; five of those.
        assert!(
            (variance / WHITENED_SPREAD.powi(2) - 1.0).abs() < 0.11,
            "{variance}"
        );
        for (seed, chain, attempt) in [(8, 0, 0), (7, 1, 0), (7, 4, 0), (7, 0, 1)] {
            let other = whitened_start_point(4000, seed, chain, attempt);
            assert!(first.iter().zip(&other).all(|(a, b)| a != b));
        }
    }
}
