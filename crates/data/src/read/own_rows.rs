//! A file that several ranks read, each the rows of its own products, in two passes.
//!
//! In the first pass every rank reads all keys and counts rows, and finds what defects single rows have. Products are cut by these counts,
//! and in the second pass a rank keeps the rows of its own and finds which of them repeat a period. Defects are put together over the
//! ranks: they are those that one process finds.

use super::columns::Columns;
use super::defect::{Defects, Place, ReadError, SHOWN_DEFECTS};
use super::keys::digest_of;
use super::panel_builder::{Own, PanelBuilder, Ranked, RowStorage, repeated_problem};
use super::{conclude_pass, pass_over, read_panel, read_stored_panel};
use infermark_model::{AllProducts, Panel, PanelRanks};
use infermark_threads::on_pool;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Reads a panel as [`read_panel`] or [`read_stored_panel`] does, on every rank, with the rows of the rank's own products: those of
/// [`Shard::cut`](infermark_model::Shard::cut). Every rank reads the file, or a copy of it, in two passes; of a Parquet file the second
/// pass leaves out the row groups that have none of the rank's products, which are most if the file is sorted by category and product. Of
/// a panel with fewer products than ranks, every rank has all.
///
/// Every rank calls it from the thread that drives its run. While the file is read, an own row takes 16 bytes, or up to 40 if the rows are
/// not grouped by product.
///
/// # Errors
/// As those; [`ReadError::PipeInParts`] for a pipe, and [`ReadError::Changed`] when the file is written to meanwhile.
pub fn read_own_rows(
    path: &Path,
    columns: &Columns,
    storage: Option<&RowStorage>,
    ranks: &Arc<dyn PanelRanks>,
) -> Result<Panel, ReadError> {
    let read_all = || {
        on_pool(0, || match storage {
            None => read_panel(path, columns),
            Some(storage) => read_stored_panel(path, columns, storage),
        })
    };
    if ranks.size() == 1 {
        return read_all();
    }
    let stamp = Stamp::of(path)?;
    let mut panel_builder = match storage {
        None => PanelBuilder::default(),
        Some(storage) => PanelBuilder::stored(storage)?,
    }
    .counting();
    let mut defects = Defects::default();
    let table = on_pool(0, || pass_over(path, columns, &mut panel_builder, &mut defects))?;
    let may_be_panel = panel_builder.check_keys(columns, &mut defects);
    let found = (panel_builder.digest(), defects.total(), may_be_panel);
    ranks.check_same("panel", digest_of(&found));
    if !may_be_panel {
        return conclude_pass(None, defects, path, columns, table);
    }
    let Some(own) = panel_builder.cut(ranks.rank(), ranks.size()) else {
        return read_all();
    };
    panel_builder.keep(&own);
    let keys = panel_builder.keys();
    let mut again = Defects::default();
    let table = on_pool(0, || pass_over(path, columns, &mut panel_builder, &mut again))?;
    let is_same = !defects.is_empty() || (again.is_empty() && panel_builder.found_the_same(keys));
    if !is_same || Stamp::of(path)? != stamp {
        return Err(ReadError::Changed {
            path: path.to_owned(),
        });
    }
    let mut repeated = Defects::default();
    let (ranked, products) = on_pool(0, || panel_builder.assemble_own(&own, columns, &mut repeated))?;
    add_repeated(&mut defects, &repeated, &own, &ranked, columns, &**ranks);
    let products = match products {
        Some(products) if defects.is_empty() => products,
        _ => return conclude_pass(None, defects, path, columns, table),
    };
    let [labels, ..] = ranked.labels;
    let all = AllProducts {
        products: labels,
        category_of: ranked.category_of,
        rows_of: own.rows_of,
        ranks: ranks.clone(),
    };
    let panel = products.among(all, &own.products);
    Ok(panel.expect("both passes have found the same"))
}

/// Numbers of a finding: the two rows, and the places of product and period.
const OF_FINDING: usize = 4;

/// Adds the repeated rows that all ranks have found; `repeated` are the own ones.
fn add_repeated(
    defects: &mut Defects,
    repeated: &Defects,
    own: &Own,
    ranked: &Ranked,
    columns: &Columns,
    ranks: &dyn PanelRanks,
) {
    const OF_RANK: usize = 2 + OF_FINDING * SHOWN_DEFECTS;
    let mut numbers = vec![[0.0; OF_RANK]; ranks.size()];
    let [total, kept, rows @ ..] = &mut numbers[ranks.rank()];
    *total = repeated.total() as f64;
    for (of, (place, other, [product, period])) in
        rows.chunks_exact_mut(OF_FINDING).zip(repeated.repeated_rows())
    {
        let row = |place: Place| place.data_row().map_or(0.0, |row| row as f64);
        let product = f64::from(own.products[product]);
        of.copy_from_slice(&[row(place), row(other), product, period as f64]);
        *kept += 1.0;
    }
    ranks.sum(numbers.as_flattened_mut());
    let [products, _, periods] = &ranked.labels;
    for [total, kept, rows @ ..] in &numbers {
        for of in rows.chunks_exact(OF_FINDING).take(*kept as usize) {
            let [place, other] = [of[0], of[1]].map(|row| Place::Row(row as u64 - 1));
            let [product, period] = [of[2], of[3]].map(|place| place as usize);
            let name = || periods.get(period).to_string();
            defects.push_repeated(place, other, [product, period], &columns.period, &name, || {
                repeated_problem(products, product)
            });
        }
        defects.count_unkept((total - kept) as u64);
    }
}

/// What a file that is written to changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and number on it, where the system has them.
    file: Option<[u64; 2]>,
}

impl Stamp {
    /// That of a file.
    ///
    /// # Errors
    /// When it is a pipe, or cannot be asked.
    fn of(path: &Path) -> Result<Self, ReadError> {
        let metadata = std::fs::metadata(path).map_err(|cause| ReadError::Io {
            path: path.to_owned(),
            cause,
        })?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(ReadError::PipeInParts {
                path: path.to_owned(),
            });
        }
        #[cfg(unix)]
        let file = {
            use std::os::unix::fs::MetadataExt;
            Some([metadata.dev(), metadata.ino()])
        };
        #[cfg(not(unix))]
        let file = None;
        Ok(Stamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            file,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use std::fs::File;

    const PRODUCTS: usize = 40;
    const WEEKS: usize = 25;
    const ROWS_OF_GROUP: usize = 60;

    /// A file sorted by category and product.
    fn sorted(path: &Path) {
        let rows = 0..PRODUCTS * WEEKS;
        let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.clone().map(of)))
        };
        let columns: [(&str, ArrayRef); 5] = [
            ("product", text(&|row| format!("p{:02}", row / WEEKS))),
            ("category", text(&|row| format!("c{}", row / WEEKS / 15))),
            (
                "week",
                Arc::new(Int64Array::from_iter_values(
                    rows.clone().map(|row| (row % WEEKS) as i64),
                )),
            ),
            (
                "price",
                Arc::new(Float64Array::from_iter_values(
                    rows.clone().map(|row| 1.0 + row as f64),
                )),
            ),
            (
                "units",
                Arc::new(Int64Array::from_iter_values(
                    rows.clone().map(|row| row as i64 % 7),
                )),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(ROWS_OF_GROUP))
            .build();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn of_a_sorted_file_a_rank_reads_its_row_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("panel.parquet");
        sorted(&path);
        let (groups, columns) = ((PRODUCTS * WEEKS).div_ceil(ROWS_OF_GROUP), Columns::default());
        for size in [2, 3, 5] {
            let mut read = 0;
            for rank in 0..size {
                let mut panel_builder = PanelBuilder::default().counting();
                let mut defects = Defects::default();
                pass_over(&path, &columns, &mut panel_builder, &mut defects).unwrap();
                assert!(panel_builder.check_keys(&columns, &mut defects));
                assert_eq!(
                    panel_builder.groups_to_read(groups),
                    std::slice::from_ref(&(0..groups))
                );
                let own = panel_builder.cut(rank, size).unwrap();
                panel_builder.keep(&own);
                let [run] = panel_builder.groups_to_read(groups).try_into().unwrap();
                read += run.len();
                let keys = panel_builder.keys();
                pass_over(&path, &columns, &mut panel_builder, &mut defects).unwrap();
                assert!(defects.is_empty() && panel_builder.found_the_same(keys));
            }
            // Those with a cut in them are read twice.
            assert!((groups..groups + size).contains(&read), "{read} of {groups}");
        }
    }
}
