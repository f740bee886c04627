//! What the tests of several crates share: the small reference panel with its vectors (origin: `data/ORIGIN.md`),
//! random panels, dense algebra to hold others against, backends with a known error, and norms.

pub mod altered;
pub mod conformance;
pub mod dense;
pub mod guides;
pub mod iterations;
pub mod mean_field;
pub mod ranks;
pub mod trajectories;

use infermark_backend::{Device, DeviceId};
use infermark_model::Labels;
use infermark_model::noise::Stream;
use infermark_model::{Panel, PanelPart};
use rand::{RngExt, rngs::StdRng};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of the reference set: `panel.csv`, `vectors.json` or `posterior.csv`. Tests that were carried to another
/// machine find it in the folder that `INFERMARK_TEST_DATA` names.
pub fn data(name: &str) -> PathBuf {
    match std::env::var_os("INFERMARK_TEST_DATA") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name),
    }
}

/// A standard normal draw, by Box and Muller.
pub fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// The GPU that a test runs on, of those that a backend has: the one that `INFERMARK_TEST_DEVICE` names, or else the
/// first, which may be a software rasterizer. `None`, with a word on stderr, where there is none.
///
/// # Panics
/// On a machine that checks changes (`CI` is set) when there is none, lest the checks pass by not running; and when the
/// device that is named is not here.
pub fn gpu(devices: &[Device]) -> Option<DeviceId> {
    if let Ok(wanted) = std::env::var("INFERMARK_TEST_DEVICE") {
        let wanted: DeviceId = wanted.parse().unwrap();
        assert!(devices.iter().any(|d| d.id == wanted), "{wanted} is not here");
        return Some(wanted);
    }
    let first = devices.first().map(|d| d.id);
    if first.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no GPU and no software Vulkan: install mesa-vulkan-drivers and libvulkan1"
        );
        eprintln!("skipped: no GPU, and no software Vulkan (Debian: mesa-vulkan-drivers, libvulkan1)");
    }
    first
}

/// The GPUs that a test with several runs on: the one of [`gpu`], and all that are like it. `None`, with a word on stderr, where
/// there is but one.
///
/// # Panics
/// When there are fewer than `INFERMARK_TEST_CARDS` asks for; and as [`gpu`].
pub fn gpus(devices: &[Device]) -> Option<Vec<DeviceId>> {
    let first = gpu(devices)?;
    let name = |id: DeviceId| devices.iter().find(|d| d.id == id).map(|d| &d.name);
    let alike: Vec<DeviceId> = devices
        .iter()
        .map(|d| d.id)
        .filter(|id| id.kind == first.kind && name(*id) == name(first))
        .collect();
    if let Ok(wanted) = std::env::var("INFERMARK_TEST_CARDS") {
        let wanted: usize = wanted.parse().unwrap();
        assert!(
            alike.len() >= wanted,
            "{} of {wanted} cards are here",
            alike.len()
        );
    }
    if alike.len() < 2 {
        eprintln!("skipped: one GPU");
        return None;
    }
    Some(alike)
}

/// The panel of `panel.csv`.
pub fn small_panel() -> Arc<Panel> {
    read_panel(&data("panel.csv"))
}

/// A small panel with gaps, `products` products in 3 categories over 20 periods.
pub fn panel_with_gaps(products: usize) -> Arc<Panel> {
    let mut part = PanelPart::new(3, 20);
    for product in 0..products {
        let stream = Stream {
            seed: 9,
            iteration: product as u32,
        };
        let u = |k: u64| f64::from(stream.uniforms(k, 0)[0]);
        let periods: Vec<u32> = (0..20).filter(|t| u(u64::from(*t)) < 0.8 || *t == 7).collect();
        let prices: Vec<f64> = periods
            .iter()
            .map(|t| 2.0 + 3.0 * u(100 + u64::from(*t)))
            .collect();
        let units: Vec<u32> = periods
            .iter()
            .map(|t| (60.0 * u(200 + u64::from(*t))) as u32)
            .collect();
        part.push_product(product % 3, Some(&periods), &prices, &units)
            .unwrap();
    }
    let panel = Panel::from_parts(
        Labels::numbered("p", products),
        Labels::numbered("c", 3),
        Labels::numbered("t", 20),
        vec![part],
    );
    Arc::new(panel.unwrap())
}

/// The rows of a file, sorted: product, category, period from 1, price and units, plain and without quotes.
pub fn read_panel(path: &Path) -> Arc<Panel> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows: Vec<(&str, &str, u32, f64, u32)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |i: usize| cells[i].parse::<f64>().unwrap();
            (cells[0], cells[1], number(2) as u32, number(3), number(4) as u32)
        })
        .collect();
    rows.sort_by(|a, b| (a.0, a.2).cmp(&(b.0, b.2)));
    let mut categories: Vec<&str> = rows.iter().map(|r| r.1).collect();
    categories.sort_unstable();
    categories.dedup();
    let weeks = rows.iter().map(|r| r.2).max().unwrap() as usize;
    let mut part = PanelPart::new(categories.len(), weeks);
    let mut products = Vec::new();
    for rows in rows.chunk_by(|a, b| a.0 == b.0) {
        products.push(rows[0].0.into());
        let category = categories.iter().position(|c| *c == rows[0].1).unwrap();
        let periods: Vec<u32> = rows.iter().map(|r| r.2 - 1).collect();
        let prices: Vec<f64> = rows.iter().map(|r| r.3).collect();
        let units: Vec<u32> = rows.iter().map(|r| r.4).collect();
        part.push_product(category, Some(&periods), &prices, &units)
            .unwrap();
    }
    let categories = Labels::Text(categories.into_iter().map(Into::into).collect());
    let periods = Labels::Integer((1..=weeks as i64).collect());
    Arc::new(Panel::from_parts(Labels::Text(products), categories, periods, vec![part]).unwrap())
}

/// `posterior.csv`: mean, sd and MCSE of the mean by site and key.
pub fn posterior() -> HashMap<(String, String), [f64; 3]> {
    let text = std::fs::read_to_string(data("posterior.csv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |i: usize| fields[i].parse::<f64>().unwrap();
            (
                (fields[0].to_owned(), fields[1].to_owned()),
                [number(2), number(3), number(6)],
            )
        })
        .collect()
}

/// `vectors_orthogonal.json`.
pub fn orthogonal_vectors() -> Value {
    serde_json::from_str(&std::fs::read_to_string(data("vectors_orthogonal.json")).unwrap()).unwrap()
}

/// `vectors.json`.
pub fn vectors() -> Value {
    serde_json::from_str(&std::fs::read_to_string(data("vectors.json")).unwrap()).unwrap()
}

/// A number, or an array of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().map(|v| v.as_f64().unwrap()).collect(),
        one => vec![one.as_f64().unwrap()],
    }
}

/// Euclidean norm.
pub fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A random panel: a period missing with probability `gaps`, counts up to `largest`, every category with a product
/// when `n >= c`.
pub fn random_panel(rng: &mut StdRng, n: usize, c: usize, t: usize, gaps: f64, largest: u32) -> Arc<Panel> {
    let mut part = PanelPart::new(c, t);
    for i in 0..n {
        let mut periods: Vec<u32> = (0..t as u32).filter(|_| !rng.random_bool(gaps)).collect();
        if periods.is_empty() {
            periods.push(rng.random_range(0..t as u32));
        }
        let prices: Vec<f64> = periods.iter().map(|_| rng.random_range(0.5..50.0)).collect();
        let units: Vec<u32> = periods.iter().map(|_| rng.random_range(0..=largest)).collect();
        let category = if i < c { i } else { rng.random_range(0..c) };
        part.push_product(category, Some(&periods), &prices, &units)
            .unwrap();
    }
    let (p, c, t) = (
        Labels::numbered("p", n),
        Labels::numbered("c", c),
        Labels::numbered("t", t),
    );
    Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap())
}
