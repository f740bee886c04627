//! Every rank of several reads the rows of its own products of one file: together they are those of the whole panel.

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use infermark_data::{Columns, ReadError, RowStorage, read_own_rows, read_panel};
use infermark_model::{Panel, PanelRanks};
use infermark_scratch::{ScratchFolder, Window};
use infermark_test_support::ranks::{assert_part_of, on_ranks};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row of a file.
#[derive(Debug, Clone)]
struct Sale {
    product: String,
    category: String,
    week: i32,
    price: f64,
    units: i64,
}

/// The order of the rows in a file.
#[derive(Debug, Clone, Copy)]
enum Order {
    Products,
    Categories,
    Weeks,
    Shuffled,
}

/// Rows of some products with gaps; labels sort otherwise than products are numbered.
fn sales(
    rng: &mut impl Rng,
    products: usize,
    categories: usize,
    weeks: i32,
    gaps: f64,
    order: Order,
) -> Vec<Sale> {
    let mut sales = Vec::new();
    for product in 0..products {
        // Every category has a product.
        let category = if product < categories {
            product
        } else {
            rng.random_range(0..categories)
        };
        let kept = rng.random_range(0..weeks);
        for week in (0..weeks)
            .filter(|week| *week == kept || !rng.random_bool(gaps))
            .collect::<Vec<_>>()
        {
            sales.push(Sale {
                product: format!("p{}", product * 7919 % 1000),
                category: format!("c{category}"),
                week: week - 3,
                price: rng.random_range(0.1..90.0),
                units: rng.random_range(0..40),
            });
        }
    }
    match order {
        Order::Products => {}
        Order::Categories => sales.sort_by(|a, b| {
            let key = |of: &Sale| (of.category.clone(), of.product.clone(), of.week);
            key(a).cmp(&key(b))
        }),
        Order::Weeks => sales.sort_by_key(|of| of.week),
        Order::Shuffled => sales.shuffle(rng),
    }
    sales
}

fn write_csv(path: &Path, sales: &[Sale]) {
    let mut text = "product,category,week,price,units\n".to_owned();
    for Sale {
        product,
        category,
        week,
        price,
        units,
    } in sales
    {
        writeln!(text, "{product},{category},{week},{price},{units}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

fn write_parquet(path: &Path, sales: &[Sale], rows_of_group: usize) {
    fn column<T>(sales: &[Sale], of: impl Fn(&Sale) -> T) -> Vec<T> {
        sales.iter().map(of).collect()
    }
    let columns: [(&str, ArrayRef); 5] = [
        (
            "product",
            Arc::new(StringArray::from(column(sales, |of| of.product.clone()))),
        ),
        (
            "category",
            Arc::new(StringArray::from(column(sales, |of| of.category.clone()))),
        ),
        ("week", Arc::new(Int32Array::from(column(sales, |of| of.week)))),
        (
            "price",
            Arc::new(Float64Array::from(column(sales, |of| of.price))),
        ),
        ("units", Arc::new(Int64Array::from(column(sales, |of| of.units)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_of_group))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The parts that `size` ranks read.
fn parts(path: &Path, storage: Option<&RowStorage>, size: usize) -> Vec<Panel> {
    on_ranks(size, |ranks| {
        read_own_rows(path, &Columns::default(), storage, &ranks).unwrap()
    })
}

#[test]
fn parts_are_together_the_panel() {
    let folder = tempfile::tempdir().unwrap();
    let storage = RowStorage {
        folder: ScratchFolder::new(folder.path()),
        window: Arc::new(Window::new(1 << 20)),
    };
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let order = [Order::Products, Order::Categories, Order::Weeks, Order::Shuffled][seed as usize % 4];
        let gaps = [0.0, 0.3, 0.8][seed as usize % 3];
        let categories = rng.random_range(1..6);
        let products = categories + rng.random_range(0..40);
        let weeks = rng.random_range(1..90);
        let sales = sales(&mut rng, products, categories, weeks, gaps, order);
        let [csv, parquet] = ["panel.csv", "panel.parquet"].map(|name| folder.path().join(name));
        write_csv(&csv, &sales);
        write_parquet(&parquet, &sales, rng.random_range(3..200));
        let whole = Arc::new(read_panel(&csv, &Columns::default()).unwrap());
        for size in 1..=5 {
            for path in [&csv, &parquet] {
                for storage in [None, Some(&storage)] {
                    for (rank, part) in parts(path, storage, size).iter().enumerate() {
                        assert_part_of(&whole, part, rank, size);
                        assert!(size == 1 || products < size || part.held_rows() < whole.rows());
                    }
                }
            }
        }
    }
}

#[test]
fn repeated_rows_of_all_ranks_are_told_as_by_one() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
        let mut all = sales(&mut rng, 30, 3, 20, 0.3, Order::Shuffled);
        for _ in 0..rng.random_range(1..40) {
            let mut again = all[rng.random_range(0..all.len())].clone();
            again.units += 1;
            all.insert(rng.random_range(0..all.len()), again);
        }
        if seed % 2 == 1 {
            for _ in 0..5 {
                let at = rng.random_range(0..all.len());
                all[at].price = -1.0;
            }
        }
        let [csv, parquet] = ["panel.csv", "panel.parquet"].map(|name| folder.path().join(name));
        write_csv(&csv, &all);
        write_parquet(&parquet, &all, 50);
        for path in [&csv, &parquet] {
            let whole = read_panel(path, &Columns::default()).unwrap_err();
            for size in 2..=5 {
                let found = on_ranks(size, |ranks| {
                    read_own_rows(path, &Columns::default(), None, &ranks).unwrap_err()
                });
                for error in found {
                    assert_eq!(error.to_string(), whole.to_string());
                    assert_eq!(error.defects(), whole.defects());
                }
            }
        }
    }
}

/// Ranks of which the first writes to a file between the passes.
#[derive(Debug)]
struct Writing {
    ranks: Arc<dyn PanelRanks>,
    path: PathBuf,
    text: String,
    /// Whether the file's time stays.
    hides_it: bool,
}

impl PanelRanks for Writing {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn sum(&self, numbers: &mut [f64]) {
        self.ranks.sum(numbers);
    }

    fn broadcast(&self, numbers: &mut [f64], from: usize) {
        self.ranks.broadcast(numbers, from);
    }

    fn check_same(&self, what: &'static str, digest: u64) {
        self.ranks.check_same(what, digest);
        if self.rank() == 0 {
            let modified = std::fs::metadata(&self.path).unwrap().modified().unwrap();
            std::fs::write(&self.path, &self.text).unwrap();
            if self.hides_it {
                let file = File::options().write(true).open(&self.path).unwrap();
                file.set_modified(modified).unwrap();
            }
        }
        self.ranks.sum(&mut [0.0]);
    }
}

#[test]
fn a_file_that_changes_between_the_passes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    let text = "product,category,week,price,units\na,x,1,2,3\nb,x,1,2,3\nc,y,1,2,3\n";
    for (after, hides_it) in [
        (format!("{text}d,y,1,2,3\n"), true),
        (format!("{text}a,x,2,2,3\n"), true),
        (text.replace("a,x,1,2,3", "a,x,1,9,3"), false),
        (text.replace("b,x,1,2,3\n", ""), true),
        (text.replace("b,x", "b,y"), true),
        (text.replace("c,y,1", "c,y,7"), true),
        (text.replace("c,y,1,2", "c,y,1,-"), true),
    ] {
        std::fs::write(&path, text).unwrap();
        // The clock of files may be coarse.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let found = on_ranks(2, |ranks| {
            let writing = Writing {
                ranks,
                path: path.clone(),
                text: after.clone(),
                hides_it,
            };
            read_own_rows(
                &path,
                &Columns::default(),
                None,
                &(Arc::new(writing) as Arc<dyn PanelRanks>),
            )
        });
        // The rank whose own rows are as they were may not notice.
        let noticed = |of: &&Result<Panel, ReadError>| matches!(of, Err(ReadError::Changed { .. }));
        assert!(found.iter().any(|of| noticed(&of)), "{after}: {found:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("pipe.csv");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let found = on_ranks(2, |ranks| read_own_rows(&path, &Columns::default(), None, &ranks));
    for refused in found {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ReadError::PipeInParts { .. }));
        assert!(
            refused
                .to_string()
                .ends_with("save it as a file first and name that"),
            "{refused}"
        );
    }
}
