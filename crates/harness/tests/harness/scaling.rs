//! Scaling measured from panel to files: with the real engine, and with one whose iterations take known times.

use infermark_backend::{
    Backend, BackendError, Capabilities, Device, DeviceId, Interrupt, Method, MethodKind, Precision, Request,
    Run, SviSettings,
};
use infermark_communicator::Communicator;
use infermark_harness::benchmark::BenchPanel;
use infermark_harness::observer::Silent;
use infermark_harness::scaling::{ScalingOutcome, ScalingPlan, measure_scaling};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Parameterization};
use infermark_report::records::case_record::Status;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::records::scaling_record::ScalingRecord;
use infermark_report::redraw::redraw_scaling;
use infermark_report::scaling::model::{ComputeCost, ScalingModel, fit};
use infermark_report::scaling::series::strong;
use infermark_svi::{
    Chart, Decision, Iterate, Link, Piece, RunSetup, ShardEngine, ShardIterate, ShardSetup, Sums, SviRun,
};
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::panel_with_gaps;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn make(products: usize) -> Result<BenchPanel, String> {
    Ok(BenchPanel {
        panel: panel_with_gaps(products),
        source: format!("test panel, {products} products"),
        product_a_truth: None,
    })
}

fn request() -> Request {
    Request {
        threads: Some(1),
        ..Request::new(Method::Svi(SviSettings {
            precision: Precision::F64,
            ..SviSettings::default()
        }))
    }
}

/// A plan that measures next to nothing.
fn plan(engine: impl ShardEngine + Clone + 'static, products: &[usize], ranks: &[usize]) -> ScalingPlan {
    ScalingPlan {
        products_per_rank: 0,
        repeats: 3,
        warmup_seconds: 0.0,
        warmup_iterations: 3,
        repeat_seconds: 0.03,
        settle_seconds: 0.0,
        ..ScalingPlan::new(
            Arc::new(engine.clone()),
            Arc::new(SviSharded::over(engine)),
            request(),
            products.to_vec(),
            ranks.to_vec(),
        )
    }
}

fn measured(plan: &ScalingPlan, folder: &Path, interrupt: &Interrupt) -> ScalingOutcome {
    let folder = ResultsFolder::create(folder).unwrap();
    measure_scaling(plan, &mut make, &folder, &mut Silent, interrupt).unwrap()
}

#[test]
fn points_of_the_real_engine_state_what_crossed() {
    let base = tempfile::tempdir().unwrap();
    let mut plan = plan(SviCpu::new(), &[12, 30], &[1, 2, 3]);
    plan.products_per_rank = 12;
    let out = base.path().join("r");
    let outcome = measured(&plan, &out, &Interrupt::new());
    assert!(outcome.is_success(), "{}", outcome.table);
    let points: Vec<(usize, usize)> = outcome
        .records
        .iter()
        .map(|r| (r.panel.products, r.placement.ranks))
        .collect();
    // Strong scaling at both sizes, weak scaling from 12 products on.
    assert_eq!(
        points,
        [
            (12, 1),
            (12, 2),
            (12, 3),
            (24, 2),
            (30, 1),
            (30, 2),
            (30, 3),
            (36, 3)
        ]
    );
    let cores = outcome.records[0].system.cores;
    for record in &outcome.records {
        let ranks = record.placement.ranks;
        assert!(record.status <= Status::Warn, "{}", record.reason);
        assert!(record.parity.as_ref().unwrap().passed());
        assert_eq!((record.repeats.len(), record.rows_of_ranks.len()), (3, ranks));
        assert_eq!(record.rows_of_ranks.iter().sum::<usize>(), record.panel.rows);
        assert_eq!(record.backend, if ranks > 1 { "svi-sharded" } else { "svi-cpu" });
        assert_eq!(record.placement.logical, ranks > cores);
        assert_eq!(record.threads_used, Some(ranks));
        assert_eq!(
            record.place().contains("logical shards"),
            ranks > cores,
            "{}",
            record.place()
        );
        // The bytes are those of the formula, to the byte.
        let panel = panel_with_gaps(record.panel.products);
        let sums = Sums::new(&panel.layout(), &Chart::Published(Parameterization::Centered), 4);
        let bytes = if ranks > 1 {
            8.0 * sums.numbers() as f64
        } else {
            0.0
        };
        assert_eq!(record.bytes_per_iteration, Some(bytes));
        for repeat in &record.repeats {
            assert_eq!(
                repeat.communication_seconds.len(),
                if ranks > 1 { ranks } else { 0 }
            );
            assert!(
                repeat
                    .communication_seconds
                    .iter()
                    .all(|s| *s > 0.0 && *s < repeat.seconds)
            );
        }
    }
    let sizes: Vec<(usize, u64)> = outcome
        .collectives
        .iter()
        .map(|c| (c.placement.ranks, c.bytes))
        .collect();
    let bytes = outcome.records[1].bytes_per_iteration.unwrap() as u64;
    assert_eq!(sizes.len(), 2 * 4);
    assert!(sizes.contains(&(2, bytes)) && sizes.contains(&(3, 8)));
    assert!(outcome.collectives.iter().all(|c| c.repeats.len() == 3));
    // The folder alone gives the same again.
    let folder = ResultsFolder::existing(&out);
    assert!(folder.read_scaling().unwrap() == outcome.records);
    assert!(folder.read_collectives().unwrap() == outcome.collectives);
    let again = redraw_scaling(&out).unwrap();
    assert_eq!((again.table, again.plots), (outcome.table, outcome.plots));
}

#[test]
fn a_point_that_cannot_be_is_a_row_and_a_wrong_plan_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let outcome = measured(
        &plan(SviCpu::new(), &[4, 12], &[1, 5]),
        &base.path().join("r"),
        &Interrupt::new(),
    );
    let of = |products: usize, ranks: usize| {
        let mut records = outcome.records.iter();
        records
            .find(|r| (r.panel.products, r.placement.ranks) == (products, ranks))
            .unwrap()
    };
    assert_eq!(of(4, 5).status, Status::Failed);
    assert!(
        of(4, 5).reason.contains("cut into 5 shards"),
        "{}",
        of(4, 5).reason
    );
    for record in [of(12, 1), of(12, 5), of(4, 1)] {
        assert!(record.has_speed(), "{}: {}", record.place(), record.reason);
    }
    assert!(!outcome.is_success());
    assert!(outcome.table.contains("cut into 5 shards"));
    // So small a panel is work for one thread.
    let wide = ScalingPlan {
        threads_per_rank: 4,
        ..plan(SviCpu::new(), &[12], &[2])
    };
    let outcome = measured(&wide, &base.path().join("w"), &Interrupt::new());
    let [one, two] = [0, 1].map(|at| &outcome.records[at]);
    assert!(one.reason.contains("used 1 of 4 threads") && two.reason.contains("used 2 of 8 threads"));

    let refused = |change: &dyn Fn(&mut ScalingPlan)| {
        let mut plan = plan(SviCpu::new(), &[12], &[1, 2]);
        change(&mut plan);
        plan.check().unwrap_err().to_string()
    };
    assert!(refused(&|p| p.products.clear()).contains("at least one size"));
    assert!(refused(&|p| p.ranks = vec![0]).contains("number of ranks"));
    assert!(refused(&|p| p.repeats = 0).contains("repeats is 0"));
    assert!(refused(&|p| p.ranks = vec![2000]).contains("shards is 2000"));
    assert!(refused(&|p| p.repeat_seconds = f64::NAN).contains("finite"));
    // A card that this engine does not serve.
    assert!(refused(&|p| p.devices = vec!["cuda".parse().unwrap()]).contains("cuda"));

    let interrupt = Interrupt::new();
    interrupt.set();
    let outcome = measured(
        &plan(SviCpu::new(), &[12], &[1, 2]),
        &base.path().join("s"),
        &interrupt,
    );
    assert!(outcome.interrupted && !outcome.is_success() && outcome.records.is_empty());
}

/// Seconds of the played iterations.
const COST: ComputeCost = ComputeCost {
    seconds_per_row: 4e-6,
    hierarchy_seconds: 4e-3,
    fold_seconds: 3e-3,
};

/// The real backend, but that an iteration sleeps as long as [`COST`] says.
#[derive(Clone)]
struct Sleeper(SviCpu);

/// Iterations that sleep, and meet the other ranks.
struct Sleeping {
    lasting: Duration,
    guide: Guide,
    link: Option<Link>,
}

impl Sleeping {
    fn new(rows: usize, guide: &Guide, link: Option<Link>) -> Self {
        let fold = if link.is_some() { COST.fold_seconds } else { 0.0 };
        let seconds = COST.seconds_per_row * rows as f64 + COST.hierarchy_seconds + fold;
        Sleeping {
            lasting: Duration::from_secs_f64(seconds),
            guide: guide.clone(),
            link,
        }
    }
}

impl Iterate for Sleeping {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        loop {
            std::thread::sleep(self.lasting);
            if let Some(link) = &mut self.link {
                link.all_reduce(false)?;
            }
            if piece.record(1.0, 1.0) != Decision::Continue {
                return Ok(());
            }
        }
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        Ok(self.guide.clone())
    }
}

impl ShardIterate for Sleeping {
    fn threads(&self) -> usize {
        1
    }

    fn communicator(&mut self) -> &mut dyn Communicator {
        self.link.as_mut().expect("a shard has a link").communicator()
    }
}

impl Backend for Sleeper {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn devices(&self) -> Vec<Device> {
        self.0.devices()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.0.log_joint(panel, request, point)
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        self.0.loss_and_gradient(panel, request, guide, stream)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let chart = Chart::of(&panel, request);
        let guide = chart.start(&panel, request);
        let setup = RunSetup {
            backend: "svi-cpu",
            device: "a bed".into(),
            threads: 1,
            request: request.clone(),
            chart,
            setup_seconds: 0.0,
            panel: panel.clone(),
        };
        Ok(Box::new(SviRun::new(
            Sleeping::new(panel.rows(), &guide, None),
            setup,
        )))
    }
}

impl ShardEngine for Sleeper {
    fn start_shard(&self, setup: ShardSetup<'_>) -> Result<Box<dyn ShardIterate>, BackendError> {
        let sums = Sums::new(&setup.shard.layout_for(setup.request.likelihood), setup.chart, 4);
        let link = Link::new(setup.communicator, sums);
        Ok(Box::new(Sleeping::new(
            setup.shard.rows(),
            setup.guide,
            Some(link),
        )))
    }

    fn shard_loss_and_gradient(
        &self,
        setup: ShardSetup<'_>,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        self.0.shard_loss_and_gradient(setup, iteration)
    }
}

#[test]
fn a_model_of_small_panels_on_one_and_two_ranks_predicts_larger_ones() {
    let base = tempfile::tempdir().unwrap();
    let mut plan = plan(Sleeper(SviCpu::new()), &[40, 160, 400, 1_200], &[1, 2]);
    (plan.repeats, plan.repeat_seconds) = (5, 0.15);
    let outcome = measured(&plan, &base.path().join("r"), &Interrupt::new());
    assert!(outcome.is_success(), "{}", outcome.table);
    let is_known = |record: &&ScalingRecord| record.panel.products < 1_000;
    let known: Vec<ScalingRecord> = outcome.records.iter().filter(is_known).cloned().collect();
    let is_on_own_cores = |record: &ScalingRecord| !record.placement.logical;
    let mut fitted = fit(&known, &outcome.collectives);
    if !outcome.records.iter().all(is_on_own_cores) {
        // On a single core nothing is learned of two ranks.
        assert!(fitted.pop().unwrap().is_err());
        return;
    }
    let model: ScalingModel = fitted.pop().unwrap().unwrap();
    // Sleeping takes as long as it should, and longer on a busy machine.
    let near = |found: f64, truth: f64, allowed: f64| {
        assert!((found / truth - 1.0).abs() < allowed, "{found} of {truth}")
    };
    near(model.compute.seconds_per_row, COST.seconds_per_row, 0.25);
    near(
        model.compute.hierarchy_seconds + model.compute.fold_seconds,
        COST.hierarchy_seconds + COST.fold_seconds,
        0.35,
    );
    for record in outcome.records.iter().filter(|record| !is_known(record)) {
        let ranks = record.placement.ranks;
        let predicted = model.compute.seconds(record.rows_of_largest() as f64, ranks)
            + model.collective.seconds(ranks, model.bytes);
        near(predicted, record.seconds_per_iteration().unwrap(), 0.2);
    }
    // Two sleepers of half the rows need little more than half the time.
    let series = strong(&outcome.records);
    let speedup = series.last().unwrap().points[1].speedup.median;
    assert!(series.len() == 4 && (1.4..2.2).contains(&speedup), "{speedup}");
    assert_eq!(model.points.len(), 6);
    assert!(
        outcome
            .records
            .iter()
            .all(|r| r.request.devices == [DeviceId::CPU])
    );
}
