//! The distance of the joint mode of a negative-binomial shape from the shape's own marginal.

use crate::averaging::Averaging;
use crate::negative_binomial::weight_of_rows;
use crate::newton::ModeError;
use crate::objective::GaussianObjective;
use infermark_arrowhead::ArrowheadFactor;
use infermark_backend::{GaussianWarning, ShapeShiftWarning};
use infermark_model::{Label, Site};

/// The distance of the joint mode of a log shape from its value when the log rates are averaged over their
/// posterior.
#[derive(Debug)]
pub(crate) struct ShapeShift {
    /// The category in which it is farthest, in standard deviations.
    pub(crate) category: usize,
    by: f64,
    in_sds: f64,
    /// The fraction by which intervals are too wide there, or too narrow if negative.
    too_wide: f64,
    /// Number of categories in which it is noticeable.
    categories: usize,
}

/// Noticeable shifts, in standard deviations of a log shape and absolute.
const NOTICED: (f64, f64) = (0.5, 0.05);

/// The longest shift whose size one step from the mode estimates: it overshoots where shifts are long, by a
/// factor of three where the counts are nearly Poisson.
const KNOWN: f64 = 0.5;

impl ShapeShift {
    /// Estimates the shift by one step of the structured variational iteration from the mode: `Q^-1` times
    /// the gradient whose rows are averaged over the Gaussian at the mode, as in a Laplace approximation to
    /// the marginal of the shapes. None if it is not noticeable.
    ///
    /// # Errors
    /// When the precision cannot be factored again.
    pub(crate) fn of(
        counts: &GaussianObjective,
        mode: &[f64],
        sd: &[f64],
        factor: ArrowheadFactor,
    ) -> Result<Option<Self>, ModeError> {
        let threads = factor.threads();
        let found = counts
            .evaluate(mode, Averaging::STRUCTURED, Some(factor), threads)?
            .found;
        let step = found.step(&found.gradient)?;
        let shapes = counts.layout().range(Site::LogShape);
        let shifts = shapes.clone().map(|j| (step[j], step[j].abs() / sd[j]));
        let noticed = |(_, (by, in_sds)): &(usize, (f64, f64))| *in_sds > NOTICED.0 && by.abs() > NOTICED.1;
        let all: Vec<(usize, (f64, f64))> = shifts.enumerate().filter(noticed).collect();
        let farthest = all.iter().max_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        let Some(&(category, (by, in_sds))) = farthest else {
            return Ok(None);
        };
        let at_mode = mode[shapes.start + category];
        let weight = |log_shape| weight_of_rows(counts.partition(), mode, category, log_shape);
        let mut weights = vec![weight(at_mode + by.clamp(-KNOWN, KNOWN)), weight(at_mode)];
        counts.partition().sum(&mut weights, Ok(()))?;
        Ok(Some(ShapeShift {
            category,
            by,
            in_sds,
            too_wide: (weights[0] / weights[1]).sqrt() - 1.0,
            categories: all.len(),
        }))
    }

    /// The warning, with the category's label and the number of categories.
    pub(crate) fn warning(&self, label: Label<'_>, categories: usize) -> GaussianWarning {
        GaussianWarning::ShapeShift(ShapeShiftWarning {
            category: label.to_string(),
            by: self.by,
            known: KNOWN,
            in_sds: self.in_sds,
            too_wide: self.too_wide,
            shifted: self.categories,
            categories,
        })
    }
}
