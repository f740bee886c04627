//! What a device can do at most.

use serde::{Deserialize, Serialize};

/// The measured limits of a device, with which the speed of a run is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes per second that it reads from its memory.
    pub read_bytes_per_second: f64,
    /// Row-particles per second of the rows' arithmetic (rate, its sum, its sum with the deviation, its sum
    /// by period) in registers, without reading a row and without compensated summation, with the faster of
    /// the device's own exponential and the polynomial, whichever a run takes.
    pub row_particles_per_second: f64,
    /// How many times faster that arithmetic is with the device's own exponential than with the polynomial.
    pub native_exp2_ratio: f64,
    /// Seconds per launch in a sequence of dependent launches.
    pub launch_seconds: f64,
    /// Seconds from a launch until the host knows that it has ended.
    pub round_trip_seconds: f64,
}

impl Limits {
    /// Least seconds of an iteration over `rows` rows by each limit: reading four bytes of every row, and the
    /// arithmetic.
    pub fn iteration_seconds(&self, rows: usize, particles: usize) -> (f64, f64) {
        let read = 4.0 * rows as f64 / self.read_bytes_per_second;
        let arithmetic = (rows * particles) as f64 / self.row_particles_per_second;
        (read, arithmetic)
    }
}
