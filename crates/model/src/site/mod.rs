//! The model's sites: one table that defines each, and what follows from it.
//!
//! | file | holds |
//! |---|---|
//! | `table` | [`Site`] and its row of [`SITES`]: name, axis, prior, likelihoods |
//! | `layout` | [`Layout`]: where each site lies in the flat vector of latents |
//! | `per_site` | [`PerSite`]: one value per site |
//! | `prior` | the prior mean and standard deviation of each site, by [`Priors`](crate::Priors) |
//!
//! A new site is a variant of [`Site`], a row of [`SITES`] and, for its prior, two settings of
//! [`Priors`](crate::Priors).

mod layout;
mod per_site;
mod prior;
mod table;

pub use layout::Layout;
pub use per_site::PerSite;
pub use table::{Axis, PriorMean, SITES, Site, SiteSpec, setting_names};
