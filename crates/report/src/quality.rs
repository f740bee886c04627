//! How far a posterior is from the truth and from a reference, and what its intervals cover.

pub mod agreement;
pub mod coverage;
pub mod truth;
