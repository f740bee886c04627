//! The records of measurements, one JSON file per case or point.

pub mod case_record;
pub mod memory_limit;
pub mod parity;
pub mod projection_record;
pub mod published_nuts;
pub mod results_folder;
pub mod scaling_record;
