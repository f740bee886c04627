//! A panel as a folder of arrays, little-endian and without headers, for a worker to read.
//!
//! | file | entries | of |
//! |---|---|---|
//! | `category` | 4-byte unsigned | the category of each product |
//! | `product`, `period`, `units` | 4-byte unsigned | each row, by product, then by period |
//! | `log_price` | 8-byte floating point | each row |

use infermark_model::Panel;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the files of `panel` into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(panel: &Panel, folder: &Path) -> io::Result<()> {
    let open = |name: &str| Ok::<_, io::Error>(BufWriter::new(File::create(folder.join(name))?));
    let mut category = open("category")?;
    for index in panel.category_of() {
        category.write_all(&index.to_le_bytes())?;
    }
    category.flush()?;
    let (mut product, mut period, mut units) = (open("product")?, open("period")?, open("units")?);
    let mut log_price = open("log_price")?;
    for index in 0..panel.layout().products {
        for row in panel.product_rows(index) {
            product.write_all(&(index as u32).to_le_bytes())?;
            period.write_all(&(row.period as u32).to_le_bytes())?;
            units.write_all(&row.units.to_le_bytes())?;
            log_price.write_all(&row.log_price.to_le_bytes())?;
        }
    }
    for mut file in [product, period, units, log_price] {
        file.flush()?;
    }
    Ok(())
}
