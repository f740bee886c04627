//! Fits one panel by every method on the CPU: how close each comes to the true values behind the panel, how
//! often its intervals contain them, and how far its means are from those of NUTS.

use infermark::prelude::*;
use std::error::Error;
use std::time::Instant;

/// Every method, with settings for a panel of a few products.
fn methods() -> Vec<Method> {
    vec![
        Method::Nuts(NutsSettings {
            chains: 2,
            warmup: 200,
            draws: 300,
            ..NutsSettings::default()
        }),
        Method::Laplace(LaplaceSettings::default()),
        Method::StructuredVi(StructuredViSettings::default()),
        Method::Svi(SviSettings::orthogonal().falling_over(3_000)),
        Method::Meanfield(MeanfieldSettings::default()),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let generator = Generator {
        process: Process::Published,
        likelihood: Likelihood::Poisson,
        products: 40,
        periods: 52,
        categories: 3,
        seed: 2,
    };
    let (panel, truth) = generate_panel(&generator, 0)?;
    let (panel, truth) = (Arc::new(panel), truth.product_elasticity);

    println!(
        "{:<32} {:>8} {:>10} {:>8} {:>14}",
        "method", "seconds", "mean error", "95% hold", "sds from NUTS"
    );
    let mut reference: Option<Posterior> = None;
    for method in methods() {
        let clock = Instant::now();
        let run = infermark::fit(panel.clone(), &Request::new(method.clone()))?;
        let posterior = run.posterior()?;
        let seconds = clock.elapsed().as_secs_f64();
        let reference = reference.get_or_insert_with(|| posterior.clone());
        let off = posterior
            .layout
            .range(Site::ProductA)
            .map(|j| (posterior.mean[j] - reference.mean[j]).abs() / reference.sd[j])
            .fold(0.0, f64::max);
        println!(
            "{:<32} {seconds:>8.2} {:>10.3} {:>7.0}% {off:>14.2}",
            method.words(),
            posterior.mean_absolute_error(Site::ProductA, &truth),
            100.0 * posterior.coverage_95(Site::ProductA, &truth),
        );
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
