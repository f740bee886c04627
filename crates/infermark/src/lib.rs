//! Trustworthy posteriors for hierarchical demand models, fast.
//!
//! Infermark fits a hierarchical model of price elasticities, for many products in categories, with Poisson or negative-binomial
//! counts. It has several methods on several kinds of hardware, behind one trait. The model has two specifications: one for your
//! own sales, and the published one that results are compared with ([`Specification`]).
//!
//! # Start here
//!
//! A [`Panel`] holds the sales, a [`Request`] describes the fit, and [`fit`] runs it:
//!
//! ```
//! use infermark::prelude::*;
//!
//! // For your own sales: let sales = read_panel("sales.csv".as_ref(), &Columns::default())?;
//! let generator = Generator { process: Process::Published, likelihood: Likelihood::Poisson, products: 30, periods: 52, categories: 3, seed: 1 };
//! let threads = 0; // one per core
//! let (sales, truth) = generate_panel(&generator, threads)?;
//!
//! // The specification for your own sales gives both panel and priors: prices are relative to each product's usual price.
//! // Request::new alone has the priors of the published model.
//! let model = Specification::Sales;
//! let panel = Arc::new(model.panel(sales)?);
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
//! | the model | [`Specification`] (for your own sales, or as published), [`Priors`], [`Likelihood`]; [`Site`] and [`Layout`] say where a parameter is in a posterior's vectors |
//! | the method | [`MethodKind::default_method`], or [`Method`] with [`SviSettings`], [`NutsSettings`], [`LaplaceSettings`], [`StructuredViSettings`], [`MeanfieldSettings`] |
//! | the hardware | [`Request::devices`], [`Request::threads`]; [`registry`] lists the backends, and each its devices |
//! | the run | [`Run`], whose documentation is the contract of all backends: advance it in pieces of about equal time with a [`StepPacer`], watch its [`Progress`], stop it by an [`Interrupt`] |
//! | the result | [`Posterior`], [`Report`], [`Draws`] of a sampler, [`Dispersion`]; [`Report::convergence`] gives the verdict, a [`Convergence`], for chains by [`RHAT_LIMIT`] and [`ESS_LIMIT`] |
//! | your own backend | [`Backend`], [`Registry::with`]; [`svi`] for those that iterate a guide; [`reference`](mod@reference), the model in plain `f64`, to hold it against |
//!
//! The examples show each: `read_and_fit`, `watch_and_interrupt`, `compare_methods`, `own_backend`. Benchmarks are in the crate
//! `infermark-harness`, tables and comparisons of fits in `infermark-report`, the files of a fit in `infermark-fit-files`, and the
//! command in `infermark-cli`.
//!
//! # Features
//!
//! `cuda` and `wgpu`, both on by default, are the two routes to a GPU. Drivers are loaded at run time; none is needed to build. The
//! libraries for GPUs are most of the dependencies, and a program that uses the CPU alone leaves them out:
//!
//! ```toml
//! infermark = { path = "crates/infermark", default-features = false }
//! ```
//!
//! A program that uses CUDA calls [`choose_header`] as the first statement of `main`. The call changes the environment, so it is
//! `unsafe`, and must come before any thread starts:
//!
//! ```no_run
//! // SAFETY: no thread was started yet.
//! unsafe { infermark::choose_header() };
//! ```
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
    Choice, ConnectedRanks, Convergence, Detail, Device, DeviceId, DeviceKind, DrawStatistics, Draws,
    ESS_LIMIT, EarlyStop, GaussianPass, GaussianPoint, GaussianReport, GaussianWarning, Interrupt,
    LaplaceSettings, Limits, MOST_SHARDS, MOST_THREADS, MeanfieldSettings, Method, MethodKind, Metric,
    ModeSearchReport, NutsReport, NutsSettings, NutsWarning, Posterior, Precision, Progress, RHAT_LIMIT,
    Registry, Remedy, Report, Request, Run, RunState, Setting, ShapeShiftWarning, SiteDraws, StateFormat,
    StepPacer, StepPoint, StepUnit, StructuredViSettings, SviReport, SviSettings, SviWarning, TracePoint,
    Warning, check_threads,
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
    Axes, Coordinates, Cut, Labels, Layout, Likelihood, Panel, PanelPart, Parameterization, Priors, Site,
    Specification, dispersion::Dispersion, objective::Objective, optimizer::AdamW,
};
