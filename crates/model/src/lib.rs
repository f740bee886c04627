//! The hierarchical price-elasticity model of counts, without input/output and without hardware.
//!
//! Everything here is plain, readable `f64` Rust. It is the reference that every fast backend is compared
//! with, and the vocabulary that all of them share:
//!
//! | module | holds |
//! |---|---|
//! | `panel` | the rows, sorted by product then period, with the sums that never change |
//! | `labels` | the names of products, categories and periods |
//! | `printable` | text from files, made safe to print |
//! | [`wild_price`] | prices far from all other prices of their product |
//! | `axes` | the labels along all axes, and the keys of latents in files |
//! | [`design`] | the regressors of the log rate: the multipliers of a product's latents |
//! | `site` | the table of the model's sites, and how they lie in one flat vector |
//! | `priors` | prior means and standard deviations, clip bounds |
//! | `parameterization` | centred, learned and non-centred forms (LocScaleReparam) |
//! | `coordinates` | those in which the latents are nearly independent |
//! | `likelihood` | Poisson or negative-binomial counts |
//! | [`log_joint`] | the log joint density and its gradient |
//! | [`negative_binomial`] | the log likelihood of a negative-binomial count |
//! | `specification` | the published model, or the one for your own sales |
//! | [`lower_bound`] | how many rows a fit puts below the lower clip bound |
//! | [`dispersion`] | how much more counts vary than a fit predicts |
//! | [`mod@ln_factorial`] | `ln n!`, for the constants of the Poisson counts |
//! | [`guide`] | the mean-field normal guide |
//! | [`objective`] | Renyi bound and ELBO over particles |
//! | [`svi`] | one SVI iteration as the published algorithm defines it |
//! | [`optimizer`] | AdamW and its learning-rate schedule |
//! | [`noise`] | counter-based normals (Philox4x32-10) |

mod axes;
mod coordinates;
pub mod design;
pub mod dispersion;
pub mod guide;
mod labels;
mod likelihood;
pub mod ln_factorial;
pub mod log_joint;
pub mod lower_bound;
pub mod noise;
pub mod objective;
pub mod optimizer;
mod panel;
mod parameterization;
mod printable;
mod priors;
mod shard;
mod site;
mod specification;
pub mod svi;
pub mod wild_price;

pub use axes::{Axes, LatentKey};
pub use coordinates::{Coordinates, IndependentRates, Orthogonal, ZeroSum};
pub use labels::{Label, Labels, civil_from_days, days_from_civil};
pub use likelihood::{
    Likelihood, LikelihoodVisitor, RowLikelihood, RowTerms, RowWeight, negative_binomial, poisson,
};
pub use panel::{
    AllProducts, OwnProducts, Panel, PanelError, PanelPart, PanelRanks, Presence, RELATIVE_PRICE_STEP, Row,
    RowsToStore, StoredNumbers, StoredPanel, StoredRows, UnitSums,
};
pub use parameterization::{Centredness, LocScale, Parameterization};
pub use printable::{printable, printable_lines};
pub use priors::{PriorSetting, Priors, PriorsError};
pub use shard::{Cut, Shard, TooManyShards, cut_by_rows};
pub use site::{Axis, Layout, PerSite, PriorMean, SITES, Site, SiteSpec, setting_names};
pub use specification::{SALES_CLIP, Specification, median_log_units};
