//! How a panel is laid out on a device: the order of the walk, the cubes, the columns, and what all of it weighs.

use super::fold::Sums;
use super::frame::frame_len;
use super::hierarchy::{CENTREDNESS_LEN, LOG_HEAD, THREADS};
use super::latent::STATE_COLUMNS;
use super::products::{ABSENT, CONSTANT_COLUMNS, CUBE_SUMS, Shape};
use infermark_backend::{BackendError, Remedy};
use infermark_model::{Layout, Orthogonal, Panel, Site};

/// Entries of the log of losses: how many iterations can pass between two readings.
pub(crate) const LOG_ENTRIES: u32 = 1024;

/// Cubes that a multiprocessor holds at a time: registers and shared memory are kept to what two of them may have. The cubes of a
/// launch are no more than all multiprocessors hold, so that none waits for another to end.
const RESIDENT: usize = 2;
/// Number of cubes if the number of multiprocessors is unknown: as many as on a large card.
const CUBES: usize = 264;

/// Shared memory of a cube from which on it is all that a multiprocessor has, but for [`RESERVED`]: CUDA
/// lends from 64 KiB (Turing) to 227 KiB. Graphics APIs state 32 or 48 KiB, although there is more.
const SHARED_BYTES_OF_ALL: usize = 64 << 10;
/// Shared memory that CUDA reserves for every cube but the first.
const RESERVED: usize = 1 << 10;

/// Fewest products worth a cube of their own.
const FEWEST_PRODUCTS: usize = 16;

/// What a device allows.
#[derive(Debug, Clone)]
pub(crate) struct DeviceLimits {
    /// The id by which the device is requested.
    pub(crate) device: String,
    /// Its memory, if it is known.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that one buffer may have.
    pub(crate) largest_buffer: u64,
}

/// What of a device's hardware decides the shape of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hardware {
    /// Threads of a cube, at most.
    pub(super) threads: usize,
    /// Bytes of shared memory of a cube.
    pub(super) shared_bytes: usize,
    /// Cubes of a launch.
    pub(super) cubes: usize,
    /// Multiprocessors, if they are known.
    pub(super) multiprocessors: Option<usize>,
}

/// Threads of a cube of products, at most, whatever the device allows: a thread holds many registers.
const MOST_THREADS: usize = THREADS;

/// Finds the shape of the products' launch: tiles, lanes, groups and chunk that the device's limits allow.
///
/// # Errors
/// What the panel or the request asks beyond any shape.
pub(super) fn shape(mut shape: Shape, periods: usize, hardware: Hardware) -> Result<Shape, String> {
    if hardware.threads < THREADS {
        return Err(format!(
            "a device with {} threads a cube; the kernels need {THREADS}",
            hardware.threads
        ));
    }
    let most = MOST_THREADS;
    let stride = periods.div_ceil(4);
    // Two tiles halve the sums over lanes, as long as registers last and lanes are not few.
    shape.tiles = if shape.particles <= 4 && stride > 16 { 2 } else { 1 };
    shape.tiles = shape.tiles.max(stride.div_ceil(most));
    if shape.tiles > 4 {
        return Err(format!("{periods} periods; the limit is {}", 16 * most));
    }
    shape.lanes = stride.div_ceil(shape.tiles);
    shape.groups = most / shape.lanes;
    // What belongs to a product is one thread's work: all of them have some. So it is with a product's and particle's sum over lanes.
    shape.chunk = shape.threads();
    shape.depth = (shape.threads() / (shape.groups * shape.particles.min(4))).max(1);
    let shared_bytes = if hardware.shared_bytes >= SHARED_BYTES_OF_ALL {
        (hardware.shared_bytes - RESERVED) / RESIDENT
    } else {
        hardware.shared_bytes
    };
    while shape.shared_bytes() > shared_bytes {
        let threads_left = shape.threads() - shape.lanes;
        if shape.depth > 1 {
            shape.depth -= 1;
        } else if threads_left >= shape.particles && shape.chunk <= shape.groups.max(16) {
            shape.groups -= 1;
            shape.chunk = shape.chunk.min(shape.threads());
        } else if shape.chunk > 1 {
            shape.chunk /= 2;
        } else {
            return Err(format!(
                "{} particles of {periods} periods; their sums need {} bytes of shared memory, and the device has {}; ask for fewer \
                 particles, or for the device cpu",
                shape.particles,
                shape.shared_bytes(),
                shared_bytes
            ));
        }
    }
    Ok(shape)
}

/// The cubes of a panel: consecutive products of one category.
#[derive(Debug, Clone)]
pub(super) struct Cubes {
    /// First product, product after the last, category: three words per cube.
    pub(super) words: Vec<u32>,
    /// First cube and cube after the last: two words per category.
    pub(super) of_category: Vec<u32>,
}

impl Cubes {
    /// Cuts `order`, the products by category, into about `wanted` cubes.
    pub(super) fn cut(panel: &Panel, order: &[u32], wanted: Option<usize>, hardware: Hardware) -> Self {
        let wanted = wanted.unwrap_or_else(|| hardware.multiprocessors.map_or(CUBES, |m| RESIDENT * m));
        let wanted = wanted.max(1);
        let least = if wanted >= order.len() { 1 } else { FEWEST_PRODUCTS };
        let mut first = 0;
        let ends: Vec<usize> = (0..panel.layout().categories as u32)
            .map(|category| {
                first += order[first..].partition_point(|p| panel.category_of()[*p as usize] <= category);
                first
            })
            .collect();
        let per_cube = per_cube(&ends, wanted).max(least);
        let mut cubes = Cubes {
            words: Vec::new(),
            of_category: Vec::new(),
        };
        let mut first = 0;
        for (category, end) in (0u32..).zip(ends) {
            cubes.of_category.push(cubes.count() as u32);
            let parts = (end - first).div_ceil(per_cube);
            for part in 0..parts {
                let from = first + (end - first) * part / parts;
                let to = first + (end - first) * (part + 1) / parts;
                cubes.words.extend([from as u32, to as u32, category]);
            }
            cubes.of_category.push(cubes.count() as u32);
            first = end;
        }
        cubes
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.words.len() / 3
    }
}

/// The fewest products a cube with which no more than `wanted` cubes serve all categories, which end at `ends`; where there are more
/// categories than that, with which each has one cube.
fn per_cube(ends: &[usize], wanted: usize) -> usize {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let sizes: Vec<usize> = ends.iter().zip(starts).map(|(end, start)| end - start).collect();
    let cubes = |per_cube: usize| sizes.iter().map(|n| n.div_ceil(per_cube)).sum::<usize>();
    let most = sizes.iter().copied().max().unwrap_or(0).max(1);
    let wanted = wanted.max(cubes(most));
    // Fewer cubes, the more products each has.
    let (mut too_few, mut enough) = (0, most);
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        if cubes(middle) > wanted {
            too_few = middle;
        } else {
            enough = middle;
        }
    }
    enough
}

/// Numbers (of four bytes) in every buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Deviations, and as many counts.
    pub(super) rows: usize,
    pub(super) constants: usize,
    pub(super) state: usize,
    pub(super) particles: usize,
    pub(super) frame: usize,
    pub(super) table: usize,
    pub(super) cube_sums: usize,
    pub(super) period_sums: usize,
    pub(super) folded: usize,
    pub(super) prior_sums: usize,
    pub(super) centredness: usize,
    pub(super) log: usize,
    pub(super) record: usize,
}

impl Sizes {
    /// The sizes for the axes of a device's part of a panel, the sums that are asked for, so many cubes, and where noise is
    /// recorded the latents of its record.
    pub(super) fn new(layout: &Layout, sums: Sums, cubes: usize, recorded: Option<usize>) -> Self {
        let padded = layout.periods.next_multiple_of(4);
        let (k, latents, orthogonal) = (sums.particles, layout.latents(), sums.orthogonal);
        Sizes {
            rows: layout.products * padded,
            constants: (CONSTANT_COLUMNS + usize::from(orthogonal)) * layout.products,
            state: STATE_COLUMNS * latents,
            particles: 2 * k * latents,
            frame: frame_len(layout.categories, k, orthogonal),
            table: layout.categories * k * padded,
            cube_sums: cubes * k * CUBE_SUMS,
            period_sums: cubes * k * padded,
            folded: 2 * sums.len(layout.categories, layout.periods),
            prior_sums: 4 * (layout.categories + 1) * k + layout.categories * k,
            centredness: Site::REPARAMETERIZED.len() * CENTREDNESS_LEN,
            log: LOG_ENTRIES as usize * (LOG_HEAD + 2 * k),
            record: recorded.map_or(1, |latents| k * latents),
        }
    }

    /// Refuses what does not fit the device.
    ///
    /// # Errors
    /// [`BackendError::Memory`] with the numbers, before anything is uploaded.
    pub(super) fn check(&self, limits: &DeviceLimits) -> Result<(), BackendError> {
        let refuse = |what: &str, needed: u64, available: u64| BackendError::Memory {
            what: what.to_owned(),
            device: limits.device.clone(),
            needed_bytes: needed,
            available_bytes: available,
            remedies: vec![Remedy::CPU, Remedy::LargerDevice],
        };
        let largest = self.all().into_iter().max().unwrap_or(0) as u64 * 4;
        // Kernels count in 32 bits.
        let most = limits.largest_buffer.min(u64::from(u32::MAX) * 4);
        if largest > most {
            return Err(refuse("the largest buffer", largest, most));
        }
        let needed = self.bytes();
        // A twentieth is left to the driver and the screen.
        match limits.memory_bytes.map(|memory| memory / 20 * 19) {
            Some(memory) if needed > memory => Err(refuse("the panel with its guide", needed, memory)),
            _ => Ok(()),
        }
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> u64 {
        4 * self.all().into_iter().sum::<usize>() as u64
    }

    /// Deviations, counts, and every other buffer.
    fn all(&self) -> [usize; 14] {
        [
            self.rows,
            self.rows,
            self.constants,
            self.state,
            self.particles,
            self.frame,
            self.table,
            self.cube_sums,
            self.period_sums,
            self.folded,
            self.prior_sums,
            self.centredness,
            self.log,
            self.record,
        ]
    }
}

/// A number as the sum of two `f32`, good to 48 bits.
pub(super) fn split(x: f64) -> [f32; 2] {
    let hi = x as f32;
    [hi, (x - f64::from(hi)) as f32]
}

/// Deviations and counts in the order of the walk, each product padded to a multiple of four periods; absent rows are
/// marked.
pub(super) fn rows_of(panel: &Panel, order: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let periods = panel.layout().periods;
    let padded = periods.next_multiple_of(4);
    let mut rows = vec![ABSENT; order.len() * padded];
    let mut units = vec![0u32; order.len() * padded];
    for (product, (rows, units)) in order
        .iter()
        .zip(rows.chunks_exact_mut(padded).zip(units.chunks_exact_mut(padded)))
    {
        let range = panel.row_range(*product as usize);
        let (deviation, counts) = (&panel.deviation()[range.clone()], &panel.units()[range]);
        if panel.is_dense() {
            rows[..periods].copy_from_slice(deviation);
            units[..periods].copy_from_slice(counts);
        } else {
            let here = panel.product_rows(*product as usize);
            for (row, (d, y)) in here.zip(deviation.iter().zip(counts)) {
                rows[row.period] = *d;
                units[row.period] = *y;
            }
        }
    }
    (rows, units)
}

/// The products' constants in the order of the walk, column by column. In orthogonal coordinates mean log prices are measured from the
/// products' origins, which are one column more.
pub(super) fn constants_of(panel: &Panel, order: &[u32], orthogonal: Option<&Orthogonal>) -> Vec<f32> {
    let origin = |at: usize| orthogonal.map(|o| o.origin[order[at] as usize]);
    let mut constants = columns::<CONSTANT_COLUMNS>(order.len(), |at| {
        let i = order[at] as usize;
        let mean = split(panel.mean_log_price()[i] - origin(at).unwrap_or(0.0));
        let sold = split(panel.sums().product[i] as f64);
        let moved = split(panel.sums().product_deviation[i]);
        let deviation = &panel.deviation()[panel.row_range(i)];
        let low = deviation.iter().copied().fold(f32::INFINITY, f32::min);
        let high = deviation.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        [mean[0], mean[1], sold[0], sold[1], moved[0], moved[1], low, high]
    });
    constants.extend((0..order.len()).map_while(|at| origin(at).map(|m| m as f32)));
    constants
}

/// Sums of counts by category and period: high parts, then low parts, then in orthogonal coordinates the periods' shares.
pub(super) fn period_units_of(panel: &Panel, orthogonal: Option<&Orthogonal>) -> Vec<f32> {
    let sums = &panel.sums().category_period;
    let mut units = columns::<2>(sums.len(), |i| split(sums[i] as f64));
    let shares = orthogonal.iter().flat_map(|o| &o.period_share);
    units.extend(shares.map(|share| *share as f32));
    units
}

fn columns<const F: usize>(n: usize, row: impl Fn(usize) -> [f32; F]) -> Vec<f32> {
    let mut out = vec![0.0; F * n];
    for i in 0..n {
        for (f, value) in row(i).into_iter().enumerate() {
            out[f * n + i] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    const MILLION: Layout = Layout::new(1_000_000, 10, 156);

    fn limits(memory_bytes: Option<u64>, largest_buffer: u64) -> DeviceLimits {
        DeviceLimits {
            device: "cuda".into(),
            memory_bytes,
            largest_buffer,
        }
    }

    fn sums(orthogonal: bool) -> Sums {
        Sums {
            particles: 4,
            learned: false,
            orthogonal,
        }
    }

    fn published_shape() -> Shape {
        Shape {
            particles: 4,
            tiles: 1,
            lanes: 1,
            groups: 1,
            chunk: 1,
            depth: 1,
            gaps: false,
            learned: false,
            orthogonal: false,
            native_exp2: true,
        }
    }

    #[test]
    fn cubes_are_as_small_as_their_number_allows() {
        for (ends, wanted) in [
            (vec![100_000_usize, 200_000, 1_000_000], 264),
            (vec![1, 2, 3, 1_000], 264),
            (vec![0, 7, 7, 20], 3),
            (vec![5, 10, 15, 20], 2),
            (vec![1], 1),
        ] {
            let cubes = |per_cube: usize| {
                let mut first = 0;
                let mut count = 0;
                for end in &ends {
                    count += (end - first).div_ceil(per_cube);
                    first = *end;
                }
                count
            };
            let found = per_cube(&ends, wanted);
            let categories = cubes(usize::MAX);
            assert!(cubes(found) <= wanted.max(categories), "{ends:?} {found}");
            assert!(
                found == 1 || cubes(found - 1) > wanted.max(categories),
                "{ends:?} {found}"
            );
        }
    }

    /// Shared memory of a cube, and of a multiprocessor, in KiB: an H100, an A100, a consumer's card, Turing; Vulkan's, llvmpipe's.
    #[test]
    fn two_cubes_share_the_memory_of_a_multiprocessor() {
        for (kibibytes, whole) in [(227, 228), (163, 164), (99, 100), (64, 64), (48, 96), (32, 64)] {
            let hardware = Hardware {
                threads: 1024,
                shared_bytes: kibibytes << 10,
                cubes: 65_535,
                multiprocessors: None,
            };
            for particles in 1..=16 {
                for periods in [1, 3, 52, 104, 156, 208, 265, 365, 1_005, 1_095, 2_100, 4_096] {
                    for (learned, orthogonal) in [(false, false), (true, false), (false, true)] {
                        let wanted = Shape {
                            particles,
                            learned,
                            orthogonal,
                            ..published_shape()
                        };
                        let shape = shape(wanted, periods, hardware).unwrap();
                        let taken = 2 * shape.shared_bytes() + if kibibytes >= 64 { RESERVED } else { 0 };
                        assert!(taken <= whole << 10, "{shape:?}");
                        assert!(
                            shape.threads() >= particles && shape.chunk <= shape.threads(),
                            "{shape:?}"
                        );
                    }
                }
            }
            let published = shape(published_shape(), 156, hardware).unwrap();
            assert_eq!((published.tiles, published.lanes, published.groups), (2, 20, 12));
            assert!(published.chunk >= 60, "{published:?}");
        }
    }

    #[test]
    fn orthogonal_coordinates_have_columns_of_their_own() {
        let panel = random_panel(&mut StdRng::seed_from_u64(6), 20, 3, 7, 0.3, 9);
        let order = panel.products_by_category();
        let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &infermark_model::Priors::default());
        let (n, cells) = (order.len(), 3 * 7);
        let published = constants_of(&panel, &order, None);
        let constants = constants_of(&panel, &order, Some(&orthogonal));
        let sizes = |orthogonal| Sizes::new(&panel.layout(), sums(orthogonal), 1, None);
        assert_eq!(published.len(), sizes(false).constants);
        assert_eq!(constants.len(), sizes(true).constants);
        for (at, i) in order.iter().enumerate() {
            let column = |f: usize| f64::from(constants[f * n + at]);
            let origin = orthogonal.origin[*i as usize];
            let mean = panel.mean_log_price()[*i as usize];
            assert!((column(0) + column(1) - (mean - origin)).abs() < 1e-13);
            assert_eq!(column(CONSTANT_COLUMNS) as f32, origin as f32);
        }
        assert_eq!(constants[2 * n..8 * n], published[2 * n..]);
        let published = period_units_of(&panel, None);
        let units = period_units_of(&panel, Some(&orthogonal));
        assert_eq!(units[..2 * cells], published);
        for shares in units[2 * cells..].chunks(7) {
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert_eq!(units.len(), 3 * cells);
    }

    #[test]
    fn a_million_products_take_less_than_2_5_gib() {
        for orthogonal in [false, true] {
            let sizes = Sizes::new(&MILLION, sums(orthogonal), CUBES, None);
            assert!(sizes.bytes() < (5 << 30) / 2, "{}", sizes.bytes());
            assert_eq!(sizes.check(&limits(Some(3 << 30), 1 << 30)), Ok(()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers_and_a_way_out() {
        let sizes = Sizes::new(&MILLION, sums(true), CUBES, None);
        let whole = sizes
            .check(&limits(Some(1 << 30), 1 << 30))
            .unwrap_err()
            .to_string();
        let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
        assert!(whole.contains(&gigabytes(sizes.bytes())), "{whole}");
        assert!(
            whole.contains(&gigabytes((1 << 30) / 20 * 19)) && whole.contains("choose the device cpu"),
            "{whole}"
        );
        let column = sizes.check(&limits(None, 128 << 20)).unwrap_err().to_string();
        assert!(
            column.contains("0.62 GB") && column.contains("the largest buffer"),
            "{column}"
        );
    }
}
