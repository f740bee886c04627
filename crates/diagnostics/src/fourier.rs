//! A complex fast Fourier transform of power-of-two length, for long autocovariances.

use std::f64::consts::TAU;

/// Twiddle factors and scratch of one length.
#[derive(Debug)]
pub(crate) struct Fourier {
    twiddle: Vec<[f64; 2]>,
    scratch: Vec<[f64; 2]>,
}

impl Fourier {
    /// A transform of `length` points.
    ///
    /// # Panics
    /// When `length` is not a power of two.
    pub(crate) fn new(length: usize) -> Self {
        assert!(length.is_power_of_two());
        Fourier {
            twiddle: (0..length / 2)
                .map(|k| {
                    let angle = -TAU * k as f64 / length as f64;
                    [angle.cos(), angle.sin()]
                })
                .collect(),
            scratch: vec![[0.0; 2]; length],
        }
    }

    /// Number of points.
    pub(crate) fn length(&self) -> usize {
        self.scratch.len()
    }

    /// The unnormalised forward transform in place; entries are real and imaginary part.
    ///
    /// Source: the Stockham autosort form of the Cooley-Tukey algorithm, radix 2.
    pub(crate) fn forward(&mut self, data: &mut Vec<[f64; 2]>) {
        let length = self.length();
        assert_eq!(data.len(), length);
        let (mut half, mut stride) = (length / 2, 1);
        while half > 0 {
            for p in 0..half {
                let [wr, wi] = self.twiddle[p * stride];
                let (a, b) = (&data[stride * p..], &data[stride * (p + half)..]);
                let (sum, difference) = self.scratch[2 * stride * p..][..2 * stride].split_at_mut(stride);
                for q in 0..stride {
                    let ([ar, ai], [br, bi]) = (a[q], b[q]);
                    let (dr, di) = (ar - br, ai - bi);
                    sum[q] = [ar + br, ai + bi];
                    difference[q] = [dr * wr - di * wi, dr * wi + di * wr];
                }
            }
            std::mem::swap(data, &mut self.scratch);
            half /= 2;
            stride *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_sum_that_defines_it() {
        for length in [1usize, 2, 8, 64] {
            let x: Vec<[f64; 2]> = (0..length)
                .map(|i| [(i as f64 * 0.7).sin(), (i as f64 * 1.3).cos()])
                .collect();
            let mut fast = x.clone();
            Fourier::new(length).forward(&mut fast);
            for (k, y) in fast.iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for (i, [a, b]) in x.iter().enumerate() {
                    let (sin, cos) = (-TAU * (i * k % length) as f64 / length as f64).sin_cos();
                    re += a * cos - b * sin;
                    im += a * sin + b * cos;
                }
                assert!(
                    (y[0] - re).abs() < 1e-12 && (y[1] - im).abs() < 1e-12,
                    "{length} {k}"
                );
            }
        }
    }
}
