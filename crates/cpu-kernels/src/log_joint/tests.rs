use super::*;
use infermark_model::log_joint::LogJoint;
use infermark_test_support::random_panel;
use rand::{RngExt, SeedableRng, rngs::StdRng};

#[test]
fn equals_the_reference_on_awkward_panels() {
    let mut rng = StdRng::seed_from_u64(42);
    for (n, c, t, gaps, largest) in [
        (1, 1, 1, 0.0, 9),
        (1, 1, 17, 0.0, 0),
        (7, 3, 5, 0.4, 100),
        (40, 4, 13, 0.2, 5),
        (130, 2, 156, 0.0, 1_000),
        (90, 5, 70, 0.9, 50),
        (20, 2, 300, 0.1, 2_000_000_000),
    ] {
        let panel = random_panel(&mut rng, n, c, t, gaps, largest);
        for centredness in [[1.0; 5], [0.0; 5], [0.5, 0.2, 0.9, 0.4, 0.6]].map(Centredness::new) {
            for scale in [0.3, 2.0, 12.0] {
                let z: Vec<f64> = (0..panel.layout().latents())
                    .map(|_| scale * rng.random_range(-1.0..1.0))
                    .collect();
                let (expected, gradient) = LogJoint::new(&panel, Priors::default()).at(&z, &centredness);
                for set in InstructionSet::available() {
                    for threads in [1, 3] {
                        let mut fused = FusedLogJoint::with_instruction_set(
                            set,
                            Likelihood::Poisson,
                            panel.clone(),
                            Priors::default(),
                            centredness,
                            threads,
                        );
                        let mut by_z = vec![0.0; z.len()];
                        let value = fused.value_and_gradient(&z, &mut by_z);
                        // The rate of a row is good to 1e-14 (exp, and eta's rounding at |eta| up to 100); sums of
                        // rows of mixed sign keep that relative to the sum of magnitudes.
                        let case = format!("{set} {n}x{t} {centredness:?} {scale}");
                        assert!(
                            (value - expected).abs() <= 1e-12 * expected.abs().max(1.0),
                            "{case}: {value} {expected}"
                        );
                        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let difference: Vec<f64> = by_z.iter().zip(&gradient.z).map(|(a, b)| a - b).collect();
                        assert!(norm(&difference) <= 1e-12 * norm(&gradient.z).max(1.0), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn negative_binomial_equals_the_reference_on_awkward_panels() {
    let mut rng = StdRng::seed_from_u64(43);
    for (n, c, t, gaps, largest) in [
        (1, 1, 1, 0.0, 9),
        (1, 1, 17, 0.0, 0),
        (7, 3, 5, 0.4, 100),
        (130, 2, 156, 0.0, 1_000),
        (90, 5, 70, 0.9, 50),
        (20, 2, 300, 0.1, 2_000_000_000),
    ] {
        let panel = random_panel(&mut rng, n, c, t, gaps, largest);
        let layout = panel.layout_for(Likelihood::NegativeBinomial);
        for centredness in [[1.0; 5], [0.5, 0.2, 0.9, 0.4, 0.6]].map(Centredness::new) {
            // At 12 rows fall outside both clip bounds. Shapes from nearly none to nearly Poisson's, and beyond the bound.
            for (scale, log_shapes) in [
                (0.3, -4.0..1.0),
                (2.0, 0.0..14.0),
                (12.0, -6.0..20.0),
                (1.0, 39.9..40.2),
            ] {
                let mut z: Vec<f64> = (0..layout.latents())
                    .map(|_| scale * rng.random_range(-1.0..1.0))
                    .collect();
                for j in layout.range(Site::LogShape) {
                    z[j] = rng.random_range(log_shapes.clone());
                }
                let (expected, gradient) = LogJoint::new(&panel, Priors::default())
                    .with_likelihood(Likelihood::NegativeBinomial)
                    .at(&z, &centredness);
                for set in InstructionSet::available() {
                    for threads in [1, 3] {
                        let mut fused = FusedLogJoint::with_instruction_set(
                            set,
                            Likelihood::NegativeBinomial,
                            panel.clone(),
                            Priors::default(),
                            centredness,
                            threads,
                        );
                        let mut by_z = vec![f64::NAN; z.len()];
                        let value = fused.value_and_gradient(&z, &mut by_z);
                        let case = format!("{set} {n}x{t} {centredness:?} {scale} {log_shapes:?}");
                        // As of Poisson counts, but y eta and (y + r) ln(1 + mu / r) are summed apart and cancel to some
                        // digit or two.
                        assert!(
                            (value - expected).abs() <= 1e-11 * expected.abs().max(1.0),
                            "{case}: {value} {expected}"
                        );
                        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let difference: Vec<f64> = by_z.iter().zip(&gradient.z).map(|(a, b)| a - b).collect();
                        let off = norm(&difference) / norm(&gradient.z).max(1.0);
                        assert!(off <= 1e-11, "{case}: {off}");
                        // By the shapes for themselves: terms of the size of a rate or a count a row cancel there.
                        let shapes = layout.range(Site::LogShape);
                        let row_size: f64 = panel.units().iter().map(|y| f64::from(*y) + 1.0).sum();
                        let tolerance = 1e-12 * (norm(&gradient.z) + row_size);
                        assert!(norm(&difference[shapes]) <= tolerance, "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
        check_threads(likelihood);
    }
}

fn check_threads(likelihood: Likelihood) {
    let mut rng = StdRng::seed_from_u64(7);
    // Large enough for five threads to have something to do.
    let panel = random_panel(&mut rng, 2_000, 3, 60, 0.1, 300);
    let z: Vec<f64> = (0..panel.layout_for(likelihood).latents())
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let run = |mut fused: FusedLogJoint| {
        let mut gradient = vec![0.0; z.len()];
        let value = fused.value_and_gradient(&z, &mut gradient);
        (value, gradient)
    };
    let fused = FusedLogJoint::of_counts(likelihood, panel, Priors::default(), Centredness::all(1.0), 1);
    let one = run(fused.clone());
    for threads in [2, 3, 5] {
        let many = fused.with_threads(threads);
        assert_eq!(many.threads(), threads);
        assert_eq!(one, run(many.clone()));
        // Clones on the same threads at the same time.
        std::thread::scope(|scope| {
            for result in [many.clone(), many].map(|fused| scope.spawn(|| run(fused))) {
                assert_eq!(one, result.join().unwrap());
            }
        });
    }
}

#[test]
fn small_panels_take_as_many_threads_as_they_can_use() {
    let mut rng = StdRng::seed_from_u64(8);
    let mut used = |products, categories, periods| {
        let panel = random_panel(&mut rng, products, categories, periods, 0.0, 9);
        let log_joint = FusedLogJoint::new(panel, Priors::default(), Centredness::all(1.0), 64);
        assert_eq!(log_joint.with_threads(3).threads(), log_joint.threads().min(3));
        log_joint.threads()
    };
    // One chunk, several that take less than waking a thread, and more work than two chunks can share.
    assert_eq!(
        [used(2, 1, 30_000), used(40, 4, 12), used(128, 2, 500)],
        [1, 1, 2]
    );
}

#[test]
fn bytes_count_the_rows_once_and_cover_them() {
    struct RowBytes<'p>(&'p Panel);
    impl ForSimd for RowBytes<'_> {
        type Output = u64;
        fn run<I: Simd>(self, isa: I) -> u64 {
            let of_chunk = |chunk: &Chunk| -> usize {
                let rows = PackedRows::new(isa, self.0, chunk);
                let products = 0..chunk.products.len();
                products.map(|i| size_of_val(rows.product(i).0)).sum()
            };
            chunks(self.0).iter().map(of_chunk).sum::<usize>() as u64
        }
    }
    let mut rng = StdRng::seed_from_u64(5);
    for (products, periods, gaps) in [(500, 156, 0.0), (500, 156, 0.5), (500, 156, 0.95), (100, 3, 0.0)] {
        let panel = random_panel(&mut rng, products, 4, periods, gaps, 9);
        let one = FusedLogJoint::bytes(&panel, 1, 1);
        for set in InstructionSet::available() {
            let rows = set.run_f64(RowBytes(&panel));
            assert!(rows <= one, "{set}: {rows} {one}");
        }
        let more = FusedLogJoint::bytes(&panel, 5, 5) - one;
        assert_eq!(more, 4 * (FusedLogJoint::bytes(&panel, 2, 2) - one));
        assert!(periods < 100 || more / 4 < one / 2, "{more} {one}");
    }
}

#[test]
fn what_is_not_a_number_reaches_the_value() {
    let panel = random_panel(&mut StdRng::seed_from_u64(8), 20, 2, 9, 0.2, 3);
    let layout = panel.layout_for(Likelihood::NegativeBinomial);
    for site in layout.sites() {
        let mut z = vec![0.5; layout.latents()];
        z[layout.start(*site)] = f64::NAN;
        let priors = Priors::default();
        let mut fused = FusedLogJoint::of_counts(
            Likelihood::NegativeBinomial,
            panel.clone(),
            priors,
            Centredness::all(1.0),
            2,
        );
        let mut gradient = vec![0.0; z.len()];
        assert!(fused.value_and_gradient(&z, &mut gradient).is_nan(), "{site:?}");
    }
}
