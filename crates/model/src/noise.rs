//! Counter-based noise: Philox4x32-10, and normals derived from it.
//!
//! Key: (seed's low half, iteration). Counter: (latent low, latent high, particle group, seed's high half). One
//! block of four words gives the normals of four particles, so every backend, device count and shard count draws
//! the same noise.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// Particles that one Philox block serves.
pub const PARTICLES_PER_BLOCK: usize = 4;

/// The "iteration" under which start values are drawn; no run reaches it.
pub const START_ITERATION: u32 = u32::MAX;

/// First multiplier of a round.
pub const PHILOX_M0: u32 = 0xD251_1F53;
/// Second multiplier of a round.
pub const PHILOX_M1: u32 = 0xCD9E_8D57;
/// Added to the first key word after each round.
pub const PHILOX_W0: u32 = 0x9E37_79B9;
/// Added to the second key word after each round.
pub const PHILOX_W1: u32 = 0xBB67_AE85;

/// Philox4x32 with ten rounds.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * u64::from(PHILOX_M0);
        let p1 = u64::from(counter[2]) * u64::from(PHILOX_M1);
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(PHILOX_W0), key[1].wrapping_add(PHILOX_W1)];
    }
    counter
}

/// The stream of a run: a seed and an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// The iteration, from 0.
    pub iteration: u32,
}

impl Stream {
    /// The key of the stream.
    pub const fn key(&self) -> [u32; 2] {
        [self.seed as u32, self.iteration]
    }

    /// The counter of a latent for the particles `4 * group ..`.
    pub const fn counter(&self, latent: u64, group: u32) -> [u32; 4] {
        [
            latent as u32,
            (latent >> 32) as u32,
            group,
            (self.seed >> 32) as u32,
        ]
    }

    /// Four normals: the latent's noise for the particles `4 * group .. 4 * group + 4`.
    pub fn normals(&self, latent: u64, group: u32) -> [f32; 4] {
        let w = philox4x32_10(self.counter(latent, group), self.key());
        let [a, b] = box_muller(w[0], w[1]);
        let [c, d] = box_muller(w[2], w[3]);
        [a, b, c, d]
    }

    /// Four uniforms in (0, 1].
    pub fn uniforms(&self, latent: u64, group: u32) -> [f32; 4] {
        philox4x32_10(self.counter(latent, group), self.key()).map(open_unit)
    }
}

/// A word as a number in (0, 1]: `(w + 1/2) / 2^32`, rounded to `f32`.
pub fn open_unit(w: u32) -> f32 {
    // 2^-33 keeps the result above zero; rounding may give exactly 1, whose logarithm is 0 and harmless.
    (w as f32).mul_add(2f32.powi(-32), 2f32.powi(-33))
}

/// Two normals from two words: radius from the first, angle from the second (its top 24 bits, exact in
/// `f32`).
///
/// Evaluated in `f64` and rounded: this is the definition; vector versions in `f32` agree with it to 1e-5.
pub fn box_muller(w0: u32, w1: u32) -> [f32; 2] {
    let radius = (-2.0 * f64::from(open_unit(w0)).ln()).sqrt();
    let angle = std::f64::consts::TAU * f64::from(w1 >> 8) * 2f64.powi(-24);
    [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_known_answers() {
        // From the authors' Random123 distribution, kat_vectors, philox4x32 10.
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_normal_moments() {
        let n = 200_000u64;
        let (mut m1, mut m2, mut m4, mut cross) = (0.0, 0.0, 0.0, 0.0);
        for latent in 0..n {
            let z = Stream {
                seed: 5,
                iteration: 9,
            }
            .normals(latent, 0)
            .map(f64::from);
            for v in z {
                m1 += v;
                m2 += v * v;
                m4 += v.powi(4);
            }
            cross += z[0] * z[1] + z[2] * z[3];
        }
        let count = 4.0 * n as f64;
        // Five standard errors of each moment.
        assert!((m1 / count).abs() < 5.0 / count.sqrt());
        assert!((m2 / count - 1.0).abs() < 5.0 * (2.0 / count).sqrt());
        assert!((m4 / count - 3.0).abs() < 5.0 * (96.0 / count).sqrt());
        assert!((cross / (2.0 * n as f64)).abs() < 5.0 / (2.0 * n as f64).sqrt());
    }

    #[test]
    fn streams_differ_by_seed_iteration_latent_and_group() {
        let base = Stream {
            seed: 1,
            iteration: 1,
        };
        let first = base.normals(7, 0);
        assert_ne!(first, Stream { seed: 2, ..base }.normals(7, 0));
        assert_ne!(
            first,
            Stream {
                seed: 1 + (1 << 32),
                ..base
            }
            .normals(7, 0)
        );
        assert_ne!(first, Stream { iteration: 2, ..base }.normals(7, 0));
        assert_ne!(first, base.normals(8, 0));
        assert_ne!(first, base.normals(7 + (1 << 32), 0));
        assert_ne!(first, base.normals(7, 1));
        assert!(open_unit(0) > 0.0 && open_unit(u32::MAX) <= 1.0);
    }
}
