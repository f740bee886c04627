//! For backends that iterate a guide: [`SviRun`] turns an implementation of [`Iterate`], which makes one
//! iteration, into a [`Run`](crate::Run) that keeps the contract. See the example `own_backend`.

#[doc(inline)]
pub use infermark_svi::{
    Chart, Decision, GuidedRun, Iterate, NoiseSource, Piece, Recording, RunSetup, SviRun, log_joint_of,
};
