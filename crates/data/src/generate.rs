//! Synthetic panels: the published data-generating process, and the model itself.
//!
//! Products are drawn as numbered candidates, each from its own ChaCha8 stream of the seed, so that a panel
//! depends on the seed alone, not on the thread count. [`Generator::products`] is the number of products
//! kept: candidates are drawn in order until that many remain.

mod accepted;
mod candidate;
mod demand;
mod in_memory;
mod to_file;

pub use demand::Process;
pub use in_memory::generate_panel;
pub use to_file::generate_to_file;

use infermark_atomic_file::FileError;
use infermark_memory::Shortage;
use infermark_model::poisson::MAX_RATE;
use infermark_model::{Labels, Likelihood, PriorsError};
use std::path::PathBuf;

/// What to draw. Products are labelled `p0..`, categories `c0..` (zero-padded), periods 1 to T.
///
/// A category without products is absent from the panel, as it would be from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    /// The process.
    pub process: Process,
    /// The distribution of the counts given their rates. Its parameter for each category is drawn from the
    /// priors of the process or, in the published process, from a normal with the moments of
    /// [`Likelihood::synthetic_parameter`].
    pub likelihood: Likelihood,
    /// N, products that remain.
    pub products: usize,
    /// T, periods.
    pub periods: usize,
    /// C, categories to draw from.
    pub categories: usize,
    /// Seed of everything.
    pub seed: u64,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A size is zero or too large.
    #[error("{what} is {value}; it must be from 1 to {most}")]
    Size {
        /// Which.
        what: &'static str,
        /// The requested value.
        value: usize,
        /// The largest possible value.
        most: usize,
    },
    /// The priors to draw from are invalid.
    #[error(transparent)]
    Priors(#[from] PriorsError),
    /// The upper clip bound allows rates that no 31-bit count holds.
    #[error("the upper clip bound is {clip_high}; units stay below 2^31 only with at most {most:.3}")]
    Rate {
        /// The bound.
        clip_high: f64,
        /// The largest possible.
        most: f64,
    },
    /// A count is too large.
    #[error("a row of {units:.1e} units was drawn, 2^31 at most; lower the means of the priors or clip_high")]
    Units {
        /// The units drawn, approximately.
        units: f64,
    },
    /// Nearly every candidate is dropped.
    #[error(
        "{candidates} candidates left only {found} products with more than 100 units; ask for more periods"
    )]
    TooFewRemain {
        /// Candidates drawn.
        candidates: u64,
        /// How many of them remain.
        found: usize,
    },
    /// The output's name does not show its format.
    #[error("{}: the name must end in .parquet or .csv", path.display())]
    Extension {
        /// The output.
        path: PathBuf,
    },
    /// The panel and its truth were given one name.
    #[error("{}: the panel and its truth cannot be one file; give the truth another name", path.display())]
    SameFile {
        /// The output.
        path: PathBuf,
    },
    /// An output cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The panel does not fit in memory; it is refused before it is drawn.
    #[error("{0}; give it more memory, or draw fewer products or periods")]
    Memory(#[from] Shortage),
    /// The progress callback asked to stop.
    #[error("stopped after {} of {} products; nothing was written", .0.products_done, .0.products)]
    Stopped(GenerateProgress),
}

/// The progress of generating a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerateProgress {
    /// Products written.
    pub products_done: usize,
    /// Products to write.
    pub products: usize,
}

impl Generator {
    /// Checks that a panel of these sizes can be generated.
    ///
    /// # Errors
    /// [`GenerateError`] says what is out of range, and the range.
    pub fn validate(&self) -> Result<(), GenerateError> {
        for (what, value, most) in [
            ("the number of products", self.products, u32::MAX as usize),
            ("the number of periods", self.periods, 1 << 24),
            ("the number of categories", self.categories, 1 << 24),
            (
                "the number of categories times that of periods",
                self.categories.saturating_mul(self.periods),
                1 << 28,
            ),
            (
                "the number of rows",
                self.products.saturating_mul(self.periods),
                u32::MAX as usize,
            ),
        ] {
            if value == 0 || value > most {
                return Err(GenerateError::Size { what, value, most });
            }
        }
        if let Process::Model(priors) = &self.process {
            priors.validate()?;
            if priors.clip_high.exp() > MAX_RATE {
                return Err(GenerateError::Rate {
                    clip_high: priors.clip_high,
                    most: MAX_RATE.ln(),
                });
            }
        }
        Ok(())
    }

    fn product_labels(&self) -> Labels {
        Labels::numbered("p", self.products)
    }

    fn period_labels(&self) -> Labels {
        Labels::Integer((1..=self.periods as i64).collect())
    }

    /// Labels of the categories that have products.
    fn category_labels(&self, kept: &[usize]) -> Labels {
        let all = Labels::numbered("c", self.categories);
        if kept.len() == self.categories {
            return all;
        }
        Labels::Text(kept.iter().map(|c| all.get(*c).to_string().into()).collect())
    }
}
