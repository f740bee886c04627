//! A backend that only this test knows, wherever a registry is asked: choice, cases, parity.

use crate::fake::{Fake, Fault, card};
use infermark_backend::{
    Backend, BackendError, BenchmarkSettings, Capabilities, Device, DeviceId, Method, MethodKind, Registry,
    Request, Run, SviSettings,
};
use infermark_gaussian::GaussianCpu;
use infermark_harness::benchmark::CaseChoice;
use infermark_harness::parity::{PARITY_ROWS, check_parity};
use infermark_model::{Coordinates, Likelihood, Panel};
use infermark_nuts_cpu::NutsCpu;
use infermark_svi_cpu::SviCpu;
use infermark_test_support::panel_with_gaps as panel;
use std::sync::Arc;

fn registry() -> Registry {
    Registry::new()
        .with(SviCpu::new())
        .with(NutsCpu)
        .with(GaussianCpu::laplace())
        .with(Fake::of(MethodKind::Laplace, "laplace-new", Fault::None))
}

fn on(device: DeviceId, method: MethodKind) -> Request {
    Request {
        devices: vec![device],
        ..Request::new(method.default_method())
    }
}

#[test]
fn a_request_gets_the_first_backend_that_serves_it() {
    let registry = registry();
    let chosen = |request: &Request| registry.choose(request).unwrap().name();
    assert_eq!(chosen(&on(DeviceId::CPU, MethodKind::Svi)), "svi-cpu");
    assert_eq!(chosen(&on(DeviceId::CPU, MethodKind::Laplace)), "laplace-cpu");
    assert_eq!(chosen(&on(card(1), MethodKind::Laplace)), "laplace-new");
    assert_eq!(registry.named("laplace-new").unwrap().name(), "laplace-new");
    assert!(registry.named("laplace-old").is_none());
    let gpus: Vec<DeviceId> = registry.gpus().into_iter().map(|gpu| gpu.id).collect();
    assert_eq!(gpus, [card(0), card(1)]);
}

#[test]
fn what_no_backend_serves_is_refused_with_what_does() {
    let registry = registry();
    let refused = |request: &Request| registry.choose(request).err().unwrap().to_string();
    assert_eq!(
        refused(&on(card(0), MethodKind::Nuts)),
        "nuts-cpu cannot run on cuda; devices: cpu; choose the method laplace"
    );
    let far = refused(&on("cuda:7".parse().unwrap(), MethodKind::Laplace));
    assert_eq!(
        far,
        "laplace-new cannot run on cuda:7; devices: cpu, cuda, cuda:1"
    );
    let mut two = on(card(0), MethodKind::Laplace);
    two.devices.push(card(1));
    assert_eq!(
        refused(&two),
        "backend laplace-new cannot serve 2 devices in one run; give 1; choose the device cpu"
    );
    assert!(refused(&on(DeviceId::CPU, MethodKind::Meanfield)).contains("no backend of this program"));
    let mut none = on(DeviceId::CPU, MethodKind::Svi);
    none.threads = Some(0);
    assert!(refused(&none).contains("threads is 0"));
}

#[test]
#[should_panic(expected = "there is a backend svi-cpu already")]
fn one_name_is_one_backend() {
    let _ = registry().with(SviCpu::new());
}

/// Backend, device, threads, method and coordinates of each case.
fn cases(choice: &CaseChoice) -> Vec<(&'static str, DeviceId, Option<usize>, &'static str, Coordinates)> {
    let cases = choice.cases(&registry()).unwrap();
    cases
        .iter()
        .map(|case| {
            let request = &case.request;
            assert_eq!(case.backend.supports(request), Ok(()));
            assert_eq!(request.seed, choice.seed);
            if let Method::Svi(svi) = &request.method {
                assert_eq!(svi.particles, choice.particles);
            }
            let has_draws = request.method.kind().has_draws();
            assert_eq!(case.most_products == choice.sampler_most_products, has_draws);
            (
                case.backend.name(),
                request.devices[0],
                request.threads,
                request.method.name(),
                request.method.coordinates(),
            )
        })
        .collect()
}

#[test]
fn every_backend_is_measured_with_what_it_says() {
    let (cpu, published) = (DeviceId::CPU, Coordinates::Published);
    let choice = CaseChoice {
        threads: vec![3, 1],
        particles: 7,
        seed: 5,
        ..CaseChoice::default()
    };
    let all = infermark_threads::available();
    assert_eq!(
        cases(&choice),
        [
            ("svi-cpu", cpu, Some(1), "svi", published),
            ("svi-cpu", cpu, Some(3), "svi", published),
            ("svi-cpu", cpu, Some(3), "svi", Coordinates::Orthogonal),
            ("nuts-cpu", cpu, Some(3), "nuts", published),
            ("laplace-cpu", cpu, Some(3), "laplace", published),
            ("laplace-new", cpu, Some(3), "laplace", published),
            ("laplace-new", card(0), Some(all), "laplace", published),
            ("laplace-new", card(1), Some(all), "laplace", published),
        ]
    );
    let one = CaseChoice {
        backends: vec!["laplace-new".into()],
        devices: vec![card(1)],
        threads: vec![1],
        ..CaseChoice::default()
    };
    assert_eq!(
        cases(&one).iter().map(|case| case.1).collect::<Vec<_>>(),
        [cpu, card(1)]
    );
    for (backends, devices, word) in [
        (
            vec!["gpu9"],
            vec![],
            "there is no backend 'gpu9'; there are svi-cpu, nuts-cpu",
        ),
        (vec![], vec![], "no backend was named"),
        (vec!["svi-cpu"], vec![card(0)], "none of the backends runs on"),
        (
            vec!["all"],
            vec!["cuda:9".parse().unwrap()],
            "laplace-new cannot run on cuda:9",
        ),
    ] {
        let choice = CaseChoice {
            backends: backends.into_iter().map(str::to_owned).collect(),
            devices,
            ..CaseChoice::default()
        };
        let refused = choice.cases(&registry()).err().unwrap().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn parity_holds_another_backend_against_the_reference() {
    let (registry, panel) = (registry(), panel(9));
    for case in CaseChoice::default().cases(&registry).unwrap() {
        for likelihood in case.backend.capabilities().likelihoods {
            let request = Request {
                likelihood: *likelihood,
                ..case.request.clone()
            };
            let record = check_parity(&*case.backend, &panel, &request, PARITY_ROWS).unwrap();
            assert!(
                record.passed(),
                "{} {}: {:?}",
                case.backend.name(),
                likelihood.name(),
                record.checks
            );
        }
    }
    let wrong = Registry::new().with(Fake::of(MethodKind::Svi, "svi-wrong", Fault::Gradient));
    let request = Request {
        likelihood: Likelihood::Poisson,
        ..Request::new(Method::Svi(SviSettings::default()))
    };
    let chosen = wrong.choose(&request).unwrap();
    assert!(
        !check_parity(&*chosen, &panel, &request, PARITY_ROWS)
            .unwrap()
            .passed()
    );
}

/// The fake, on several cards in one run.
struct Together(Fake);

impl Backend for Together {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn method(&self) -> MethodKind {
        self.0.method()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            devices_per_run: 1..=8,
            shards: 2..=8,
            ..self.0.capabilities()
        }
    }

    fn devices(&self) -> Vec<Device> {
        self.0.devices()
    }

    fn benchmark_settings(&self) -> Vec<BenchmarkSettings> {
        let whole = self.0.benchmark_settings().swap_remove(0);
        vec![BenchmarkSettings {
            by_threads: false,
            shards: 2,
            ..whole
        }]
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.0.log_joint(panel, request, point)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        self.0.start(panel, request)
    }
}

#[test]
fn cards_of_one_model_are_measured_together_and_not_as_logical_shards() {
    let registry = Registry::new().with(Together(Fake::of(MethodKind::Svi, "svi-together", Fault::None)));
    let measured = |devices: Vec<DeviceId>| -> Vec<(Vec<DeviceId>, usize)> {
        let choice = CaseChoice {
            threads: vec![1],
            devices,
            ..CaseChoice::default()
        };
        let cases = choice.cases(&registry).unwrap();
        cases
            .into_iter()
            .map(|case| (case.request.devices, case.request.shards))
            .collect()
    };
    let on_cpu = (vec![DeviceId::CPU], 2);
    assert_eq!(measured(vec![]), [on_cpu.clone(), (vec![card(0), card(1)], 2)]);
    // One card alone has no shards to be measured.
    assert_eq!(measured(vec![card(1)]), [on_cpu]);
}
