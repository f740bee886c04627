//! What is resident of mapped columns: no more than the window.

#![cfg(target_os = "linux")]

use infermark_memory::resident_file_bytes;
use infermark_model::{RowsToStore, StoredRows};
use infermark_scratch::{ColumnWriter, RowFilesWriter, ScratchFolder, Window};
use std::sync::Arc;

const ROWS: usize = 8 << 20;
const WINDOW: u64 = 8 << 20;

#[test]
fn passes_over_rows_leave_the_window_resident_and_read_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = ScratchFolder::new(folder.path());
    let window = Arc::new(Window::new(WINDOW as usize));
    let before = resident_file_bytes().unwrap();
    let mut writer = RowFilesWriter::new(&scratch, ROWS).unwrap();
    let product = 300;
    let value = |row: usize| row as f32;
    for first in (0..ROWS).step_by(product) {
        let rows = first..(first + product).min(ROWS);
        let deviation: Vec<f32> = rows.clone().map(value).collect();
        let units: Vec<u32> = rows.map(|row| row as u32).collect();
        let rows = RowsToStore {
            first,
            deviation: &deviation,
            deviation_residual: &deviation,
            units: &units,
        };
        writer.write(rows).unwrap();
    }
    let mut files = writer.finish(&window).unwrap();
    let mut most = 0;
    // In order; every seventh product; from two threads; and once more after prices were replaced.
    let mut pass = |files: &dyn StoredRows, step: usize, of_price: f32| {
        for first in (0..ROWS - product).step_by(step * product) {
            let rows = first..first + product;
            files.visit(&rows);
            assert_eq!(files.deviation()[first], of_price * value(first));
            assert_eq!(
                files.deviation_residual()[rows.end - 1],
                of_price * value(rows.end - 1)
            );
            assert_eq!(files.units()[first], first as u32);
            if first % (97 * product) == 0 {
                most = most.max(resident_file_bytes().unwrap() - before);
            }
        }
    };
    pass(&files, 1, 1.0);
    pass(&files, 7, 1.0);
    std::thread::scope(|scope| {
        let files = &files;
        for start in [0, ROWS / 2] {
            scope.spawn(move || {
                for first in (start..start + ROWS / 2 - product).step_by(product) {
                    files.visit(&(first..first + product));
                    assert_eq!(files.units()[first], first as u32);
                }
            });
        }
    });
    for first in (0..ROWS).step_by(1 << 16) {
        let twice: Vec<f32> = (first..first + (1 << 16)).map(|row| 2.0 * value(row)).collect();
        files.replace_prices(first, &twice, &twice).unwrap();
    }
    pass(&files, 1, 2.0);
    // Numbers that are written are there after their pages were let go.
    let mut numbers = files.numbers(ROWS).unwrap();
    for first in (0..ROWS).step_by(product) {
        let rows = first..(first + product).min(ROWS);
        files.visit(&rows);
        for row in rows {
            numbers.as_mut_slice()[row] = row as f64;
        }
    }
    window.let_go();
    assert!(
        numbers
            .as_slice()
            .iter()
            .enumerate()
            .all(|(row, number)| *number == row as f64)
    );
    assert!(most <= WINDOW, "{most} bytes were resident");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_column_is_what_was_appended() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = ScratchFolder::new(folder.path());
    let window = Window::new(1 << 20);
    for count in [0, 1, 5_000] {
        let numbers: Vec<u32> = (0..count).map(|k| k * 7).collect();
        let mut writer = ColumnWriter::new(&scratch).unwrap();
        numbers.chunks(999).for_each(|part| writer.append(part).unwrap());
        assert_eq!(writer.count(), count as usize);
        let column = writer.finish(&window).unwrap();
        assert_eq!(column.as_slice(), numbers);
    }
}
