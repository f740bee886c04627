//! Autocovariances averaged over chains, lag by lag, as far as they are asked for.

use crate::fourier::Fourier;
use crate::sums::{dot, sum};

/// Lags are summed directly up to this many times the logarithm of the transform's length; beyond, one transform
/// gives all of them at about the cost of the lags before.
const DIRECT_LAGS_PER_LEVEL: usize = 3;

/// Mean over rows of the autocovariance with divisor `n`, for rows of equal length.
#[derive(Debug, Default)]
pub(crate) struct MeanAutocovariance {
    length: usize,
    centred: Vec<f64>,
    direct_lags: usize,
    transformed: bool,
    fourier: Option<Fourier>,
    buffer: Vec<[f64; 2]>,
    power: Vec<f64>,
}

impl MeanAutocovariance {
    /// Takes rows of `length` draws each and returns the mean of every row.
    pub(crate) fn load(&mut self, rows: &[f64], length: usize) -> Vec<f64> {
        self.length = length;
        self.transformed = false;
        self.direct_lags = DIRECT_LAGS_PER_LEVEL * (2 * length).next_power_of_two().ilog2() as usize;
        self.centred.clear();
        rows.chunks_exact(length)
            .map(|row| {
                let mean = sum(row) / length as f64;
                self.centred.extend(row.iter().map(|x| x - mean));
                mean
            })
            .collect()
    }

    /// The mean autocovariance at `lag`, which is below the length.
    pub(crate) fn at(&mut self, lag: usize) -> f64 {
        if lag < self.direct_lags {
            let rows = self.centred.len() / self.length;
            let sum: f64 = self
                .centred
                .chunks_exact(self.length)
                .map(|row| dot(&row[..row.len() - lag], &row[lag..]))
                .sum();
            return sum / (self.length * rows) as f64;
        }
        if !self.transformed {
            self.transform();
            self.transformed = true;
        }
        self.buffer[lag][0]
    }

    /// Leaves the autocovariances in the real parts of `buffer`. Two rows share a transform, one as real and one as
    /// imaginary part: only the sum of their power spectra is needed, and that is the symmetric part of `|Z|^2`.
    fn transform(&mut self) {
        let size = (2 * self.length).next_power_of_two();
        if self.fourier.as_ref().is_none_or(|f| f.length() != size) {
            self.fourier = Some(Fourier::new(size));
        }
        let fourier = self.fourier.as_mut().expect("made above");
        self.power.clear();
        self.power.resize(size, 0.0);
        let rows = self.centred.len() / self.length;
        for pair in self.centred.chunks(2 * self.length) {
            let (first, second) = pair.split_at(self.length);
            self.buffer.clear();
            self.buffer.resize(size, [0.0; 2]);
            for (entry, x) in self.buffer.iter_mut().zip(first) {
                entry[0] = *x;
            }
            for (entry, x) in self.buffer.iter_mut().zip(second) {
                entry[1] = *x;
            }
            fourier.forward(&mut self.buffer);
            for (power, [re, im]) in self.power.iter_mut().zip(&self.buffer) {
                *power += re * re + im * im;
            }
        }
        let scale = 1.0 / (size * self.length * rows) as f64;
        for k in 0..size {
            let mirrored = self.power[(size - k) % size];
            self.buffer[k] = [0.5 * (self.power[k] + mirrored) * scale, 0.0];
        }
        // The spectrum is real and even, so that the forward transform is also the inverse one.
        fourier.forward(&mut self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transform_and_direct_sums_agree() {
        for (rows, length) in [(1usize, 37usize), (3, 100), (8, 500)] {
            let draws: Vec<f64> = (0..rows * length)
                .map(|i| (i as f64 * 0.37).sin() + 3.0)
                .collect();
            let mut by_transform = MeanAutocovariance::default();
            by_transform.load(&draws, length);
            by_transform.direct_lags = 0;
            let mut direct = MeanAutocovariance::default();
            direct.load(&draws, length);
            direct.direct_lags = usize::MAX;
            for lag in 0..length {
                // Rounding of a transform of up to 1024 points of order 1.
                assert!(
                    (by_transform.at(lag) - direct.at(lag)).abs() < 1e-13,
                    "{rows} {length} {lag}"
                );
            }
        }
    }
}
