//! A fit in one call.

use crate::registry;
use infermark_backend::{BackendError, Interrupt, Request, Run};
use infermark_model::Panel;
use std::sync::Arc;

/// Fits `panel` as `request` specifies, with the backend that [`registry`] chooses, and returns the completed
/// run, which has the posterior, report and draws. To watch or stop a run, start it with
/// [`Backend::start`](crate::Backend::start).
///
/// For your own sales take both panel and priors from [`Specification::Sales`](crate::Specification::Sales), as the example does:
/// [`Request::new`] alone has the priors of the published model, under which the unit of the prices matters.
///
/// # Errors
/// When no backend serves the request, memory is too small, the device fails, or the run fails.
///
/// # Example
/// ```
/// use infermark::prelude::*;
///
/// let mut part = PanelPart::new(1, 3);
/// part.push_product(0, None, &[2.0, 2.5, 3.0], &[7, 4, 3])?;
/// let labels = |n| Labels::numbered("x", n);
/// let sales = Panel::from_parts(labels(1), labels(1), labels(3), vec![part])?;
///
/// let model = Specification::Sales;
/// let panel = Arc::new(model.panel(sales)?);
/// let request = Request { priors: model.priors(&panel), ..Request::new(MethodKind::Laplace.default_method()) };
/// let run = infermark::fit(panel, &request)?;
/// assert!(run.progress().state.is_complete());
/// println!("{:?}", run.posterior()?.site_mean(Site::ProductA));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn fit(panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
    let mut run = registry().choose(request)?.start(panel, request)?;
    let interrupt = Interrupt::new();
    while !run.advance(u64::MAX, &interrupt)?.state.is_complete() {}
    Ok(run)
}
