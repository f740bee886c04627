//! For backends that iterate a guide: [`SviRun`] makes a [`Run`](crate::Run), its contract included, of what
//! [`Iterate`] says of one iteration. The example `own_backend` does.

#[doc(inline)]
pub use infermark_svi::{
    Chart, GuidedRun, Iterate, NoiseSource, Piece, Recording, RunSetup, SviRun, Verdict, log_joint_of,
};
