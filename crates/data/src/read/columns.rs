//! The names that the panel's five columns have in a file.

use super::defect::{Findings, Place};

/// Column names in the file. The defaults are `product`, `category`, `week`, `price` and `units`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Name of the product column.
    pub product: String,
    /// Name of the category column.
    pub category: String,
    /// Name of the period column.
    pub period: String,
    /// Name of the price column.
    pub price: String,
    /// Name of the column of units sold.
    pub units: String,
}

impl Default for Columns {
    fn default() -> Self {
        Columns {
            product: "product".into(),
            category: "category".into(),
            period: "week".into(),
            price: "price".into(),
            units: "units".into(),
        }
    }
}

impl Columns {
    /// Each column's name with the option that sets it, in the order product, category, period, price, units.
    fn with_options(&self) -> [(&str, &'static str); 5] {
        [
            (&self.product, "--product-column"),
            (&self.category, "--category-column"),
            (&self.period, "--period-column"),
            (&self.price, "--price-column"),
            (&self.units, "--units-column"),
        ]
    }

    /// Where the five columns are among a file's columns; `None` after findings of missing or repeated ones, and of
    /// one column that is named for two things.
    pub(crate) fn locate(&self, header: &[String], findings: &mut Findings) -> Option<[usize; 5]> {
        let wanted = self.with_options();
        let mut found = [0; 5];
        let mut complete = true;
        for (i, (name, option)) in wanted.iter().enumerate() {
            if let Some((_, earlier)) = wanted[..i].iter().find(|(n, _)| n == name) {
                complete = false;
                findings.push(Place::File, name, None, || {
                    (
                        format!("{earlier} and {option} both name this column"),
                        "name a column of its own with each".into(),
                    )
                });
            }
        }
        for (slot, (name, option)) in found.iter_mut().zip(wanted) {
            let mut places = header
                .iter()
                .enumerate()
                .filter(|(_, h)| *h == name)
                .map(|(i, _)| i);
            match (places.next(), places.next()) {
                (Some(first), None) => *slot = first,
                (Some(first), Some(second)) => {
                    complete = false;
                    findings.push(Place::File, name, None, || {
                        (
                            format!(
                                "the column is there twice, as columns {} and {}",
                                first + 1,
                                second + 1
                            ),
                            "rename or remove one of them".into(),
                        )
                    });
                }
                (None, _) => {
                    complete = false;
                    findings.push(Place::File, name, None, || missing(name, option, header));
                }
            }
        }
        complete.then_some(found)
    }
}

fn missing(name: &str, option: &str, header: &[String]) -> (String, String) {
    let listed = header
        .iter()
        .map(|h| format!("{h:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    let problem = format!("the column is missing; the file has {listed}");
    if let [only] = header
        && let Some(separator) = [';', '\t', '|'].into_iter().find(|s| only.contains(*s))
    {
        return (
            problem,
            format!("the file seems to be separated by {separator:?}: save it with commas"),
        );
    }
    let wanted = name.to_lowercase();
    let nearest = header
        .iter()
        .map(|h| {
            let lower = h.to_lowercase();
            let distance = if lower.contains(&wanted) {
                0
            } else {
                edit_distance(&lower, &wanted)
            };
            (distance, h)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= wanted.chars().count() / 2)
        .map(|(_, h)| h);
    let remedy = match nearest {
        Some(h) => format!("did you mean {h:?}? pass {option} {h:?}"),
        None => format!("name the column that holds it with {option}"),
    };
    (problem, remedy)
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::edit_distance;

    #[test]
    fn edit_distances_are_levenshtein() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("price", "price"), 0);
        assert_eq!(edit_distance("flaw", "lawn"), 2);
    }
}
