//! Every instruction set against the library's scalar functions in double precision.

use crate::dispatch::{ForSimd, SimdDispatch};
use crate::simd::{Kernel, NoiseSimd, Scalar, Simd};
use infermark_processor::InstructionSet;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Runs the same checks on both types of every instruction set.
fn on_all(check: impl ForSimd<Output = ()> + Copy) {
    for set in InstructionSet::available() {
        set.run_f32(check);
        set.run_f64(check);
    }
}

/// Runs a kernel compiled for its instructions.
macro_rules! check {
    ($name:ident, |$isa:ident| $body:block) => {
        #[test]
        fn $name() {
            #[derive(Clone, Copy)]
            struct Check;
            impl<I: Simd> Kernel<I> for Check {
                type Output = ();
                #[inline(always)]
                fn run(self, $isa: I) $body
            }
            impl ForSimd for Check {
                type Output = ();
                fn run<I: Simd>(self, isa: I) {
                    isa.vectorize(self);
                }
            }
            on_all(Check);
        }
    };
}

fn lanes<I: Simd>(isa: I, v: I::V) -> Vec<f64> {
    let mut out = [I::Scalar::default(); 16];
    isa.store(v, &mut out);
    out[..I::LANES].iter().map(|x| x.to_f64()).collect()
}

fn vector<I: Simd>(isa: I, f: impl Fn(usize) -> f64) -> I::V {
    let values: Vec<I::Scalar> = (0..16).map(|i| I::Scalar::from_f64(f(i))).collect();
    isa.load(&values)
}

/// Arguments from `low` to `high`.
#[derive(Clone, Copy)]
enum Grid {
    /// At equal distances.
    Linear(f64, f64),
    /// At equal ratios, so that every order of magnitude has its share.
    Geometric(f64, f64),
}

impl Grid {
    /// The argument at a share of the way, both ends included.
    fn at(self, share: f64) -> f64 {
        match self {
            Grid::Linear(low, high) => low + (high - low) * share,
            Grid::Geometric(low, high) => low * (high / low).powf(share),
        }
    }
}

/// Largest relative error of `f` against `exact` over many arguments.
fn worst<I: Simd>(isa: I, grid: Grid, f: impl Fn(I::V) -> I::V, exact: impl Fn(f64) -> f64) -> f64 {
    let steps = 4_000;
    let mut worst = 0f64;
    for step in 0..steps {
        let at = |i: usize| grid.at((I::LANES * step + i) as f64 / (I::LANES * steps - 1) as f64);
        let x = vector(isa, at);
        for (x, y) in lanes(isa, x).into_iter().zip(lanes(isa, f(x))) {
            let exact = exact(x);
            worst = worst.max((y - exact).abs() / exact.abs());
        }
    }
    worst
}

fn tolerance<I: Simd>(single: f64, double: f64) -> f64 {
    if I::ANCHORED { single } else { double }
}

check!(single_precision_is_loaded_without_loss, |isa| {
    let singles: [f32; 16] = std::array::from_fn(|i| (i as f32 + 0.1).powi(3) - 7.3);
    let loaded = lanes(isa, isa.load_single(&singles));
    for (loaded, single) in loaded.iter().zip(singles) {
        assert_eq!(*loaded, f64::from(single), "{isa:?}");
    }
});

check!(exp2_is_as_good_as_said, |isa| {
    let limit = tolerance::<I>(126.0, 1022.0);
    let error = worst(isa, Grid::Linear(-limit, limit), |v| isa.exp2(v), f64::exp2);
    // The polynomial's 7.5e-8 and the roundings of its steps, twice as many where nothing fuses them.
    assert!(error < tolerance::<I>(3e-7, 5e-16), "{isa:?} {error}");
    assert_eq!(lanes(isa, isa.exp2(isa.zero()))[0].round(), 1.0);
});

check!(ln_is_as_good_as_said, |isa| {
    for (low, high) in [(1.2e-38, 0.9), (0.5, 0.9), (1.2, 9.0), (1.2, 3e38)] {
        let error = worst(isa, Grid::Geometric(low, high), |v| isa.ln(v), f64::ln);
        assert!(
            error < tolerance::<I>(3e-7, 1e-15),
            "{isa:?} [{low}, {high}] {error}"
        );
    }
    // Near 1 the logarithm vanishes: its absolute error counts.
    for step in 0..4000 {
        let x = vector(isa, |i| 0.9 + 0.3 * (step as f64 + i as f64 / 16.0) / 4000.0);
        for (x, y) in lanes(isa, x).into_iter().zip(lanes(isa, isa.ln(x))) {
            assert!((y - x.ln()).abs() < tolerance::<I>(1e-7, 1e-15), "{isa:?} {x}");
        }
    }
});

check!(ln_1p_keeps_small_arguments, |isa| {
    for (low, high) in [(1e-35, 1.0), (1e-3, 1.0)] {
        let error = worst(isa, Grid::Geometric(low, high), |v| isa.ln_1p_unit(v), f64::ln_1p);
        assert!(error < tolerance::<I>(3e-7, 1e-15), "{isa:?} {error}");
    }
});

check!(sums_add_their_own_lanes, |isa| {
    // Whole numbers add without rounding, so each sum must be exact and in its lane.
    let vectors: [I::V; 16] = std::array::from_fn(|k| vector(isa, |i| (100 * k + i * i) as f64));
    let together = lanes(isa, isa.sums(&vectors[..I::LANES]));
    for k in 0..I::LANES {
        let expected: f64 = lanes(isa, vectors[k]).iter().sum();
        assert_eq!(together[k], expected, "{isa:?} {k}");
        assert_eq!(isa.sum(vectors[k]).to_f64(), expected, "{isa:?} {k}");
    }
});

check!(expanding_loads_put_entries_in_their_lanes, |isa| {
    let mut rng = StdRng::seed_from_u64(3);
    let all = ((1u64 << I::LANES) - 1) as u32;
    let units: Vec<u32> = (0..16).map(|_| rng.random_range(0..1 << 24)).collect();
    let patterns = (0..300)
        .map(|_| rng.random::<u32>() & all)
        .chain([0, 1, all, 1 << (I::LANES - 1)]);
    for pattern in patterns.collect::<Vec<_>>() {
        let count = pattern.count_ones() as usize;
        // Slices of exactly the entries: nothing beyond may be touched.
        let y = lanes(isa, isa.expand_units(&units[..count], pattern));
        let mut next = 0;
        for lane in 0..I::LANES {
            let mut expected = 0.0;
            if pattern >> lane & 1 == 1 {
                expected = f64::from(units[next]);
                next += 1;
            }
            assert_eq!(y[lane], expected, "{isa:?} {pattern:b} {lane}");
        }
    }
});

check!(lane_sets_select_and_compare, |isa| {
    let (a, b) = (
        vector(isa, |i| i as f64),
        vector(isa, |i| if i % 3 == 0 { i as f64 } else { -1.0 }),
    );
    let all = ((1u64 << I::LANES) - 1) as u32;
    let equal = isa.equal(a, b);
    assert_eq!(equal, 0b1001_0010_0100_1001 & all);
    let not_a_number = isa.splat(I::Scalar::from_f64(f64::NAN));
    assert_eq!(isa.equal(not_a_number, not_a_number), 0);
    let (kept, selected) = (
        lanes(isa, isa.keep(a, equal)),
        lanes(isa, isa.select(equal, a, b)),
    );
    for i in 0..I::LANES {
        let set = equal >> i & 1 == 1;
        assert_eq!(kept[i], if set { i as f64 } else { 0.0 });
        assert_eq!(selected[i], if set { i as f64 } else { -1.0 });
    }
});

check!(widening_and_narrowing_keep_order, |isa| {
    let v = vector(isa, |i| 1.5 * i as f64 - 3.0);
    let wide = isa.widen(v);
    assert_eq!(lanes(isa, isa.narrow(wide)), lanes(isa, v));
    let parts = I::LANES / <I::Wide as Simd>::LANES;
    let joined: Vec<f64> = (0..parts).flat_map(|p| lanes(isa.wide(), wide[p])).collect();
    assert_eq!(joined, lanes(isa, v));
});

check!(whole_powers_of_two_are_exact, |isa| {
    for offset in [-126.0, -40.3, 0.0, 3.999, 110.0] {
        let t = vector(isa, |i| offset + 0.93 * i as f64);
        for (t, p) in lanes(isa, t)
            .into_iter()
            .zip(lanes(isa, isa.floor_power_of_two(t)))
        {
            assert_eq!(p, t.floor().exp2(), "{isa:?} {t}");
        }
    }
});

check!(quotients_and_roots, |isa| {
    let bound = tolerance::<I>(2e-7, 3e-16);
    for grid in [(1e-30, 1e30), (1.0, 2.0)].map(|(low, high)| Grid::Geometric(low, high)) {
        for numerator in [1.0, -0.7, 3.0e4] {
            let a = isa.splat(I::Scalar::from_f64(numerator));
            let numerator = I::Scalar::from_f64(numerator).to_f64();
            let error = worst(isa, grid, |v| isa.div(a, v), |v| numerator / v);
            assert!(error < bound, "{isa:?} {error}");
        }
        let error = worst(isa, grid, |v| isa.sqrt(v), f64::sqrt);
        assert!(error < bound, "{isa:?} {error}");
    }
    assert!(
        lanes(isa, isa.sqrt(isa.zero()))
            .iter()
            .all(|root| root.abs() < 2e-18)
    );
});

check!(turns_lie_on_the_circle, |isa| {
    let isa = isa.noise();
    for step in 0..2000 {
        let r = vector(isa, |i| (step as f64 + i as f64 / 16.0) / 2000.0);
        let (cos, sin) = isa.cos_sin_turn(r);
        for ((r, c), s) in lanes(isa, r)
            .into_iter()
            .zip(lanes(isa, cos))
            .zip(lanes(isa, sin))
        {
            let angle = std::f64::consts::TAU * r;
            assert!(
                (c - angle.cos()).abs() < 3e-7 && (s - angle.sin()).abs() < 3e-7,
                "{isa:?} {r} {c} {s}"
            );
        }
    }
});
