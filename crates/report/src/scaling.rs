//! Scaling: what more devices or ranks bring, as measured ([`series`]), and a model of it ([`model`]) from which larger
//! machines are projected ([`projection`]) over links ([`link`]) that nobody here has measured.

mod least_squares;
pub mod link;
pub mod model;
pub mod projection;
pub mod series;
