//! The model and its SVI in plain `f64` Rust: what every backend is held against, and the words that they share.

#[doc(inline)]
pub use infermark_model::{
    guide::Guide,
    log_joint::LogJoint,
    noise::Stream,
    svi::{GuideMoments, LossAndGradient, Noise, draw_noise, loss_and_gradient, loss_and_gradient_of},
};
