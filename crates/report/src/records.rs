//! What is kept of a benchmark, one JSON per case.

pub mod case_record;
pub mod memory_limit;
pub mod parity;
pub mod published_nuts;
pub mod results_folder;
