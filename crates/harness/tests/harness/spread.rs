//! Panels whose rows are spread over ranks: what is computed of them has the bits of one process.

use infermark_backend::{Backend, DeviceId, Interrupt, MethodKind, Posterior, Request, RunState};
use infermark_fit_files::panel_description::panel_sha256;
use infermark_gaussian::{GaussianCpu, GaussianObjective};
use infermark_harness::fit_dispersion::dispersion_of;
use infermark_model::dispersion::{Dispersion, Variances};
use infermark_model::lower_bound::share_below;
use infermark_model::objective::Objective;
use infermark_model::wild_price::{wild_price_of, wildest_price};
use infermark_model::{
    Coordinates, Labels, Likelihood, Orthogonal, Panel, PanelPart, Parameterization, Priors, Specification,
};
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::iterations::{Form, svi_request};
use infermark_test_support::random_panel;
use infermark_test_support::ranks::{assert_part_of, gathered, on_ranks, on_worlds, spread};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// A panel with gaps whose products are those of `panel`, but for some whose price never changes and one that has a wild price.
fn with_odd_prices(panel: &Panel, rng: &mut StdRng) -> Panel {
    let layout = panel.layout();
    let wild = rng.random_range(0..layout.products);
    let mut part = PanelPart::new(layout.categories, layout.periods);
    for product in 0..layout.products {
        let rows: Vec<_> = panel.product_rows(product).collect();
        let periods: Vec<u32> = rows.iter().map(|row| row.period as u32).collect();
        let units: Vec<u32> = rows.iter().map(|row| row.units).collect();
        let mut prices: Vec<f64> = rows.iter().map(|row| row.log_price.exp()).collect();
        if rng.random_bool(0.3) {
            prices.fill(2.5);
        }
        if product == wild {
            prices[0] = 1e9;
        }
        part.push_product(
            panel.category_of()[product] as usize,
            Some(&periods),
            &prices,
            &units,
        )
        .unwrap();
    }
    let [p, c, t] = [panel.products(), panel.categories(), panel.periods()].map(Labels::clone);
    Panel::from_parts(p, c, t, vec![part]).unwrap()
}

fn sources() -> impl Iterator<Item = Arc<Panel>> {
    [
        (23, 3, 20, 0.2),
        (23, 3, 20, 0.0),
        (40, 1, 70, 0.5),
        (9, 5, 6, 0.1),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, (n, c, t, gaps))| {
        let mut rng = StdRng::seed_from_u64(seed as u64);
        let panel = random_panel(&mut rng, n, c, t, gaps, 60);
        Arc::new(with_odd_prices(&panel, &mut rng))
    })
}

#[test]
fn what_is_known_of_a_spread_panel_is_that_of_the_whole() {
    for source in sources() {
        for model in [Specification::Published, Specification::Sales] {
            let whole = Arc::unwrap_or_clone(gathered(&source));
            let whole = Arc::new(model.panel(whole).unwrap());
            let priors = model.priors(&whole);
            for size in [2, 3, 4] {
                on_ranks(size, |ranks| {
                    let rank = ranks.rank();
                    let part = model.panel(spread(&source, ranks)).unwrap();
                    assert_part_of(&whole, &part, rank, size);
                    assert_eq!(model.priors(&part), priors);
                    assert_eq!(part.constant_price_products(), whole.constant_price_products());
                    let wild = wildest_price(&whole);
                    assert!(wild.is_some());
                    assert_eq!(wildest_price(&part), wild);
                    let product = wild.unwrap().product;
                    assert_eq!(wild_price_of(&part, product), wild_price_of(&whole, product));
                    assert_eq!(panel_sha256(&part), panel_sha256(&whole));
                    let seed = u64::from(whole.units()[0]);
                    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
                        known_of_fits(&whole, &part, likelihood, &priors, seed);
                    }
                });
            }
        }
    }
}

fn known_of_fits(whole: &Panel, part: &Panel, likelihood: Likelihood, priors: &Priors, seed: u64) {
    let of_whole = Orthogonal::new(whole, likelihood, priors);
    let of_part = Orthogonal::new(part, likelihood, priors);
    assert_eq!(of_part, of_whole);
    assert_eq!(
        of_part.start(part, priors, 2),
        of_whole.start(whole, priors, 3),
        "{likelihood:?}"
    );
    let mut rng = StdRng::seed_from_u64(seed);
    let latents = whole.layout_for(likelihood).latents();
    let point: Vec<f64> = (0..latents).map(|_| rng.random_range(-1.5..1.5)).collect();
    let low = Priors {
        clip_low: 0.1,
        ..*priors
    };
    let share = share_below(whole, &low, &point, 2);
    assert!(share > 0.0 && share < 1.0);
    assert_eq!(share_below(part, &low, &point, 3), share);
    let dispersion = |panel: &Panel, threads| {
        Dispersion::of(panel, priors, likelihood, &point, Variances::Unknown, threads)
    };
    assert_eq!(dispersion(part, 2), dispersion(whole, 3));
}

/// The posterior of a fit with its dispersion, and the dispersion of its means alone.
fn fit(backend: &dyn Backend, panel: Arc<Panel>, request: &Request) -> (Posterior, [Dispersion; 2]) {
    let mut run = backend.start(panel.clone(), request).unwrap();
    let progress = run.advance(60, &Interrupt::new()).unwrap();
    assert!(
        matches!(
            progress.state,
            RunState::Running | RunState::Finished | RunState::Converged
        ),
        "{progress:?}"
    );
    let posterior = run.posterior().unwrap();
    let of_means = Dispersion::of(
        &panel,
        &request.priors,
        request.likelihood,
        &posterior.mean,
        Variances::Unknown,
        2,
    );
    let dispersion = dispersion_of(&panel, request, &*run, &posterior, true);
    (posterior, [dispersion, of_means])
}

fn fits_of_spread_panels_are_those_of_shards(source: &Arc<Panel>, backend: &dyn Backend, request: &Request) {
    let whole = gathered(source);
    for size in [2, 3, 5] {
        let request = Request {
            shards: size,
            threads: Some(1),
            ..request.clone()
        };
        let expected = fit(backend, whole.clone(), &request);
        let found = on_worlds(size, |ranks, world| {
            let backend = backend.among(world).unwrap();
            fit(&*backend, Arc::new(spread(source, ranks)), &request)
        });
        for (rank, found) in found.into_iter().enumerate() {
            assert!(found.0 == expected.0, "rank {rank} of {size}, {request:?}");
            assert_eq!(found.1, expected.1, "rank {rank} of {size}, {request:?}");
        }
    }
}

fn panel(largest: u32) -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(5), 37, 4, 26, 0.15, largest)
}

#[test]
fn svi_has_the_bits_of_thread_shards() {
    let forms = [
        Form(Coordinates::Orthogonal, Parameterization::Centered),
        Form(Coordinates::Published, Parameterization::Learned),
    ];
    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
        for form in forms {
            let request = Request {
                likelihood,
                ..svi_request(DeviceId::CPU, form, 2, Objective::Elbo)
            };
            let backend = SviSharded::over(SviCpu::new());
            fits_of_spread_panels_are_those_of_shards(&panel(90), &backend, &request);
        }
    }
}

#[test]
fn exact_methods_have_the_bits_of_thread_shards() {
    for (method, backend) in [
        (MethodKind::Laplace, GaussianCpu::laplace()),
        (MethodKind::StructuredVi, GaussianCpu::structured_vi()),
    ] {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let request = Request {
                likelihood,
                ..Request::new(method.default_method())
            };
            fits_of_spread_panels_are_those_of_shards(&panel(90), &backend, &request);
        }
        // Some products have counts at the upper clip bound.
        let clip_high = 4e4f64.ln();
        let request = Request {
            priors: Priors {
                clip_high,
                ..Priors::default()
            },
            ..Request::new(method.default_method())
        };
        let panel = panel(38_500);
        let counts = GaussianObjective::new(&panel, &request.priors, request.likelihood);
        assert!(counts.leaves_any_out());
        fits_of_spread_panels_are_those_of_shards(&panel, &backend, &request);
    }
}
