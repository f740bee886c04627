//! Simulation-based calibration: whether the posteriors of a method are correct.
//!
//! Parameters are drawn from the prior, counts from the model, and a method is fitted to the counts. If prior, likelihood and
//! method fit together, the place of the true parameter in its posterior - its rank among draws, or the posterior's
//! distribution function at it - is uniform over such replications; intervals too narrow pile it up at both ends, too wide ones
//! in the middle, a shift at one end.
//!
//! | module | holds |
//! |---|---|
//! | `design` | what is drawn: sizes, priors, replications |
//! | `replication` | one draw: true parameters, panel, and the quantities that are looked at |
//! | `quantity` | the quantities |
//! | `rank_statistic` | the position of a truth in its posterior |
//! | `method_under_test` | a method under test, and its fit to a replication |
//! | `run` | all methods on all replications, over threads |
//! | `uniformity` | the exact test of uniformity, and its band |
//! | `score` | scores for errors of means and standard deviations, and their test |
//! | `power` | which errors a number of replications finds |
//! | `verdict` | tests, estimated errors and coverage of every method |
//!
//! Sources: Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian inference algorithms with simulation-based
//! calibration", 2018; Modrak, Moon, Kim, Buerkner, Huurre, Faltejskova, Gelman and Vehtari, "Simulation-based calibration
//! checking for Bayesian computation: the choice of test quantities shapes sensitivity", Bayesian Analysis, 2023.

mod design;
mod gamma;
mod method_under_test;
mod normal_cdf;
mod power;
mod quantity;
mod rank_statistic;
mod replication;
mod run;
mod score;
mod student;
mod uniformity;
mod verdict;

pub use design::{Design, DesignError, MODERATE_PRIORS};
pub use method_under_test::MethodUnderTest;
pub use power::{FOUND_WITH, Latents, PosteriorError, Power, Sensitivity};
pub use quantity::Quantity;
pub use rank_statistic::{RANK_DRAWS, Rank, RankStatistic};
pub use replication::{Replication, ReplicationError};
pub use run::{Calibration, CalibrationError, Failure, PlacedTruth, calibrate};
pub use score::{Basis, FEWEST_POOLED, Score, ScoreTest, Scores, TESTS};
pub use uniformity::{Band, CELLS, EcdfTest, Uniformity, binomial_interval, ecdf};
pub use verdict::{Coverage, ErrorEstimate, MethodVerdict, NOMINAL, QuantityVerdict, verdicts};
