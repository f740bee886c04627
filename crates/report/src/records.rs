//! The records of a benchmark, one JSON file per case.

pub mod case_record;
pub mod memory_limit;
pub mod parity;
pub mod published_nuts;
pub mod results_folder;
