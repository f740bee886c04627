//! Normals of the model's counter-based noise, a vector of latents at a time.

use crate::simd::NoiseSimd;
use infermark_model::noise::{PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1, Stream};

/// Normals of four particles for `LANES` latents: entry `p` of the result belongs to particle `4 * group + p`.
///
/// The words are those of [`Stream::normals`], the normals agree with it within 1e-5.
#[inline(always)]
pub fn normals<N: NoiseSimd>(isa: N, stream: Stream, group: u32, latents: &[u32]) -> [N::V; 4] {
    let w = philox(isa, stream, group, latents);
    let [a, b] = box_muller(isa, w[0], w[1]);
    let [c, d] = box_muller(isa, w[2], w[3]);
    [a, b, c, d]
}

#[inline(always)]
fn philox<N: NoiseSimd>(isa: N, stream: Stream, group: u32, latents: &[u32]) -> [N::U; 4] {
    let first = stream.counter(0, group);
    let mut counter = [
        isa.load_words(latents),
        isa.splat_words(first[1]),
        isa.splat_words(first[2]),
        isa.splat_words(first[3]),
    ];
    let mut key = stream.key();
    for _ in 0..10 {
        let (high0, low0) = isa.mul_wide(counter[0], PHILOX_M0);
        let (high1, low1) = isa.mul_wide(counter[2], PHILOX_M1);
        counter = [
            isa.xor3(high1, counter[1], isa.splat_words(key[0])),
            low1,
            isa.xor3(high0, counter[3], isa.splat_words(key[1])),
            low0,
        ];
        key = [key[0].wrapping_add(PHILOX_W0), key[1].wrapping_add(PHILOX_W1)];
    }
    counter
}

#[inline(always)]
fn box_muller<N: NoiseSimd>(isa: N, w0: N::U, w1: N::U) -> [N::V; 2] {
    // ln of a number in (0, 1] that rounding brought to 1 is 0; it cannot be positive.
    let radius = isa.sqrt(isa.mul(isa.splat(-2.0), isa.ln(isa.open_unit(w0))));
    let (cos, sin) = isa.cos_sin_turn(isa.turn(w1));
    [isa.mul(radius, cos), isa.mul(radius, sin)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{ForSimd, SimdDispatch, for_each_instruction_set};
    use crate::simd::{Kernel, Simd};

    /// Normals of four particles for all of `latents`, whose number is a multiple of 16.
    struct Fill<'a> {
        stream: Stream,
        group: u32,
        latents: &'a [u32],
    }

    impl<N: NoiseSimd> Kernel<N> for Fill<'_> {
        type Output = [Vec<f32>; 4];

        #[inline(always)]
        fn run(self, isa: N) -> [Vec<f32>; 4] {
            let mut out = std::array::from_fn(|_| vec![0.0; self.latents.len()]);
            for start in (0..self.latents.len()).step_by(N::LANES) {
                let v = normals(isa, self.stream, self.group, &self.latents[start..]);
                for p in 0..4 {
                    isa.store(v[p], &mut out[p][start..]);
                }
            }
            out
        }
    }

    struct Check<'a>(Stream, &'a [u32]);

    impl ForSimd for Check<'_> {
        type Output = ();

        fn run<I: Simd>(self, isa: I) {
            let Check(stream, latents) = self;
            for group in [0, 3] {
                let vectors = isa.noise().vectorize(Fill {
                    stream,
                    group,
                    latents,
                });
                for (i, latent) in latents.iter().enumerate() {
                    let expected = stream.normals(u64::from(*latent), group);
                    for p in 0..4 {
                        // Radius below 6.7, angle to 3e-7, ln to 3e-7 relative.
                        let error = (vectors[p][i] - expected[p]).abs();
                        assert!(error < 1e-5, "{} {} {isa:?}", vectors[p][i], expected[p]);
                    }
                }
            }
        }
    }

    #[test]
    fn vector_normals_are_the_models() {
        let stream = Stream {
            seed: 0x1234_5678_9abc_def0,
            iteration: 77,
        };
        let latents: Vec<u32> = (0..4096).map(|i| i * 1_048_571).collect();
        for_each_instruction_set(|set| set.run_f32(Check(stream, &latents)));
    }
}
