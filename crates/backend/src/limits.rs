//! What a device can do at most.

use serde::{Deserialize, Serialize};

/// The measured limits of a device: what the speed of a run is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes a second that it reads from its memory.
    pub read_bytes_per_second: f64,
    /// Row-particles a second of the rows' arithmetic (rate, its sum, its sum with the deviation, its sum by period) in
    /// registers, without reading a row and without recovering what a sum rounds away, by the faster of the device's own
    /// exponential and the polynomial, whichever a run takes.
    pub row_particles_per_second: f64,
    /// How many times faster that arithmetic is with the device's own exponential than with the polynomial.
    pub native_exp2_ratio: f64,
    /// Seconds that one launch takes among many that wait for one another.
    pub launch_seconds: f64,
    /// Seconds from a launch to the host's knowing of its end.
    pub round_trip_seconds: f64,
}

impl Limits {
    /// Seconds that an iteration over so many rows takes at least, by each limit: reading four bytes of every row, and
    /// the arithmetic.
    pub fn iteration_seconds(&self, rows: usize, particles: usize) -> (f64, f64) {
        let read = 4.0 * rows as f64 / self.read_bytes_per_second;
        let arithmetic = (rows * particles) as f64 / self.row_particles_per_second;
        (read, arithmetic)
    }
}
