//! The state of a run in a checkpoint: the point that it has reached.
//!
//! A run that goes on from there seeks the mode from that point, as one does whose work was stopped within a step: to the same
//! optimum within its tolerance.

use super::{Fitted, GaussianRun, Stage};
use crate::backend::no_pass;
use crate::newton::ModeSearch;
use infermark_backend::{BackendError, Checkpoint, Request, StateFormat, StepPoint};
use infermark_model::Panel;
use serde::{Deserialize, Serialize};

/// The format of the state, of all Gaussian methods.
const FORMAT: StateFormat = StateFormat {
    name: "gaussian",
    version: 1,
};

/// The state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedRun {
    /// Natural parameters; `None` where no step is done.
    point: Option<Vec<f64>>,
    newton_steps: u64,
    trace: Vec<StepPoint>,
    run_seconds: f64,
}

impl SavedRun {
    /// The state in `checkpoint`, for the backend `reader`.
    ///
    /// # Errors
    /// When it is of another format or panel.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        reader: &'static str,
        panel: &Panel,
        request: &Request,
    ) -> Result<Self, BackendError> {
        let saved: SavedRun = checkpoint.state(reader, FORMAT)?;
        let latents = panel.layout_for(request.likelihood).latents();
        match &saved.point {
            Some(point) if point.len() != latents => Err(Checkpoint::malformed(format!(
                "it has {} latents, the panel {latents}",
                point.len()
            ))),
            Some(point) if !point.iter().all(|x| x.is_finite()) => {
                Err(Checkpoint::malformed("its point is not finite"))
            }
            _ => Ok(saved),
        }
    }
}

impl GaussianRun {
    /// The checkpoint of the run now; there is none where another device walks the rows.
    pub(super) fn saved(&self) -> Result<Option<Checkpoint>, BackendError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.device.is_some() {
            return Ok(None);
        }
        let point = match (&self.stage, &self.fitted) {
            (Stage::Mode(search), _) => search.reached(),
            (Stage::Variational(search), _) => Some(search.means().to_vec()),
            (Stage::Over, Some(Fitted::Mode(point, _) | Fitted::Precision(point, _))) => Some(point.clone()),
            (Stage::Over, _) => self.posterior.as_ref().map(|posterior| posterior.mean.clone()),
        };
        let point = match point {
            Some(mut point) => {
                self.counts
                    .gather_products(&mut [&mut point])
                    .map_err(|error| no_pass(&error.into(), self.counts.panel()))?;
                Some(point)
            }
            None => None,
        };
        let newton_steps = self.report.newton_steps;
        let of_mode = |step: &&StepPoint| step.step <= newton_steps;
        let saved = SavedRun {
            point,
            newton_steps,
            trace: self.report.trace.iter().filter(of_mode).copied().collect(),
            run_seconds: self.run_seconds,
        };
        Checkpoint::new(self.name, FORMAT, self.completed(), &saved).map(Some)
    }

    /// The same run from the point of `saved` on.
    pub(crate) fn gone_on_from(mut self, saved: &SavedRun) -> Self {
        self.report.newton_steps = saved.newton_steps;
        self.report.trace.clone_from(&saved.trace);
        self.run_seconds = saved.run_seconds;
        if let Some(point) = saved.point.clone() {
            let search =
                ModeSearch::resumed(&self.counts, &self.settings, point, saved.newton_steps as usize);
            self.stage = Stage::Mode(Box::new(search));
        }
        self
    }
}
