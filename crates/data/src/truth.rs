//! The parameters that a synthetic panel was drawn from, in memory and as a file.

use crate::read::{CsvTable, Defects, Place, ReadError, conclude, quoted, without_zero_decimals};
use infermark_atomic_file::{FileError, write_atomically};
use infermark_model::{Axes, Axis, Labels, Likelihood, Panel, PerSite, Site};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// The parameters that a synthetic panel was drawn from, in the panel's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The likelihood that the counts were drawn from.
    pub likelihood: Likelihood,
    /// Price elasticity of every product, length N.
    pub product_elasticity: Vec<f64>,
    /// The likelihood's own parameter, [`Likelihood::parameter`], of every category: length C, or 0 where it has none.
    pub parameter: Vec<f64>,
    /// Natural parameters in the order of [`Layout`](infermark_model::Layout), if the panel was drawn from the model itself.
    pub point: Option<Vec<f64>>,
}

impl Truth {
    /// Writes the file that [`read_truth`] reads, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, panel: &Panel) -> Result<(), FileError> {
        write_atomically(path, |file| {
            write_truth(file, &panel.axes(), panel.category_of(), self)
        })
    }
}

/// Writes `product,category,elasticity`; or `site,key,value`, for every latent if the whole point is known,
/// otherwise for the elasticities and the parameter of a likelihood that has one. `category_of` has length N.
pub(crate) fn write_truth(
    out: impl Write,
    axes: &Axes<'_>,
    category_of: &[u32],
    truth: &Truth,
) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    let mut write_sites = |values: &[(Site, &[f64])]| {
        table.write_record(["site", "key", "value"])?;
        for (site, values) in values {
            for (k, value) in values.iter().enumerate() {
                table.write_record([site.name(), &axes.key(*site, k).to_string(), &value.to_string()])?;
            }
        }
        io::Result::Ok(())
    };
    match (&truth.point, truth.likelihood.parameter()) {
        (Some(point), _) => {
            let layout = axes.layout().with_likelihood(truth.likelihood);
            let sites = layout.sites().iter();
            let values: Vec<_> = sites.map(|site| (*site, &point[layout.range(*site)])).collect();
            write_sites(&values)?;
        }
        (None, Some(parameter)) => write_sites(&[
            (Site::ProductA, &truth.product_elasticity),
            (parameter, &truth.parameter),
        ])?,
        (None, None) => {
            table.write_record(["product", "category", "elasticity"])?;
            for (i, elasticity) in truth.product_elasticity.iter().enumerate() {
                table.write_record([
                    axes.products.get(i).to_string(),
                    axes.categories.get(category_of[i] as usize).to_string(),
                    elasticity.to_string(),
                ])?;
            }
        }
    }
    table.flush()
}

/// Reads a truth file for a panel: `product,category,elasticity` or `site,key,value`. The second has every
/// latent of a likelihood, or the elasticities and the likelihood's own parameter alone; which likelihood
/// follows from the sites that it names. Rows about products, categories or periods that the panel lacks are
/// skipped, so that a truth can also be used for a part of its panel.
///
/// # Errors
/// [`ReadError`] when the file is not of either form, a value is not a finite number, a key occurs twice, a
/// key of the panel is missing, or a product's category is not the panel's.
pub fn read_truth(path: &Path, panel: &Panel) -> Result<Truth, ReadError> {
    let mut table = CsvTable::open(path)?;
    let mut defects = Defects::default();
    let truth = fill(&mut table, panel, &mut defects)?;
    conclude(truth, defects, path, table.row_word(), |places| {
        table.lines(places)
    })
}

fn fill(table: &mut CsvTable, panel: &Panel, defects: &mut Defects) -> Result<Option<Truth>, ReadError> {
    let Some(whole_point) = whole_point(table, defects) else {
        return Ok(None);
    };
    let layout = panel.layout();
    let mut values = PerSite::from_fn(|site| vec![f64::NAN; layout.len_along(site.axis())]);
    let places = LatentPlaces::new(panel, whole_point);
    table.for_each(defects, |row, record, defects| {
        let Some(record) = record else { return };
        let cell = |i: usize| String::from_utf8_lossy(&record[i]).into_owned();
        let (name, key) = if whole_point {
            (cell(0), cell(1))
        } else {
            (Site::ProductA.name().into(), cell(0))
        };
        let Some(site) = Site::named(&name) else {
            defects.push(Place::Row(row), "site", Some(&|| name.clone()), || {
                ("there is no such site".into(), "correct the site's name".into())
            });
            return;
        };
        let found = places
            .find(site.axis(), &key)
            .or_else(|| places.find(site.axis(), without_zero_decimals(&key)));
        let Some(place) = found else { return };
        if !whole_point {
            let category = panel.categories().get(panel.category_of()[place] as usize);
            let named = category.to_string();
            if named != cell(1) && named != without_zero_decimals(&cell(1)) {
                defects.push(Place::Row(row), "category", Some(&|| cell(1)), || {
                    (
                        format!(
                            "the panel has product {} in category {}",
                            quoted(&key),
                            quoted(&category.to_string())
                        ),
                        "name the truth that belongs to this panel".into(),
                    )
                });
                return;
            }
        }
        let columns = key_and_value_columns(whole_point);
        take_value(
            &mut values[site][place],
            row,
            columns,
            (&name, &key),
            &cell(2),
            defects,
        );
    })?;
    if defects.is_empty() {
        check_complete(&values, whole_point, panel, defects);
    }
    Ok(defects.is_empty().then(|| truth_of_sites(values, whole_point)))
}

/// The sites that have values.
fn named_sites(values: &PerSite<Vec<f64>>) -> Vec<Site> {
    let named = values
        .iter()
        .filter(|(_, of)| of.iter().any(|value| !value.is_nan()));
    named.map(|(site, _)| site).collect()
}

/// The likelihood of a file that has the sites `named`: the one whose own parameter is among them, or
/// Poisson.
fn likelihood_of(named: &[Site]) -> Likelihood {
    let has_own = |law: &Likelihood| law.parameter().is_some_and(|own| named.contains(&own));
    Likelihood::ALL.into_iter().find(has_own).unwrap_or_default()
}

/// Whether a file with the sites `named` has only the elasticities and the likelihood's own parameter.
fn is_partial(named: &[Site], likelihood: Likelihood) -> bool {
    let own = likelihood.parameter();
    own.is_some()
        && named
            .iter()
            .all(|site| *site == Site::ProductA || Some(*site) == own)
}

/// Finds keys of the panel that have no value, and sites that do not belong together.
fn check_complete(values: &PerSite<Vec<f64>>, whole_point: bool, panel: &Panel, defects: &mut Defects) {
    let named = named_sites(values);
    let likelihood = likelihood_of(&named);
    if let Some(other) = named.iter().find(|site| !site.is_of(likelihood)) {
        defects.push(Place::File, "site", Some(&|| other.name().to_owned()), || {
            (
                format!(
                    "the {} likelihood, whose sites are here too, does not have it",
                    likelihood.name()
                ),
                "name a truth of one likelihood".into(),
            )
        });
    }
    let is_expected = |site: &Site| match whole_point {
        true if is_partial(&named, likelihood) => {
            *site == Site::ProductA || Some(*site) == likelihood.parameter()
        }
        true => site.is_of(likelihood),
        false => *site == Site::ProductA,
    };
    let axes = panel.axes();
    for site in Site::ALL.into_iter().filter(is_expected) {
        for (k, _) in values[site]
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_nan())
        {
            defects.push(Place::File, "", Some(&|| axes.key(site, k).to_string()), || {
                (
                    format!("the panel has this key of {}, the truth has not", site.name()),
                    "name the truth that belongs to this panel".into(),
                )
            });
        }
    }
}

/// The truth from complete values.
fn truth_of_sites(values: PerSite<Vec<f64>>, whole_point: bool) -> Truth {
    let named = named_sites(&values);
    let likelihood = likelihood_of(&named);
    let parameter = likelihood.parameter().map(|own| values[own].clone());
    let has_point = whole_point && !is_partial(&named, likelihood);
    let sites = values.iter().filter(|(site, _)| site.is_of(likelihood));
    Truth {
        likelihood,
        parameter: parameter.unwrap_or_default(),
        point: has_point.then(|| sites.flat_map(|(_, of)| of.iter().copied()).collect()),
        product_elasticity: values[Site::ProductA].clone(),
    }
}

/// Whether the file has all latents, judging by its header; `None`, with a finding, if it is not a truth
/// file.
fn whole_point(table: &CsvTable, defects: &mut Defects) -> Option<bool> {
    if !table.check_header(defects) {
        return None;
    }
    let header: Vec<&str> = table.header().iter().map(String::as_str).collect();
    match header[..] {
        ["product", "category", "elasticity"] => Some(false),
        ["site", "key", "value"] => Some(true),
        _ => {
            defects.push(Place::File, "", None, || {
                (
                    format!(
                        "the header is {}, neither product,category,elasticity nor site,key,value",
                        quoted(&header.join(","))
                    ),
                    "name the file that was written as the panel's truth".into(),
                )
            });
            None
        }
    }
}

/// Names of the columns that hold the key and the value.
const fn key_and_value_columns(whole_point: bool) -> (&'static str, &'static str) {
    if whole_point {
        ("key", "value")
    } else {
        ("product", "elasticity")
    }
}

/// Stores a row's value in its slot, which is NaN until then.
fn take_value(
    slot: &mut f64,
    row: u64,
    (key_column, value_column): (&str, &str),
    (site, key): (&str, &str),
    value: &str,
    defects: &mut Defects,
) {
    match value.trim().parse::<f64>().ok().filter(|v| v.is_finite()) {
        None => defects.push(Place::Row(row), value_column, Some(&|| value.to_owned()), || {
            ("the value is not a finite number".into(), "correct it".into())
        }),
        Some(_) if !slot.is_nan() => {
            defects.push(Place::Row(row), key_column, Some(&|| key.to_owned()), || {
                (
                    format!("{site} of this key came before"),
                    "keep one of the two rows".into(),
                )
            });
        }
        Some(value) => *slot = value,
    }
}

/// Reads the true elasticities of `products` (labels as written in files) from a truth file of either form,
/// without a panel; in the order of `products`. Rows of other products are skipped.
///
/// # Errors
/// [`ReadError`] when the file is not of either form, an elasticity is not a finite number, a product comes twice or is
/// missing.
pub fn read_true_elasticities(path: &Path, products: &[String]) -> Result<Vec<f64>, ReadError> {
    let mut table = CsvTable::open(path)?;
    let mut defects = Defects::default();
    let found = match whole_point(&table, &mut defects) {
        Some(whole_point) => Some(elasticities(&mut table, whole_point, products, &mut defects)?),
        None => None,
    };
    let found = found.filter(|_| defects.is_empty());
    conclude(found, defects, path, table.row_word(), |places| {
        table.lines(places)
    })
}

/// The elasticities of `products`; if some are missing, `defects` say why.
fn elasticities(
    table: &mut CsvTable,
    whole_point: bool,
    products: &[String],
    defects: &mut Defects,
) -> Result<Vec<f64>, ReadError> {
    let places: HashMap<&str, usize> = products
        .iter()
        .enumerate()
        .map(|(i, p)| (p.as_str(), i))
        .collect();
    let mut found = vec![f64::NAN; products.len()];
    let columns = key_and_value_columns(whole_point);
    let (key_place, site) = (usize::from(whole_point), Site::ProductA.name());
    table.for_each(defects, |row, record, defects| {
        let Some(record) = record else { return };
        let cell = |i: usize| String::from_utf8_lossy(&record[i]).into_owned();
        let key = cell(key_place);
        if whole_point && cell(0) != site {
            return;
        }
        let place = places
            .get(key.as_str())
            .or_else(|| places.get(without_zero_decimals(&key)));
        if let Some(place) = place {
            take_value(&mut found[*place], row, columns, (site, &key), &cell(2), defects);
        }
    })?;
    if defects.is_empty() {
        for (product, _) in products.iter().zip(&found).filter(|(_, value)| value.is_nan()) {
            defects.push(Place::File, "", Some(&|| product.clone()), || {
                (
                    "the fit has this product, the truth has not".into(),
                    "name the truth that belongs to the fit's data".into(),
                )
            });
        }
    }
    Ok(found)
}

/// Finds the place along an axis that a key names.
struct LatentPlaces {
    products: HashMap<String, usize>,
    categories: HashMap<String, usize>,
    category_periods: HashMap<String, usize>,
}

impl LatentPlaces {
    fn new(panel: &Panel, whole_point: bool) -> Self {
        let index = |labels: &Labels| {
            labels
                .iter()
                .enumerate()
                .map(|(i, l)| (l.to_string(), i))
                .collect()
        };
        let mut places = LatentPlaces {
            products: index(panel.products()),
            categories: index(panel.categories()),
            category_periods: HashMap::new(),
        };
        if whole_point {
            let axes = panel.axes();
            let keys = (0..panel.layout().len(Site::TimeCatEffects))
                .map(|k| (axes.key(Site::TimeCatEffects, k).to_string(), k));
            places.category_periods.extend(keys);
        }
        places
    }

    fn find(&self, axis: Axis, key: &str) -> Option<usize> {
        match axis {
            Axis::Scalar => key.is_empty().then_some(0),
            Axis::Category => self.categories.get(key).copied(),
            Axis::Product => self.products.get(key).copied(),
            Axis::CategoryPeriod => self.category_periods.get(key).copied(),
        }
    }
}
