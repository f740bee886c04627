//! Why reading a Parquet file cannot go on.

use crate::page_headers::{LARGE_PAGE, PAGE};
use arrow_schema::ArrowError;
use parquet::errors::ParquetError;
use std::fmt;

/// Why reading a Parquet file cannot go on: evidence that it is truncated or damaged.
#[derive(Debug)]
pub enum Failure {
    /// Its headers are impossible.
    Damaged(String),
    /// The decoder reports it.
    Decoder(ParquetError),
    /// The decoder panicked.
    Panic(String),
    /// This project's own code panicked on the decoder's output, at the place named.
    Own(String, String),
}

impl Failure {
    /// Problem and remedy.
    pub fn problem_and_remedy(&self) -> (String, String) {
        let text = self.to_string();
        if text.contains(LARGE_PAGE) {
            return (
                format!("the Parquet file has a page that is too large ({text})"),
                format!("write it with pages of at most {} MiB", PAGE >> 20),
            );
        }
        (
            format!("the Parquet file is truncated or damaged ({text})"),
            "export or copy the file again".into(),
        )
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Failure::Damaged(what.into())
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts of the decoder may quote the file at any length.
        const SHOWN: usize = 300;
        let text = match self {
            Failure::Damaged(what) => what.clone(),
            Failure::Decoder(error) => without_kinds(&error.to_string()).to_owned(),
            Failure::Own(message, place) => format!("a fault of this program: {message} at {place}"),
            Failure::Panic(message) => format!("its parts contradict each other: {message}"),
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}...", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

/// A text of the decoder without the names of the kinds of error that it went through.
fn without_kinds(mut text: &str) -> &str {
    const KINDS: [&str; 4] = [
        "External: ",
        "Arrow: ",
        "Parquet argument error: ",
        "Parquet error: ",
    ];
    while let Some(rest) = KINDS.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    text
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Failure::Decoder(error)
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Failure::Decoder(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Decoder(error.into())
    }
}
