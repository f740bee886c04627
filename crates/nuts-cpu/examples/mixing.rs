//! Whether default settings mix on a panel: one run of four chains per seed, with one line of CSV each.
//!
//! ```sh
//! cargo run --release --package infermark-nuts-cpu --example mixing -- PANEL SEEDS [OPTION=VALUE ..]
//! ```
//!
//! Options: `first_seed`, `likelihood` (`poisson` or `negative-binomial`), `metric`, `warmup`, `draws`, `target_accept`,
//! `threads`, and any prior of the model by its name, for instance `clip_low=-20`.

use infermark_backend::{Backend, Detail, Interrupt, Method, NutsSettings, RHAT_LIMIT, Request};
use infermark_data::{Columns, read_panel};
use infermark_model::{Likelihood, Priors, Site};
use infermark_nuts_cpu::NutsCpu;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [panel, seeds, options @ ..] = arguments.as_slice() else {
        return Err("give a panel and a number of seeds".into());
    };
    let panel = Arc::new(read_panel(panel.as_ref(), &Columns::default())?);
    let mut request = Request::new(Method::Nuts(NutsSettings::default()));
    let (mut diagonal, mut show) = (false, false);
    let (mut warmup, mut draws, mut target_accept) = (None, None, None);
    let mut priors = serde_json::to_value(Priors::default())?;
    let mut first_seed = 0;
    for option in options {
        let (name, value) = option.split_once('=').ok_or("an option is NAME=VALUE")?;
        match name {
            "first_seed" => first_seed = value.parse()?,
            "likelihood" if value == "poisson" => request.likelihood = Likelihood::Poisson,
            "likelihood" if value == "negative-binomial" => request.likelihood = Likelihood::NegativeBinomial,
            "metric" if ["structured", "diagonal"].contains(&value) => diagonal = value == "diagonal",
            "warmup" => warmup = Some(value.parse()?),
            "draws" => draws = Some(value.parse()?),
            "target_accept" => target_accept = Some(value.parse()?),
            "show" => show = value.parse()?,
            "threads" => request.threads = Some(value.parse()?),
            prior if priors.get(prior).is_some() => priors[prior] = value.parse::<f64>()?.into(),
            _ => return Err(format!("{option} is not known").into()),
        }
    }
    request.priors = serde_json::from_value(priors)?;
    let mut settings = if diagonal {
        NutsSettings::diagonal()
    } else {
        NutsSettings::default()
    };
    settings.warmup = warmup.unwrap_or(settings.warmup);
    settings.draws = draws.unwrap_or(settings.draws);
    settings.target_accept = target_accept.unwrap_or(settings.target_accept);
    request.method = Method::Nuts(settings);
    println!(
        "seed,max_rhat,above_1.01,worst,min_ess_bulk,min_ess_tail,divergences,saturated,least_step,greatest_step,\
         least_acceptance,gradients_per_draw,seconds"
    );
    for seed in first_seed..first_seed + seeds.parse::<u64>()? {
        request.seed = seed;
        let started = Instant::now();
        let mut run = NutsCpu.start(panel.clone(), &request)?;
        run.advance(u64::MAX, &Interrupt::new())?;
        let posterior = run.posterior()?;
        let seconds = started.elapsed().as_secs_f64();
        let diagnostics = posterior.diagnostics.as_ref().ok_or("no diagnostics")?;
        let above = diagnostics.rhat.iter().filter(|r| **r > RHAT_LIMIT).count();
        let worst = (0..diagnostics.rhat.len())
            .max_by(|a, b| diagnostics.rhat[*a].total_cmp(&diagnostics.rhat[*b]))
            .ok_or("no latents")?;
        let layout = &posterior.layout;
        if show {
            for (j, r) in diagnostics
                .rhat
                .iter()
                .enumerate()
                .filter(|(_, r)| **r > RHAT_LIMIT)
            {
                let site = layout.site_of(j);
                eprintln!(
                    "{}[{}] rhat {r:.3} mean {:.2} sd {:.2} ess {:.0}",
                    site.name(),
                    j - layout.start(site),
                    posterior.mean[j],
                    posterior.sd[j],
                    diagnostics.ess_bulk[j]
                );
            }
        }
        let site: Site = layout.site_of(worst);
        let Detail::Nuts(report) = run.report().detail else {
            return Err("not a report of NUTS".into());
        };
        let chains = || report.chains.iter();
        let gradients: u64 = chains().map(|c| c.gradients).sum();
        let draws: u64 = chains().map(|c| c.draws).sum();
        let least =
            |f: fn(&infermark_backend::ChainReport) -> f64| chains().map(f).fold(f64::INFINITY, f64::min);
        println!(
            "{seed},{:.4},{above},{}[{}],{:.0},{:.0},{},{},{:.4},{:.4},{:.3},{:.2},{seconds:.2}",
            report.max_rhat.unwrap_or(f64::NAN),
            site.name(),
            worst - layout.start(site),
            report.min_ess_bulk.unwrap_or(f64::NAN),
            report.min_ess_tail.unwrap_or(f64::NAN),
            report.divergences,
            report.saturated_trees,
            least(|c| c.step_size),
            chains().map(|c| c.step_size).fold(0.0, f64::max),
            least(|c| c.acceptance.unwrap_or(f64::NAN)),
            gradients as f64 / draws as f64,
        );
    }
    Ok(())
}
