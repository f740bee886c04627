//! The table of sites.

use crate::likelihood::Likelihood;
use crate::priors::{PriorSetting, Priors, setting};
use serde::{Deserialize, Serialize};

/// A sample site of the model, in the order of the flat vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Mean of the categories' elasticities; a scalar.
    GlobalA,
    /// Mean elasticity in a category; length C.
    CategoryA,
    /// Price elasticity of a product; length N.
    ProductA,
    /// Log level of a product; length N.
    ProductEffect,
    /// Log level of a category in a period; length C * T, category-major.
    TimeCatEffects,
    /// Log of the negative-binomial shape of a category's counts; length C, or 0 under a likelihood without a shape.
    LogShape,
}

/// The axis of a site: it has one latent per entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// The site is a scalar.
    Scalar,
    /// One latent per category; length C.
    Category,
    /// One latent per product; length N.
    Product,
    /// One latent per category and period, category-major; length C * T.
    CategoryPeriod,
}

/// Prior mean of a site.
#[derive(Debug, Clone, Copy)]
pub enum PriorMean {
    /// The same for all of its latents: a setting of [`Priors`].
    Setting(PriorSetting),
    /// The value of another site: the scalar, or the entry of the latent's category.
    Parent(Site),
}

/// The model's definition of a site.
#[derive(Debug, Clone, Copy)]
pub struct SiteSpec {
    /// The site.
    pub site: Site,
    /// Its name in files, in the command and in the published code.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// The axis along which it has latents.
    pub axis: Axis,
    /// Prior mean.
    pub mean: PriorMean,
    /// Prior standard deviation about the mean.
    pub sd: PriorSetting,
    /// The likelihoods that have the site; `None` where all have it.
    pub likelihoods: Option<&'static [Likelihood]>,
    /// Whether a [`Parameterization`](crate::Parameterization) chooses the form that it is inferred in; a site without this choice
    /// is its own natural parameter.
    pub is_reparameterized: bool,
}

/// The sites, in the order of the flat vector: those that every likelihood has come first.
pub const SITES: &[SiteSpec] = &[
    SiteSpec {
        site: Site::GlobalA,
        name: "global_a",
        description: "mean of the categories' elasticities",
        axis: Axis::Scalar,
        mean: PriorMean::Setting(setting!(global_a_mean)),
        sd: setting!(global_a_sd),
        likelihoods: None,
        is_reparameterized: true,
    },
    SiteSpec {
        site: Site::CategoryA,
        name: "category_a",
        description: "mean elasticity in a category",
        axis: Axis::Category,
        mean: PriorMean::Parent(Site::GlobalA),
        sd: setting!(category_a_sd),
        likelihoods: None,
        is_reparameterized: true,
    },
    SiteSpec {
        site: Site::ProductA,
        name: "product_a",
        description: "price elasticity of a product",
        axis: Axis::Product,
        mean: PriorMean::Parent(Site::CategoryA),
        sd: setting!(product_a_sd),
        likelihoods: None,
        is_reparameterized: true,
    },
    SiteSpec {
        site: Site::ProductEffect,
        name: "product_effect",
        description: "log level of a product",
        axis: Axis::Product,
        mean: PriorMean::Setting(setting!(product_effect_mean)),
        sd: setting!(product_effect_sd),
        likelihoods: None,
        is_reparameterized: true,
    },
    SiteSpec {
        site: Site::TimeCatEffects,
        name: "time_cat_effects",
        description: "log level of a category in a period",
        axis: Axis::CategoryPeriod,
        mean: PriorMean::Setting(setting!(time_cat_effects_mean)),
        sd: setting!(time_cat_effects_sd),
        likelihoods: None,
        is_reparameterized: true,
    },
    SiteSpec {
        site: Site::LogShape,
        name: "log_shape",
        description: "log of the negative-binomial shape of a category's counts",
        axis: Axis::Category,
        mean: PriorMean::Setting(setting!(log_shape_mean)),
        sd: setting!(log_shape_sd),
        likelihoods: Some(&[Likelihood::NegativeBinomial]),
        is_reparameterized: false,
    },
];

const REPARAMETERIZED: usize = {
    let (mut count, mut k) = (0, 0);
    while k < SITES.len() {
        assert!(
            SITES[k].site as usize == k,
            "the table is in the order of the sites"
        );
        if SITES[k].is_reparameterized {
            assert!(count == k, "reparameterized sites come first");
            count += 1;
        }
        k += 1;
    }
    count
};

const fn first<const N: usize>() -> [Site; N] {
    let mut sites = [Site::GlobalA; N];
    let mut k = 0;
    while k < N {
        sites[k] = SITES[k].site;
        k += 1;
    }
    sites
}

impl Site {
    /// How many sites there are.
    pub const COUNT: usize = SITES.len();

    /// All sites, in the order of the flat vector. [`Layout::sites`](crate::Layout::sites) gives those that a likelihood has.
    pub const ALL: [Site; SITES.len()] = first();

    /// The sites whose form a [`Parameterization`](crate::Parameterization) chooses, in the order of the flat vector: those of the
    /// published model.
    pub const REPARAMETERIZED: [Site; REPARAMETERIZED] = first();

    /// The site's row of the table.
    #[inline]
    pub const fn spec(self) -> &'static SiteSpec {
        &SITES[self as usize]
    }

    /// The site's name in files, in the command and in the published code.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The site with this name.
    pub fn named(name: &str) -> Option<Site> {
        SITES.iter().find(|spec| spec.name == name).map(|spec| spec.site)
    }

    /// The axis along which the site has latents.
    #[inline]
    pub const fn axis(self) -> Axis {
        self.spec().axis
    }

    /// The site whose value is this one's prior mean, if there is one.
    #[inline]
    pub const fn parent(self) -> Option<Site> {
        match self.spec().mean {
            PriorMean::Parent(site) => Some(site),
            PriorMean::Setting(_) => None,
        }
    }

    /// The sites whose values are prior means of others, in the order of the flat vector.
    pub fn parents() -> impl Iterator<Item = Site> {
        let is_parent = |site: &Site| Site::ALL.iter().any(|other| other.parent() == Some(*site));
        Site::ALL.into_iter().filter(is_parent)
    }

    /// Whether a [`Parameterization`](crate::Parameterization) chooses the form of the site.
    #[inline]
    pub const fn is_reparameterized(self) -> bool {
        self.spec().is_reparameterized
    }

    /// Position in [`Site::ALL`].
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The site with its indices, as in a formula: `global_a`, `category_a[c]`, `product_a[i]`,
    /// `time_cat_effects[c,t]`.
    pub fn in_symbols(self) -> String {
        let index = match self.axis() {
            Axis::Scalar => "",
            Axis::Category => "[c]",
            Axis::Product => "[i]",
            Axis::CategoryPeriod => "[c,t]",
        };
        format!("{}{index}", self.name())
    }

    /// The site whose value is this one's prior mean, as in the formula of that prior: `global_a`,
    /// `category_a[c(i)]`.
    pub fn parent_in_symbols(self) -> Option<String> {
        let parent = self.parent()?;
        Some(match (parent.axis(), self.axis()) {
            (Axis::Category, Axis::Product) => format!("{}[c(i)]", parent.name()),
            _ => parent.in_symbols(),
        })
    }

    /// Whether a likelihood has the site.
    #[inline]
    pub const fn is_of(self, likelihood: Likelihood) -> bool {
        let Some(likelihoods) = self.spec().likelihoods else {
            return true;
        };
        let mut k = 0;
        while k < likelihoods.len() {
            if likelihoods[k] as usize == likelihood as usize {
                return true;
            }
            k += 1;
        }
        false
    }
}

impl Likelihood {
    /// The site of the likelihood's own parameter, of which there is one per category; `None` where it has none.
    #[inline]
    pub const fn parameter(self) -> Option<Site> {
        let mut k = 0;
        while k < SITES.len() {
            if SITES[k].likelihoods.is_some() && SITES[k].site.is_of(self) {
                return Some(SITES[k].site);
            }
            k += 1;
        }
        None
    }

    /// Whether the counts of a category have a shape, [`Site::LogShape`].
    #[inline]
    pub const fn has_shape(self) -> bool {
        Site::LogShape.is_of(self)
    }
}

/// Names of all settings of [`Priors`] in its files: of each site in the order of the table, then the clip bounds.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    let of_sites = SITES.iter().flat_map(|spec| {
        let mean = match spec.mean {
            PriorMean::Setting(setting) => Some(setting.name),
            PriorMean::Parent(_) => None,
        };
        mean.into_iter().chain([spec.sd.name])
    });
    of_sites.chain(["clip_low", "clip_high"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    #[test]
    fn names_in_files_are_those_of_the_table() {
        for site in Site::ALL {
            let name: StrDeserializer<'_, Error> = site.name().into_deserializer();
            assert_eq!(Site::deserialize(name), Ok(site));
            assert_eq!(Site::named(site.name()), Some(site));
        }
        assert_eq!(Site::named("no_such_site"), None);
    }

    #[test]
    fn parents_come_before_their_children_and_are_of_every_likelihood_that_has_these() {
        for site in Site::ALL {
            if let Some(parent) = site.parent() {
                assert!(parent < site);
                assert!(matches!(parent.axis(), Axis::Scalar | Axis::Category));
                assert!(parent.spec().likelihoods.is_none());
            }
        }
    }

    #[test]
    fn sites_in_formulas() {
        assert_eq!(Site::GlobalA.in_symbols(), "global_a");
        assert_eq!(Site::TimeCatEffects.in_symbols(), "time_cat_effects[c,t]");
        assert_eq!(Site::ProductA.parent_in_symbols().unwrap(), "category_a[c(i)]");
        assert_eq!(Site::CategoryA.parent_in_symbols().unwrap(), "global_a");
        assert_eq!(Site::LogShape.parent_in_symbols(), None);
        assert_eq!(
            Site::parents().collect::<Vec<_>>(),
            [Site::GlobalA, Site::CategoryA]
        );
    }

    /// The settings of the table are all that the priors have, each its own.
    #[test]
    fn every_setting_belongs_to_one_place() {
        let mut priors = Priors::default();
        let mut expected = 100.0;
        for spec in SITES {
            let mean = match spec.mean {
                PriorMean::Setting(setting) => Some(setting),
                PriorMean::Parent(_) => None,
            };
            for setting in mean.into_iter().chain([spec.sd]) {
                *(setting.get_mut)(&mut priors) = expected;
                expected += 1.0;
            }
        }
        let whole = format!("{priors:?}");
        for (k, name) in setting_names().enumerate() {
            let value = match name {
                "clip_low" => priors.clip_low,
                "clip_high" => priors.clip_high,
                _ => 100.0 + k as f64,
            };
            assert!(whole.contains(&format!("{name}: {value:?}")), "{name} {whole}");
        }
        assert_eq!(whole.matches(": ").count(), setting_names().count());
    }

    #[test]
    fn a_likelihoods_own_parameter_is_one_per_category() {
        for likelihood in Likelihood::ALL {
            let own: Vec<Site> = Site::ALL
                .into_iter()
                .filter(|site| site.spec().likelihoods.is_some() && site.is_of(likelihood))
                .collect();
            assert_eq!(own.first().copied(), likelihood.parameter());
            assert!(own.len() <= 1 && own.iter().all(|site| site.axis() == Axis::Category));
        }
        assert_eq!(Likelihood::Poisson.parameter(), None);
        assert_eq!(Likelihood::NegativeBinomial.parameter(), Some(Site::LogShape));
    }
}
