//! The model and its SVI in plain `f64` Rust: the reference for every backend, and the types that they share.

#[doc(inline)]
pub use infermark_model::{
    guide::Guide,
    log_joint::LogJoint,
    noise::Stream,
    svi::{GuideMoments, LossAndGradient, Noise, draw_noise, loss_and_gradient, loss_and_gradient_of},
};
