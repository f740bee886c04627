//! Trustworthy posteriors for hierarchical demand models, fast.
//!
//! Infermark fits one model - price elasticities of many products in categories, with Poisson or negative-binomial counts -
//! by several methods on several kinds of hardware, behind one trait.
//!
//! # Start here
//!
//! A [`Panel`] holds the sales, a [`Request`] describes the fit, and [`fit`] runs it:
//!
//! ```
//! use infermark::prelude::*;
//!
//! // Your own sales: read_panel("sales.csv".as_ref(), &Columns::default())?
//! let generator = Generator { process: Process::Published, likelihood: Likelihood::Poisson, products: 30, periods: 52, categories: 3, seed: 1 };
//! let (sales, truth) = generate_panel(&generator, 0)?;
//!
//! // The model for one's own sales: prices relative to each product's usual price.
//! let model = Specification::Sales;
//! let panel = Arc::new(model.panel(sales));
//! let request = Request {
//!     priors: model.priors(&panel),
//!     ..Request::new(MethodKind::StructuredVi.default_method())
//! };
//! let run = infermark::fit(panel.clone(), &request)?;
//!
//! let posterior = run.posterior()?;
//! for product in panel.layout().range(Site::ProductA).take(3) {
//!     println!("{:.2} [{:.2}, {:.2}]", posterior.mean[product], posterior.q05[product], posterior.q95[product]);
//! }
//! for warning in run.report().warnings {
//!     println!("{warning}");
//! }
//! assert!(posterior.mean_absolute_error(Site::ProductA, &truth.product_elasticity) < 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is where
//!
//! | for | there is |
//! |---|---|
//! | the data | [`read_panel`] and [`Columns`] for CSV and Parquet files, [`Panel::from_parts`] for what is in memory, [`generate_panel`] for synthetic sales |
//! | the model | [`Specification`] (for one's own sales, or as published), [`Priors`], [`Likelihood`]; [`Site`] and [`Layout`] say where a parameter is in a posterior's vectors |
//! | the method | [`MethodKind::default_method`], or [`Method`] with [`SviSettings`], [`NutsSettings`], [`LaplaceSettings`], [`StructuredViSettings`], [`MeanfieldSettings`] |
//! | the hardware | [`Request::devices`], [`Request::threads`]; [`registry`] lists the backends, and each its devices |
//! | the run | [`Run`], whose documentation is the contract of all backends: advance it in [`StepPacer`], watch its [`Progress`], stop it by an [`Interrupt`] |
//! | the result | [`Posterior`], [`Report`], [`Draws`] of a sampler, [`Dispersion`] |
//! | a backend of one's own | [`Backend`], [`Registry::with`]; [`svi`] for those that iterate a guide; [`reference`](mod@reference), the model in plain `f64`, to hold it against |
//!
//! The examples show each: `read_and_fit`, `watch_and_interrupt`, `compare_methods`, `own_backend`. Benchmarks, tables and the files
//! of a fit are in the crate `infermark-harness`, the command in `infermark-cli`.
//!
//! # Features
//!
//! `cuda` and `wgpu`, both on by default, are the two routes to a GPU. Drivers are loaded at run time;
//! neither is needed to build. A program that uses CUDA calls [`choose_header`] first.
//!
//! `tensor` adds `svi-tensor`, the same algorithm in Burn's tensors, for comparison; it takes a quarter of
//! the build time.

/// The programs in the guides are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/add-a-backend.md")]
struct AddABackend;

mod fit;
pub mod prelude;
pub mod reference;
mod registry;
pub mod svi;

pub use fit::fit;
pub use registry::registry;

#[doc(inline)]
pub use infermark_backend::{
    Backend, BackendError, BenchmarkSettings, Capabilities, Cause, ChainDiagnostics, ChainReport, Checkpoint,
    Choice, Convergence, Detail, Device, DeviceId, DeviceKind, DrawStatistics, Draws, ESS_LIMIT, EarlyStop,
    GaussianPass, GaussianPoint, GaussianReport, GaussianWarning, Interrupt, LaplaceSettings, Limits,
    MOST_THREADS, MeanfieldSettings, Method, MethodKind, Metric, ModeSearchReport, NutsReport, NutsSettings,
    NutsWarning, Posterior, Precision, Progress, RHAT_LIMIT, Registry, Remedy, Report, Request, Run,
    RunState, Setting, ShapeShiftWarning, SiteDraws, StepPacer, StepPoint, StepUnit, StructuredViSettings,
    SviReport, SviSettings, SviWarning, TracePoint, Warning, check_threads,
};
#[doc(inline)]
pub use infermark_data::{
    Columns, Compression, Defect, DefectRemedy, GenerateError, GenerateProgress, Generator, PanelColumn,
    Process, ReadError, Truth, generate_panel, generate_to_file, read_panel, read_true_elasticities,
    read_truth,
};
#[cfg(feature = "cuda")]
#[doc(inline)]
pub use infermark_gpu_devices::{Missing, choose_header, missing_of_cuda, users_cuda_path};
#[doc(inline)]
pub use infermark_model::{
    Axes, Coordinates, Labels, Layout, Likelihood, Panel, PanelPart, Parameterization, Priors, Site,
    Specification, dispersion::Dispersion, objective::Objective, optimizer::AdamW,
};
