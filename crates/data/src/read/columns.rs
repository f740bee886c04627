//! The names that the panel's five columns have in a file.

use super::defect::{Defects, Place};
use super::panel_column::PanelColumn;
use super::remedy::DefectRemedy;
use super::shown::quoted;

/// The positions of the panel's columns among a file's: product, category, period, price, units.
pub(crate) type Places = [usize; 5];

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
    /// The names, in the order of the fields.
    fn names(&self) -> [&str; 5] {
        [
            &self.product,
            &self.category,
            &self.period,
            &self.price,
            &self.units,
        ]
    }

    /// The positions of the columns among a file's columns; `None`, with findings, if a column is
    /// missing or repeated, or if one column is named twice.
    pub(crate) fn locate(&self, header: &[String], defects: &mut Defects) -> Option<Places> {
        self.locate_where(header, |_, _| true, defects)
    }

    /// [`Columns::locate`], suggesting a file's column for one of the five (counted from 0 as above) only if
    /// `fits` accepts the two.
    pub(crate) fn locate_where(
        &self,
        header: &[String],
        mut fits: impl FnMut(usize, usize) -> bool,
        defects: &mut Defects,
    ) -> Option<Places> {
        let wanted = self.names();
        let mut missing = Vec::new();
        let mut found = [0; 5];
        let mut complete = true;
        for (i, name) in wanted.iter().enumerate() {
            if let Some(earlier) = wanted[..i].iter().position(|earlier| earlier == name) {
                complete = false;
                let [earlier, column] = [earlier, i].map(|i| PanelColumn::ALL[i]);
                defects.push_misnamed(
                    name,
                    format!(
                        "{} and {} are both read from this column",
                        earlier.name(),
                        column.name()
                    ),
                    DefectRemedy::NameApart(earlier, column),
                );
            }
        }
        for (role, (slot, name)) in found.iter_mut().zip(wanted).enumerate() {
            let mut places = header
                .iter()
                .enumerate()
                .filter(|(_, h)| *h == name)
                .map(|(i, _)| i);
            match (places.next(), places.next()) {
                (Some(first), None) => *slot = first,
                (Some(first), Some(second)) => {
                    complete = false;
                    defects.push(Place::File, name, None, || {
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
                    missing.push(role);
                }
            }
        }
        tell_missing(&wanted, &missing, header, &mut fits, defects);
        complete.then_some(found)
    }
}

/// How many of a file's columns a message lists.
const LISTED_COLUMNS: usize = 20;

/// The names of a file's columns, as many as fit in a message.
fn listed(header: &[String]) -> String {
    let shown: Vec<String> = header.iter().take(LISTED_COLUMNS).map(|h| quoted(h)).collect();
    let shown = shown.join(", ");
    match header.len().saturating_sub(LISTED_COLUMNS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Reports all missing columns in one finding, so that the file's columns are listed only once.
fn tell_missing(
    wanted: &[&str; 5],
    missing: &[usize],
    header: &[String],
    fits: &mut impl FnMut(usize, usize) -> bool,
    defects: &mut Defects,
) {
    if missing.is_empty() {
        return;
    }
    let has = listed(header);
    if let [only] = header
        && let Some(separator) = [';', '\t', '|'].into_iter().find(|s| only.contains(*s))
    {
        defects.push(Place::File, "", None, || {
            (
                format!("the file has one column, {has}"),
                format!("it seems to be separated by {separator:?}: save it with commas"),
            )
        });
        return;
    }
    let mut suggested: Vec<usize> = Vec::new();
    let unnamed = missing.iter().map(|role| {
        let place = nearest(wanted[*role], header, |place| {
            let taken = wanted.contains(&header[place].as_str());
            !taken && !suggested.contains(&place) && fits(*role, place)
        });
        suggested.extend(place);
        (PanelColumn::ALL[*role], place.map(|place| header[place].clone()))
    });
    let remedy = DefectRemedy::NameColumns(unnamed.collect());
    if let [role] = missing {
        let problem = format!("the column is missing; the file has {has}");
        defects.push_misnamed(wanted[*role], problem, remedy);
        return;
    }
    let names: Vec<String> = missing.iter().map(|role| quoted(wanted[*role])).collect();
    let problem = format!("the columns {} are missing; the file has {has}", names.join(", "));
    defects.push_misnamed("", problem, remedy);
}

/// The column whose name is closest to the wanted one, among those that may be suggested.
fn nearest(name: &str, header: &[String], mut may_be: impl FnMut(usize) -> bool) -> Option<usize> {
    let wanted = name.to_lowercase();
    let limit = wanted.chars().count() / 2;
    let mut near: Vec<(usize, usize)> = header
        .iter()
        .enumerate()
        // The distance takes time and memory in proportion to both lengths, and a long name is not a typing
        // error.
        .filter(|(_, h)| h.len() <= LONGEST_SUGGESTION && !h.is_empty())
        .map(|(place, h)| {
            let lower = h.to_lowercase();
            let distance = if lower.contains(&wanted) {
                0
            } else {
                edit_distance(&lower, &wanted)
            };
            (distance, place)
        })
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.into_iter()
        .map(|(_, place)| place)
        .find(|place| may_be(*place))
}

/// The longest name, in bytes, that is suggested.
const LONGEST_SUGGESTION: usize = 100;

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
