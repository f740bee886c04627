//! Derived from the records of several cases: speedups, and the time to a posterior.

pub mod speedup;
pub mod time_to_posterior;
