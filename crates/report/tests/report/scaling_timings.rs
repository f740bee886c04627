//! Made-up timings of scaling with known coefficients: of a machine with some cores, and of cards.

use crate::synthetic::{svi, system};
use infermark_backend::{DeviceId, Precision, Request};
use infermark_fit_files::panel_description::PanelDescription;
use infermark_report::records::case_record::{Sample, Status};
use infermark_report::records::scaling_record::{CollectiveRecord, Placement, ScalingRecord, ScalingSample};
use infermark_report::scaling::model::ComputeCost;

/// Bytes of the buffer.
pub(crate) const BYTES: f64 = 50_280.0;

/// What the played machine takes.
#[derive(Clone, Copy)]
pub(crate) struct Truth {
    pub(crate) compute: ComputeCost,
    pub(crate) operation: f64,
    pub(crate) message: f64,
    pub(crate) byte: f64,
    pub(crate) cores: usize,
    pub(crate) gpu: bool,
}

pub(crate) const CPU: Truth = Truth {
    compute: ComputeCost {
        seconds_per_row: 1.1e-9,
        hierarchy_seconds: 60e-6,
        fold_seconds: 14e-6,
    },
    operation: 2e-6,
    message: 1e-6,
    byte: 0.3e-9,
    cores: 2,
    gpu: false,
};

pub(crate) const GPU: Truth = Truth {
    compute: ComputeCost {
        seconds_per_row: 4e-12,
        hierarchy_seconds: 26e-6,
        fold_seconds: 30e-6,
    },
    gpu: true,
    cores: 16,
    ..CPU
};

impl Truth {
    pub(crate) fn collective(&self, ranks: usize, bytes: f64) -> f64 {
        match ranks {
            1 => 0.0,
            n => self.operation + 2.0 * (n as f64 - 1.0) * self.message + self.byte * bytes,
        }
    }

    /// Seconds of an iteration: shards of one GPU follow each other.
    pub(crate) fn seconds(&self, rows: usize, ranks: usize, devices: usize) -> f64 {
        let shards = if self.gpu { ranks / devices } else { 1 } as f64;
        let device_rows = rows as f64 / if self.gpu { devices } else { ranks } as f64;
        let fold = if ranks > 1 { self.compute.fold_seconds } else { 0.0 };
        self.compute.seconds_per_row * device_rows
            + shards * (self.compute.hierarchy_seconds + fold)
            + self.collective(ranks, BYTES)
    }

    pub(crate) fn placement(&self, ranks: usize, devices: usize) -> Placement {
        Placement {
            ranks,
            devices: if self.gpu { devices } else { 1 },
            threads_per_rank: 1,
            logical: ranks > if self.gpu { devices } else { self.cores },
            software: false,
            communicator: if ranks > 1 { "threads" } else { "none" }.into(),
        }
    }

    /// A point whose median is the truth.
    pub(crate) fn point(
        &self,
        sequence: usize,
        products: usize,
        ranks: usize,
        devices: usize,
    ) -> ScalingRecord {
        let rows = 156 * products;
        let seconds = self.seconds(rows, ranks, devices);
        let iterations = (2.0 / seconds).ceil() as u64;
        let placement = self.placement(ranks, devices);
        let ids: Vec<DeviceId> = match self.gpu {
            true => (0..devices)
                .map(|k| format!("cuda:{k}").parse().unwrap())
                .collect(),
            false => vec![DeviceId::CPU],
        };
        let communication = self.collective(ranks, BYTES) * iterations as f64;
        let mut system = system();
        system.cores = self.cores;
        ScalingRecord {
            schema_version: 4,
            sequence,
            measured_at: "2026-11-28T12:00:00Z".into(),
            status: if placement.logical {
                Status::Warn
            } else {
                Status::Ok
            },
            reason: match placement.logical {
                true => "no measurement of as many devices".into(),
                false => "none".into(),
            },
            backend: if ranks > 1 { "svi-sharded" } else { "svi-cpu" }.into(),
            device: if self.gpu {
                "Test card".into()
            } else {
                system.device.clone()
            },
            rows_of_ranks: (0..ranks)
                .map(|rank| rows * (rank + 1) / ranks - rows * rank / ranks)
                .collect(),
            request: Request {
                devices: ids,
                shards: ranks,
                threads: Some(ranks),
                ..Request::new(svi(Precision::F32))
            },
            placement,
            panel: PanelDescription {
                source: format!("published process, {products} products, seed 1"),
                products,
                categories: 10,
                periods: 156,
                rows,
                dense: true,
                sha256: format!("{products:064x}"),
            },
            parity: None,
            threads_used: Some(ranks),
            setup_seconds: Some(0.1),
            warmup: None,
            repeats: [0.99, 1.0, 1.01, 1.0, 1.005]
                .map(|share| ScalingSample {
                    iterations,
                    seconds: iterations as f64 * seconds * share,
                    communication_seconds: (0..if ranks > 1 { ranks } else { 0 })
                        .map(|rank| communication * (1.0 + 0.1 * rank as f64))
                        .collect(),
                })
                .to_vec(),
            bytes_per_iteration: Some(if ranks > 1 { BYTES } else { 0.0 }),
            busy_share: Some(0.01),
            system,
        }
    }

    pub(crate) fn collectives(&self, ranks: &[usize]) -> Vec<CollectiveRecord> {
        let sizes = [8, 12_568, BYTES as u64, 4 * BYTES as u64];
        let pairs = ranks.iter().flat_map(|ranks| sizes.map(|bytes| (*ranks, bytes)));
        pairs
            .enumerate()
            .map(|(sequence, (ranks, bytes))| CollectiveRecord {
                schema_version: 4,
                sequence,
                measured_at: "2026-11-28T12:05:00Z".into(),
                placement: Placement {
                    logical: ranks > self.cores,
                    ..self.placement(ranks, ranks)
                },
                bytes,
                repeats: vec![
                    Sample {
                        iterations: 1000,
                        seconds: 1000.0 * self.collective(ranks, bytes as f64),
                    };
                    3
                ],
                busy_share: Some(0.01),
                system: system(),
            })
            .collect()
    }
}

/// Two cores: strong scaling at three sizes, weak scaling from 1,000 products, and logical shards.
pub(crate) fn on_cpu() -> Vec<ScalingRecord> {
    let points = [
        (1_000, 1),
        (1_000, 2),
        (2_000, 2),
        (10_000, 1),
        (10_000, 2),
        (10_000, 4),
        (100_000, 1),
        (100_000, 2),
    ];
    points
        .iter()
        .enumerate()
        .map(|(k, (products, ranks))| CPU.point(k, *products, *ranks, 1))
        .collect()
}

/// One card with logical shards, and four.
pub(crate) fn on_gpus(points: &[(usize, usize, usize)]) -> Vec<ScalingRecord> {
    let point = |(k, (products, ranks, devices)): (usize, &(usize, usize, usize))| {
        GPU.point(k, *products, *ranks, *devices)
    };
    points.iter().enumerate().map(point).collect()
}
