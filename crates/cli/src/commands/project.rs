//! `infermark project`: what larger machines would bring, by a model that is fitted on measured scaling.

use crate::exit::Exit;
use crate::output::print;
use anyhow::{bail, ensure};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use infermark_atomic_file::ClaimedFolder;
use infermark_report::records::projection_record::ProjectionRecord;
use infermark_report::records::results_folder::{ResultsFolder, now_utc};
use infermark_report::records::scaling_record::ScalingRecord;
use infermark_report::redraw::draw_projection;
use infermark_report::scaling::link::Link;
use infermark_report::scaling::model::fit;
use infermark_report::scaling::projection::ProjectionPlan;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Arguments of `project`.
#[derive(Debug, Args)]
pub struct ProjectArguments {
    /// Folders that `infermark scaling` wrote: the model is fitted on what was measured there. GPUs are projected only from a folder of GPUs.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Panels, in products; by default those that were measured.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    products: Vec<usize>,
    /// Numbers of GPUs in one node.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [2, 4, 8])]
    gpus: Vec<usize>,
    /// Numbers of nodes.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [2, 4, 16])]
    nodes: Vec<usize>,
    /// GPUs of a node, where there are several nodes.
    #[arg(long, value_name = "N", default_value_t = 8)]
    gpus_per_node: usize,
    /// Links between the GPUs of a node: nvlink, pcie, or figures such as 5us:12GB/s (a message's latency, bytes per second in one direction). Several nodes
    /// have the first.
    #[arg(long, value_name = "LINK,..", value_delimiter = ',', default_values = ["nvlink", "pcie"])]
    within: Vec<Link>,
    /// Links between nodes: infiniband-200, infiniband-400, ethernet-25, or figures.
    #[arg(long, value_name = "LINK,..", value_delimiter = ',', default_values = ["infiniband-200", "ethernet-25"])]
    between: Vec<Link>,
    /// Folder to write; by default `projection` in the first folder. Where there is something in it already, -2, -3 .. is appended to its
    /// name.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ProjectArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        for (option, counts) in [
            ("gpus", &self.gpus),
            ("nodes", &self.nodes),
            ("products", &self.products),
        ] {
            ensure!(!counts.contains(&0), "--{option} has a 0; give at least 1");
        }
        ensure!(self.gpus_per_node > 0, "--gpus-per-node is 0; give at least 1");
        let (mut records, mut collectives) = (Vec::new(), Vec::new());
        for dir in &self.dirs {
            let folder = ResultsFolder::existing(dir);
            records.extend(folder.read_scaling()?);
            collectives.extend(folder.read_collectives()?);
        }
        let fitted = fit(&records, &collectives);
        let has_gpu = fitted.iter().flatten().any(|model| model.is_gpu);
        if !has_gpu && given.value_source("gpus") == Some(ValueSource::CommandLine) {
            bail!(
                "no GPU was measured in {}, so none is projected; measure one (infermark scaling --devices gpu) and give its folder",
                self.dirs[0].display()
            );
        }
        let reasons: Vec<String> = fitted
            .iter()
            .filter_map(|model| Some(model.as_ref().err()?.to_string()))
            .collect();
        ensure!(
            reasons.len() < fitted.len(),
            "there is nothing to project from: {}",
            match reasons.as_slice() {
                [] => "no point was measured".to_owned(),
                reasons => reasons.join("; "),
            }
        );
        let plan = ProjectionPlan {
            panels: self.panels(&records),
            gpus: self.gpus,
            nodes: self.nodes.into_iter().filter(|nodes| *nodes > 1).collect(),
            gpus_per_node: self.gpus_per_node,
            within: self.within,
            between: self.between,
        };
        let record = ProjectionRecord::new(fitted, &plan, now_utc());
        let folder = ResultsFolder::create(&self.out.unwrap_or_else(|| self.dirs[0].join("projection")))?;
        let _claimed = ClaimedFolder::claim(folder.path(), &[])?;
        let drawn = draw_projection(&folder, &record)?;
        print(|out| {
            write!(out, "{}", drawn.table)?;
            writeln!(out, "\nprojection: {}", folder.path().display())
        })?;
        Ok(Exit::Done)
    }

    /// Products and rows of the panels: those given, each product with as many rows as those measured have, or those measured on one rank.
    fn panels(&self, records: &[ScalingRecord]) -> Vec<(usize, usize)> {
        let measured: BTreeSet<(usize, usize)> = records
            .iter()
            .filter(|r| r.has_speed() && r.placement.ranks == 1)
            .map(|r| (r.panel.products, r.panel.rows))
            .collect();
        let Some((products, rows)) = measured.last() else {
            return Vec::new();
        };
        let rows_per_product = *rows as f64 / *products as f64;
        if self.products.is_empty() {
            return measured.into_iter().collect();
        }
        let rows_of = |products: &usize| (*products, (*products as f64 * rows_per_product).round() as usize);
        self.products.iter().map(rows_of).collect()
    }
}
