//! Your own backend: SVI with the model's plain `f64` loops. It is chosen, checked for parity and run like
//! any other.
//!
//! You write only the iteration: [`SviRun`] turns it into a run that keeps the contract which the project's
//! tests check for every backend.

use infermark::prelude::*;
use infermark::reference::{Guide, GuideMoments, LogJoint, LossAndGradient, Stream, draw_noise};
use infermark::svi::{Chart, Decision, Iterate, Piece, RunSetup, SviRun};
use infermark::{Capabilities, Device, Precision};
use infermark_harness::benchmark::CaseChoice;
use infermark_harness::parity::{PARITY_ROWS, check_parity};
use std::error::Error;
use std::time::Instant;

/// The backend.
struct SviPlain;

/// The state of one of its runs.
struct Plain {
    panel: Arc<Panel>,
    request: Request,
    chart: Chart,
    guide: Guide,
    moments: GuideMoments,
    iteration: u64,
}

fn settings_of(request: &Request) -> &SviSettings {
    match &request.method {
        Method::Svi(settings) => settings,
        other => unreachable!("{} was refused", other.name()),
    }
}

/// Loss and gradient of a guide under the noise of a stream.
fn iteration(
    panel: &Panel,
    request: &Request,
    chart: &Chart,
    guide: &Guide,
    stream: Stream,
) -> LossAndGradient {
    let settings = settings_of(request);
    let log_joint = LogJoint::new(panel, request.priors).with_likelihood(request.likelihood);
    let layout = panel.layout_for(request.likelihood);
    let noise = draw_noise(&layout, settings.particles, stream);
    chart.plain_iteration(&log_joint, settings.objective, guide, &noise)
}

impl Iterate for Plain {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        loop {
            let stream = Stream {
                seed: self.request.seed,
                iteration: self.iteration as u32,
            };
            let found = iteration(&self.panel, &self.request, &self.chart, &self.guide, stream);
            let decision = piece.record(found.weighted.loss, found.weighted.effective_particles);
            if decision == Decision::Discard {
                return Ok(());
            }
            let optimizer = &settings_of(&self.request).optimizer;
            self.moments
                .step(optimizer, self.iteration, &mut self.guide, &found.gradient);
            self.iteration += 1;
            if decision == Decision::Stop {
                return Ok(());
            }
        }
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        Ok(self.guide.clone())
    }
}

impl Backend for SviPlain {
    fn name(&self) -> &'static str {
        "svi-plain"
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            precisions: &[Precision::F64],
            uses_threads: false,
            ..Capabilities::CPU
        }
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            id: DeviceId::CPU,
            name: "one thread".into(),
            memory_bytes: None,
            driver: None,
            software: false,
        }]
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.supports(request)?;
        request.check_point(panel, point)?;
        let log_joint = LogJoint::new(panel, request.priors).with_likelihood(request.likelihood);
        Ok(log_joint.natural(point))
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        self.supports(request)?;
        let chart = Chart::of(panel, request);
        Ok(Some(iteration(panel, request, &chart, guide, stream)))
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let begin = Instant::now();
        self.supports(request)?;
        let chart = Chart::of(&panel, request);
        let guide = chart.start(&panel, request);
        let iterations = Plain {
            moments: GuideMoments::new(guide.loc.len()),
            guide,
            panel: panel.clone(),
            request: request.clone(),
            chart: chart.clone(),
            iteration: 0,
        };
        let setup = RunSetup {
            backend: self.name(),
            device: "one thread".into(),
            threads: 1,
            panel,
            request: request.clone(),
            chart,
            setup_seconds: begin.elapsed().as_secs_f64(),
        };
        Ok(Box::new(SviRun::new(iterations, setup)))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let generator = Generator {
        process: Process::Published,
        likelihood: Likelihood::Poisson,
        products: 10,
        periods: 30,
        categories: 2,
        seed: 4,
    };
    let panel = Arc::new(generate_panel(&generator, 0)?.0);

    // One line adds it; for a request, backends are tried in this order.
    let registry = registry().clone().with(SviPlain);
    let plain = registry.named("svi-plain").ok_or("it was just added")?;
    let request = Request::new(Method::Svi(SviSettings {
        precision: Precision::F64,
        ..SviSettings::orthogonal().falling_over(400)
    }));
    assert_eq!(registry.choose(&request)?.name(), "svi-cpu");

    // First it is compared with the reference; a benchmark would measure it with these settings:
    let parity = check_parity(&*plain, &panel, &request, PARITY_ROWS)?;
    println!("parity: {} ({})", parity.passed(), parity.compared);
    let choice = CaseChoice {
        backends: vec!["svi-plain".into()],
        threads: vec![1],
        ..CaseChoice::default()
    };
    for case in choice.cases(&registry)? {
        println!("a case of bench: {}", case.request.method.words());
    }

    // The same noise from the same seed: it follows the fused kernels.
    let fit = |backend: &dyn Backend| -> Result<Posterior, BackendError> {
        let mut run = backend.start(panel.clone(), &request)?;
        run.advance(u64::MAX, &Interrupt::new())?;
        run.posterior()
    };
    let (own, fused) = (fit(&*plain)?, fit(&*registry.choose(&request)?)?);
    let worst = own
        .mean
        .iter()
        .zip(&fused.mean)
        .zip(&fused.sd)
        .map(|((own, fused), sd)| (own - fused).abs() / sd)
        .fold(0.0, f64::max);
    println!("largest distance of a mean from svi-cpu: {worst:.1e} standard deviations");
    assert!(parity.passed() && worst < 1e-3);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_test_support::conformance;
    use infermark_test_support::conformance::Interrupted::ToTheBit;

    fn request() -> Request {
        Request::new(Method::Svi(SviSettings {
            iterations: 200,
            precision: Precision::F64,
            ..SviSettings::default()
        }))
    }

    conformance!(own, SviPlain, request(), ToTheBit);

    #[test]
    fn it_runs() {
        main().unwrap();
    }
}
