//! What to do about a defect.

use super::panel_column::PanelColumn;
use super::shown::quoted;
use std::fmt;

/// What to do about a defect. Its text names the fields of [`Columns`](super::Columns); [`DefectRemedy::in_words`] names anything
/// else that sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefectRemedy {
    /// In words.
    Words(String),
    /// Name the columns of the file that hold these, each with the name that is probably meant, if there is one.
    NameColumns(Vec<(PanelColumn, Option<String>)>),
    /// Name different columns of the file for these two.
    NameApart(PanelColumn, PanelColumn),
}

impl DefectRemedy {
    /// The remedy in words. `setting` words what sets the name of a column, with the name if it is known; `between` separates those
    /// with names.
    pub fn in_words(&self, setting: impl Fn(PanelColumn, Option<&str>) -> String, between: &str) -> String {
        let columns = match self {
            DefectRemedy::Words(words) => return words.clone(),
            DefectRemedy::NameApart(one, other) => {
                return format!(
                    "name a different column for each: {} and {}",
                    setting(*one, None),
                    setting(*other, None)
                );
            }
            DefectRemedy::NameColumns(columns) => columns,
        };
        let settings = |is_known: bool| -> Vec<String> {
            columns
                .iter()
                .filter(|(_, name)| name.is_some() == is_known)
                .map(|(column, name)| setting(*column, name.as_deref()))
                .collect()
        };
        let known = settings(true).join(between);
        let unknown = settings(false).join(", ");
        match (known.is_empty(), unknown.is_empty()) {
            (true, _) if columns.len() == 1 => format!("name the column that holds it with {unknown}"),
            (true, _) => format!("name the columns that hold them with {unknown}"),
            (false, true) => format!("did you mean {known}?"),
            (false, false) => format!("did you mean {known}? name the rest with {unknown}"),
        }
    }
}

impl fmt::Display for DefectRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = |column: PanelColumn, name: Option<&str>| match name {
            Some(name) => format!("Columns::{} = {}", column.name(), quoted(name)),
            None => format!("Columns::{}", column.name()),
        };
        f.write_str(&self.in_words(setting, ", "))
    }
}

impl From<String> for DefectRemedy {
    fn from(words: String) -> Self {
        DefectRemedy::Words(words)
    }
}
