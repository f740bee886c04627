//! JSON that a user writes: prior settings, and points of the parameters.

use crate::json_file::read_text;
use anyhow::{Context, bail, ensure};
use infermark_model::{Layout, Priors};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest number of bytes of a file of prior settings.
const MOST_PRIOR_BYTES: u64 = 1 << 20;

/// The prior settings that a file gives, read once: it may be a pipe.
#[derive(Debug, Clone, Default)]
pub struct GivenPriors(Option<(PathBuf, Map<String, Value>)>);

impl GivenPriors {
    /// The settings of `file`; none without one.
    ///
    /// # Errors
    /// When it cannot be read, is not a JSON object, or a setting in it is not a number.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else {
            return Ok(GivenPriors(None));
        };
        let settings = read_object(path, MOST_PRIOR_BYTES, "{\"product_a_sd\": 1.5}")?;
        for (name, value) in &settings {
            ensure!(
                value.is_number(),
                "{}: {name:?} is {}; give a number",
                path.display(),
                match value {
                    Value::Array(_) => "an array".to_owned(),
                    Value::Object(_) => "an object".to_owned(),
                    other => other.to_string(),
                }
            );
        }
        Ok(GivenPriors(Some((path.to_owned(), settings))))
    }

    /// Whether the setting `name` was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_some_and(|(_, given)| given.contains_key(name))
    }

    /// `base` with the given settings.
    ///
    /// # Errors
    /// When a setting is unknown or out of its range; names the file.
    pub fn over(&self, base: Priors) -> anyhow::Result<Priors> {
        let Some((path, given)) = &self.0 else {
            return Ok(base);
        };
        let mut settings = serde_json::to_value(base)?;
        if let Value::Object(settings) = &mut settings {
            settings.extend(given.clone());
        }
        let priors: Priors = serde_json::from_value(settings)
            .with_context(|| format!("{} is not what is expected", path.display()))?;
        priors
            .validate()
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        Ok(priors)
    }
}

/// Reads natural parameters in the order of the layout from a JSON object with one entry per site.
///
/// # Errors
/// When the file cannot be read, is not such an object, or its sites and their sizes are not those of the
/// layout.
pub fn read_point(path: &Path, layout: &Layout) -> anyhow::Result<Vec<f64>> {
    // Numbers in full, each on a line of its own, take less.
    let most = (1 << 20) + 128 * layout.latents() as u64;
    let sites = read_object(path, most, "{\"global_a\": -2, \"category_a\": [-2, -1.5], ..}")?;
    let name = path.display();
    if let Some(unknown) = sites
        .keys()
        .find(|key| layout.sites().iter().all(|site| site.name() != *key))
    {
        bail!(
            "{name}: there is no site \"{unknown}\"; the sites under the {} likelihood are {}",
            layout.likelihood.name(),
            layout
                .sites()
                .iter()
                .map(|site| site.name())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let mut point = Vec::with_capacity(layout.latents());
    for site in layout.sites() {
        let value = sites.get(site.name());
        let value = value.with_context(|| format!("{name}: site \"{}\" is missing", site.name()))?;
        let numbers = match value {
            Value::Array(numbers) => numbers.as_slice(),
            number => std::slice::from_ref(number),
        };
        if numbers.len() != layout.len(*site) {
            bail!(
                "{name}: \"{}\" has {} numbers; this panel needs {}",
                site.name(),
                numbers.len(),
                layout.len(*site)
            );
        }
        for (i, number) in numbers.iter().enumerate() {
            let number = number.as_f64();
            point.push(number.with_context(|| {
                format!("{name}: entry {} of \"{}\" is not a number", i + 1, site.name())
            })?);
        }
    }
    Ok(point)
}

/// Reads the JSON object of a file of at most `most` bytes; `such_as` is an example for the error message.
fn read_object(path: &Path, most: u64, such_as: &str) -> anyhow::Result<Map<String, Value>> {
    let text = read_text(path, most).with_context(|| format!("cannot read {}", path.display()))?;
    let what = match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(Value::Array(_)) => "an array".to_owned(),
        Ok(_) => "a single value".to_owned(),
        Err(error) => format!("no JSON ({error})"),
    };
    bail!("{} is {what}; give a JSON object, as {such_as}", path.display())
}
