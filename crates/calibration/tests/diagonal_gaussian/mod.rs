//! The Gaussian at the posterior mode with the diagonal of the precision alone: what a mean-field posterior is.

use infermark_backend::{
    Backend, BackendError, Device, Interrupt, Posterior, Progress, Report, Request, Run,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Priors, Site};
use std::sync::Arc;

/// Laplace's means, with standard deviations from the diagonal of the precision.
pub(crate) struct DiagonalGaussian;

impl Backend for DiagonalGaussian {
    fn name(&self) -> &'static str {
        "diagonal-gaussian"
    }

    fn devices(&self) -> Vec<Device> {
        GaussianCpu::laplace().devices()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        GaussianCpu::laplace().log_joint(panel, request, point)
    }

    fn loss_and_gradient(
        &self,
        _: &Arc<Panel>,
        _: &Request,
        _: &Guide,
        _: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        Ok(None)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        Ok(Box::new(DiagonalRun {
            laplace: GaussianCpu::laplace().start(panel.clone(), request)?,
            panel,
            priors: request.priors,
        }))
    }
}

struct DiagonalRun {
    laplace: Box<dyn Run>,
    panel: Arc<Panel>,
    priors: Priors,
}

impl Run for DiagonalRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        self.laplace.advance(steps, interrupt)
    }

    fn progress(&self) -> Progress {
        self.laplace.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let mean = self.laplace.posterior()?.mean;
        let layout = self.panel.layout();
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        // What children of the hierarchy add to their parents' precision, then the rows.
        let mut precision = vec![0.0; mean.len()];
        for site in Site::ALL {
            precision[layout.range(site)].fill(self.priors.sd(site).powi(-2));
        }
        precision[0] += layout.categories as f64 * self.priors.category_a_sd.powi(-2);
        for (i, c) in self.panel.category_of().iter().enumerate() {
            precision[layout.start(Site::CategoryA) + *c as usize] += self.priors.product_a_sd.powi(-2);
            for row in self.panel.product_rows(i) {
                let t = layout.time_index(*c as usize, row.period);
                let rate = (mean[a + i] * row.log_price + mean[e + i] + mean[t]).exp();
                precision[a + i] += rate * row.log_price * row.log_price;
                precision[e + i] += rate;
                precision[t] += rate;
            }
        }
        let sd = precision.iter().map(|p| p.powf(-0.5)).collect();
        Ok(Posterior::normal(layout, mean, sd))
    }

    fn report(&self) -> Report {
        self.laplace.report()
    }
}
