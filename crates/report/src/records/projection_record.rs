//! `projection.json`: a projection with the models, the links and the assumptions that it follows from.

use crate::scaling::link::Link;
use crate::scaling::model::{ScalingModel, Unfitted};
use crate::scaling::projection::{Projection, ProjectionPlan};
use infermark_fit_files::fit_record::SCHEMA_VERSION;
use serde::{Deserialize, Serialize};

/// A projection. Nothing in it was measured but what its models were fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectionRecord {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When it was computed, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub computed_at: String,
    /// The models.
    pub models: Vec<ScalingModel>,
    /// What was not projected, and why.
    pub not_projected: Vec<String>,
    /// The links that were assumed.
    pub links: Vec<Link>,
    /// The projected speeds.
    pub projections: Vec<Projection>,
}

impl ProjectionRecord {
    /// Projects what the models allow.
    pub fn new(
        fitted: Vec<Result<ScalingModel, Unfitted>>,
        plan: &ProjectionPlan,
        computed_at: String,
    ) -> Self {
        let mut models = Vec::new();
        let mut not_projected = Vec::new();
        for model in fitted {
            match model {
                Ok(model) => models.push(model),
                Err(why) => not_projected.push(why.to_string()),
            }
        }
        let has_gpu = models.iter().any(|model| model.is_gpu);
        if !has_gpu && !plan.gpus.is_empty() {
            not_projected.push(
                "GPUs: no GPU was measured, or not enough of it; a projection of GPUs needs the measured scaling of one".to_owned(),
            );
        }
        let projections: Vec<Projection> = models.iter().flat_map(|model| plan.of(model)).collect();
        let is_used = |link: &&Link| {
            projections
                .iter()
                .any(|p| p.within == link.name || p.between == link.name)
        };
        ProjectionRecord {
            schema_version: SCHEMA_VERSION,
            computed_at,
            links: plan
                .within
                .iter()
                .chain(&plan.between)
                .filter(is_used)
                .cloned()
                .collect(),
            models,
            not_projected,
            projections,
        }
    }

    /// What the projection assumes, one sentence each.
    pub fn assumptions(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .links
            .iter()
            .map(|link| format!("Link {}: {}. It was not measured.", link.in_words(), link.source))
            .collect();
        all.extend(
            [
                "An all-reduce is an exchange of parts and a gathering of sums, each rank with all others; the ranks of a node share its link to other nodes.",
                "All ranks start an iteration together and are as fast as those measured; nothing else uses the links.",
                "Rows are cut evenly; time per row, hierarchy and folding are those of the model, whatever the number of ranks.",
                "Copies and sums of the buffer cost per byte what they did between the ranks that were measured.",
            ]
            .map(str::to_owned),
        );
        if self.models.iter().any(|model| !model.is_gpu) {
            all.push("A node without GPUs is as the machine that was measured, with as many ranks as were measured at most; inside it the all-reduce costs what was measured.".to_owned());
        }
        if self
            .models
            .iter()
            .any(|model| model.is_gpu && model.most_ranks == 1)
        {
            all.push("What a shard adds on a GPU was measured on logical shards of one, which are taken to follow each other on it.".to_owned());
        }
        all
    }
}
