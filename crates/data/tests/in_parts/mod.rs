//! Files read whole and by several ranks, each its part.

use infermark_data::{Columns, ReadError, read_own_rows};
use infermark_model::Panel;
use infermark_test_support::ranks::{assert_part_of, on_ranks};
use std::path::Path;
use std::sync::Arc;

/// Reads a file as [`infermark_data::read_panel`] does, and in the parts of 2 and 3 ranks, which must be those of the whole; defects must
/// be told alike.
pub(crate) fn read_panel(path: &Path, columns: &Columns) -> Result<Panel, ReadError> {
    let whole = infermark_data::read_panel(path, columns).map(Arc::new);
    if !path.is_file() {
        return whole.map(Arc::unwrap_or_clone);
    }
    for size in [2, 3] {
        let parts = on_ranks(size, |ranks| read_own_rows(path, columns, None, &ranks));
        for (rank, part) in parts.iter().enumerate() {
            match (&whole, part) {
                (Ok(whole), Ok(part)) => assert_part_of(whole, part, rank, size),
                (Err(whole), Err(part)) => {
                    assert_eq!(part.to_string(), whole.to_string(), "rank {rank} of {size}");
                    assert_eq!(part.defects(), whole.defects());
                }
                (whole, part) => panic!("rank {rank} of {size}: {part:?}, and whole {whole:?}"),
            }
        }
    }
    whole.map(Arc::unwrap_or_clone)
}
