//! Notes for the reader of a fit that hold for every method and that no method gives itself, in sentences.

use crate::number_format::{count, three_digits};
use infermark_backend::{Cause, Choice, Remedy, Setting};
use infermark_model::lower_bound::MOST_BELOW;
use infermark_model::{Priors, Specification, printable};

/// Products that are named in a sentence, at most; `run.json` has all.
const NAMED: usize = 12;

/// What helps where the published model does not suit the data.
const SALES_MODEL: Remedy = Remedy::Choose(Choice::Model(Specification::Sales));

/// The advice if more than [`MOST_BELOW`] of the rows are below the lower clip bound; otherwise `None`.
pub fn below_lower_bound(model: Specification, priors: &Priors, share: f64) -> Option<Cause> {
    let lower = Remedy::Lower(Setting::ClipLow);
    let remedies = match model {
        Specification::Published => vec![SALES_MODEL, lower],
        _ => vec![lower],
    };
    (share > MOST_BELOW).then(|| {
        let problem = format!(
            "{:.0}% of the rows have a fitted log rate below the model's lower bound of {} ({} units): under the model those are \
             shaped by the bound, not by sales",
            100.0 * share,
            priors.clip_low,
            units_of(priors.clip_low.exp()),
        );
        Cause::new(problem, remedies)
    })
}

/// A rate that may be very small.
fn units_of(rate: f64) -> String {
    if rate < 1e-6 {
        format!("{rate:.0e}")
    } else {
        three_digits(rate)
    }
}

/// A note on the elasticities of products whose price never changed; `None` if there are none.
pub fn constant_prices(model: Specification, constant: &[String], products: usize) -> Option<Cause> {
    let named = constant
        .iter()
        .take(NAMED)
        .map(|name| printable(name))
        .collect::<Vec<_>>();
    let more = match constant.len().saturating_sub(NAMED) {
        0 => String::new(),
        rest => format!(", and {} more, all in run.json", count(rest as u64)),
    };
    let (consequence, remedies) = match model {
        Specification::Published => (
            "the published model takes their elasticities from the level of the price, in its unit",
            vec![SALES_MODEL],
        ),
        _ => (
            "sales cannot say how they answer to the price, so their elasticity is their category's mean, with the wide interval of \
              any product of it",
            Vec::new(),
        ),
    };
    (!constant.is_empty()).then(|| {
        let problem = format!(
            "{} of {} products never changed their price ({}{more}): {consequence}",
            count(constant.len() as u64),
            count(products as u64),
            named.join(", "),
        );
        Cause::new(problem, remedies)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_below_the_bound_are_told_with_the_remedy_from_five_percent_on() {
        let told = |model, share| below_lower_bound(model, &Priors::default(), share);
        assert_eq!(told(Specification::Published, 0.05), None);
        assert_eq!(
            told(Specification::Published, 0.378).unwrap().to_string(),
            "38% of the rows have a fitted log rate below the model's lower bound of -4 (0.0183 units): under the model those are \
             shaped by the bound, not by sales; choose the sales model, or lower clip_low"
        );
        // If a user raised the bound under the sales model, only the other remedy applies.
        assert!(
            told(Specification::Sales, 0.06)
                .unwrap()
                .to_string()
                .ends_with("not by sales; lower clip_low")
        );
    }

    #[test]
    fn products_of_one_price_are_named_up_to_a_dozen() {
        let names: Vec<String> = (0..14).map(|i| format!("p{i}")).collect();
        assert_eq!(constant_prices(Specification::Sales, &[], 20), None);
        let told = constant_prices(Specification::Sales, &names[..2], 20)
            .unwrap()
            .to_string();
        assert!(
            told.starts_with("2 of 20 products never changed their price (p0, p1): sales cannot"),
            "{told}"
        );
        let told = constant_prices(Specification::Published, &names, 20)
            .unwrap()
            .to_string();
        assert!(
            told.contains("p11, and 2 more, all in run.json)") && told.ends_with("; choose the sales model"),
            "{told}"
        );
    }
}
