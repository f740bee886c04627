//! Synthetic panels: the same on any number of threads, in memory and from a file, with their truth.

use infermark_data::{
    Columns, GenerateError, Generator, Process, Truth, generate_panel, generate_to_file, read_panel,
    read_true_elasticities, read_truth,
};
use infermark_model::{Likelihood, Panel, Priors, Site};
use std::ops::ControlFlow;
use std::path::Path;

fn generator(process: Process, products: usize, periods: usize, categories: usize) -> Generator {
    Generator {
        process,
        likelihood: Likelihood::Poisson,
        products,
        periods,
        categories,
        seed: 20_240_607,
    }
}

fn model() -> Process {
    Process::Model(Priors::default())
}

fn assert_same(a: &Panel, b: &Panel) {
    assert_eq!(a.layout(), b.layout());
    for (x, y) in [
        (a.products(), b.products()),
        (a.categories(), b.categories()),
        (a.periods(), b.periods()),
    ] {
        assert!(
            x.iter()
                .map(|l| l.to_string())
                .eq(y.iter().map(|l| l.to_string()))
        );
    }
    assert_eq!(a.category_of(), b.category_of());
    assert_eq!(a.units(), b.units());
    for p in 0..a.layout().products {
        for (x, y) in a.product_rows(p).zip(b.product_rows(p)) {
            assert_eq!(x.period, y.period);
            assert!((x.log_price - y.log_price).abs() < 1e-12);
        }
    }
}

#[test]
fn the_thread_count_changes_nothing() {
    for process in [Process::Published, model()] {
        let generator = generator(process, 3000, 30, 5);
        let (panel, truth) = generate_panel(&generator, 1).unwrap();
        for threads in [2, 3, 5] {
            let (other, other_truth) = generate_panel(&generator, threads).unwrap();
            assert!(panel == other && truth == other_truth, "{threads} threads");
        }
        let (other, _) = generate_panel(&Generator { seed: 1, ..generator }, 2).unwrap();
        assert_ne!(panel.units(), other.units());
    }
}

#[test]
fn a_larger_panel_starts_with_the_smaller_one() {
    let (small, small_truth) = generate_panel(&generator(Process::Published, 100, 20, 4), 2).unwrap();
    let (large, large_truth) = generate_panel(&generator(Process::Published, 1500, 20, 4), 2).unwrap();
    assert_eq!(small.units(), &large.units()[..small.rows()]);
    assert_eq!(
        small_truth.product_elasticity,
        large_truth.product_elasticity[..100]
    );
}

#[test]
fn a_panel_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    // One product, one period, one row, fewer products than categories, and more than one wave of blocks.
    let sizes = [
        (1, 1, 1),
        (1, 70, 3),
        (200, 1, 3),
        (3, 9, 10),
        (1200, 13, 11),
        (700, 65, 2),
    ];
    for process in [Process::Published, model()] {
        for (products, periods, categories) in sizes {
            let generator = generator(process, products, periods, categories);
            let (panel, truth) = generate_panel(&generator, 2).unwrap();
            assert!(panel.is_dense());
            assert_eq!(panel.layout().products, products);
            assert_eq!(panel.rows(), products * periods);
            for extension in ["csv", "parquet"] {
                let out = folder.path().join(format!("panel.{extension}"));
                let truth_path = folder.path().join("truth.csv");
                let mut done = Vec::new();
                generate_to_file(&generator, &out, &truth_path, 3, &mut |p| {
                    done.push(p.products_done);
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert!(done.is_sorted() && done.last() == Some(&products));
                let read = read_panel(&out, &Columns::default()).unwrap();
                assert_same(&panel, &read);
                assert_eq!(read_truth(&truth_path, &read).unwrap(), truth);
                truth.write(&truth_path, &panel).unwrap();
                assert_eq!(read_truth(&truth_path, &panel).unwrap(), truth);
                // By the products' labels alone, whatever their order.
                let mut labels: Vec<String> = panel.products().iter().map(|l| l.to_string()).collect();
                labels.reverse();
                let mut elasticities = read_true_elasticities(&truth_path, &labels).unwrap();
                elasticities.reverse();
                assert_eq!(elasticities, truth.product_elasticity);
            }
        }
    }
    // Nothing but the outputs is left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn the_model_process_draws_from_the_model() {
    // Wide clip bounds and a narrow prior, so that rates are moderate and unclipped: the units must then scatter
    // about their rates as Poisson counts do.
    let priors = Priors {
        global_a_mean: 0.2,
        global_a_sd: 0.05,
        category_a_sd: 0.05,
        product_a_sd: 0.05,
        product_effect_mean: 1.0,
        product_effect_sd: 0.3,
        time_cat_effects_sd: 0.3,
        ..Priors::default()
    };
    let (panel, truth) = generate_panel(&generator(Process::Model(priors), 2000, 26, 4), 2).unwrap();
    let layout = panel.layout();
    let point = truth.point.unwrap();
    assert_eq!(point.len(), layout.latents());
    assert_eq!(point[layout.range(Site::ProductA)], truth.product_elasticity);
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0f64);
    for (i, c) in panel.category_of().iter().enumerate() {
        for row in panel.product_rows(i) {
            let eta = point[layout.start(Site::ProductA) + i] * row.log_price
                + point[layout.start(Site::ProductEffect) + i]
                + point[layout.time_index(*c as usize, row.period)];
            let rate = eta.clamp(priors.clip_low, priors.clip_high).exp();
            let residual = (f64::from(row.units) - rate) / rate.sqrt();
            sum += residual;
            squares += residual * residual;
            count += 1.0;
        }
    }
    // Five standard errors; the kurtosis of a Poisson count adds 1/rate, here at most 1, to the variance of squares.
    assert!((sum / count).abs() < 5.0 / count.sqrt());
    assert!((squares / count - 1.0).abs() < 5.0 * (3.0 / count).sqrt());
    // The parameters follow their priors: five standard errors of a mean.
    let effects = &point[layout.range(Site::ProductEffect)];
    let mean = effects.iter().sum::<f64>() / effects.len() as f64;
    assert!((mean - 1.0).abs() < 5.0 * 0.3 / (effects.len() as f64).sqrt());
}

/// Counts vary according to the shapes of the truth, under either process: the expectation of
/// `(y - mu)^2 - mu` over `mu^2` is one over the shape. Everything else is as with Poisson counts.
#[test]
fn negative_binomial_panels_have_the_shapes_of_their_truth() {
    let priors = Priors {
        global_a_mean: -0.2,
        global_a_sd: 0.01,
        category_a_sd: 0.01,
        product_a_sd: 0.01,
        product_effect_mean: 4.0,
        product_effect_sd: 0.3,
        time_cat_effects_sd: 0.3,
        log_shape_mean: 1.0,
        log_shape_sd: 0.5,
        ..Priors::default()
    };
    let poisson = generator(Process::Model(priors), 2000, 26, 4);
    let generator = Generator {
        likelihood: Likelihood::NegativeBinomial,
        ..poisson.clone()
    };
    let (panel, truth) = generate_panel(&generator, 2).unwrap();
    let (other, other_truth) = generate_panel(&poisson, 2).unwrap();
    let layout = panel.layout_for(Likelihood::NegativeBinomial);
    let point = truth.point.unwrap();
    assert_eq!(point.len(), layout.latents());
    assert_eq!(point[layout.range(Site::LogShape)], truth.parameter);
    assert_eq!(point[..layout.start(Site::LogShape)], other_truth.point.unwrap());
    assert_ne!(panel.units(), other.units());
    let mut by_category = vec![(0.0, 0.0, 0.0f64); layout.categories];
    for (i, c) in panel.category_of().iter().enumerate() {
        let (sum, squares, count) = &mut by_category[*c as usize];
        for row in panel.product_rows(i) {
            let eta = point[layout.start(Site::ProductA) + i] * row.log_price
                + point[layout.start(Site::ProductEffect) + i]
                + point[layout.time_index(*c as usize, row.period)];
            let mu = eta.exp();
            let scatter = ((f64::from(row.units) - mu) / mu).powi(2) - 1.0 / mu;
            *sum += scatter;
            *squares += scatter * scatter;
            *count += 1.0;
        }
    }
    for ((sum, squares, count), log_shape) in by_category.iter().zip(&truth.parameter) {
        let error = (squares / count - (sum / count).powi(2)).sqrt() / count.sqrt();
        assert!(
            (sum / count - (-log_shape).exp()).abs() < 5.0 * error,
            "{} {} +- {error}",
            sum / count,
            (-log_shape).exp()
        );
    }
}

#[test]
fn truths_of_negative_binomial_panels_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (out, path) = (folder.path().join("panel.csv"), folder.path().join("truth.csv"));
    for process in [Process::Published, model()] {
        let generator = Generator {
            likelihood: Likelihood::NegativeBinomial,
            ..generator(process, 30, 12, 3)
        };
        let (panel, truth) = generate_panel(&generator, 2).unwrap();
        assert_eq!(truth.likelihood, Likelihood::NegativeBinomial);
        assert_eq!(truth.parameter.len(), panel.layout().categories);
        generate_to_file(&generator, &out, &path, 3, &mut |_| ControlFlow::Continue(())).unwrap();
        let read = read_panel(&out, &Columns::default()).unwrap();
        assert_same(&panel, &read);
        assert_eq!(read_truth(&path, &read).unwrap(), truth);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("site,key,value\n") && text.contains("\nlog_shape,c0,"),
            "{text}"
        );
        // A shape that is missing is found, and so is a part of the other sites.
        let without = |of: &str| -> String {
            let mut lines = text.lines();
            let dropped = lines.clone().position(|line| line.starts_with(of)).unwrap();
            let mut kept: Vec<&str> = lines.by_ref().collect();
            kept.remove(dropped);
            kept.join("\n")
        };
        let missing = truth_message(&without("log_shape,"), &panel, &path);
        assert!(
            missing.contains("the panel has this key of log_shape"),
            "{missing}"
        );
        let missing = truth_message(&without("product_a,"), &panel, &path);
        assert!(
            missing.contains("the panel has this key of product_a"),
            "{missing}"
        );
    }
    let (panel, truth) = generate_panel(&generator(model(), 30, 12, 3), 1).unwrap();
    truth.write(&path, &panel).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let message = truth_message(&text.replacen("global_a,,", "category_a,c9,", 1), &panel, &path);
    assert!(
        message.contains("the panel has this key of global_a"),
        "{message}"
    );
}

#[test]
fn a_count_that_no_panel_holds_is_refused() {
    let priors = Priors {
        log_shape_mean: -3.0,
        log_shape_sd: 0.1,
        ..Priors::default()
    };
    let error = generate_panel(
        &Generator {
            likelihood: Likelihood::NegativeBinomial,
            ..generator(Process::Model(priors), 500, 26, 4)
        },
        2,
    )
    .unwrap_err();
    assert!(
        matches!(error, GenerateError::Units { units } if units >= 2f64.powi(31)),
        "{error}"
    );
}

#[test]
fn the_default_priors_give_counts_at_both_bounds() {
    let (panel, truth) = generate_panel(&generator(model(), 2000, 12, 10), 2).unwrap();
    let largest = *panel.units().iter().max().unwrap();
    // exp(20) is 4.85e8: ten standard deviations about it.
    assert!((484_945_000..485_386_000).contains(&largest), "{largest}");
    assert!(panel.sums().product.contains(&0), "all-zero units of a product");
    assert!(truth.point.is_some());
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let refused = |process, products, periods, categories| {
        generate_panel(&generator(process, products, periods, categories), 1)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refused(Process::Published, 0, 5, 5).starts_with("the number of products is 0; it must be from 1")
    );
    assert!(refused(Process::Published, 5, 0, 5).starts_with("the number of periods is 0"));
    assert!(refused(Process::Published, 5, 5, 0).starts_with("the number of categories is 0"));
    let priors = Priors {
        clip_high: 30.0,
        ..Priors::default()
    };
    assert!(refused(Process::Model(priors), 5, 5, 1).contains("upper clip bound is 30"));
    let priors = Priors {
        product_a_sd: -1.0,
        ..Priors::default()
    };
    assert!(refused(Process::Model(priors), 5, 5, 1).contains("product_a is -1"));
    // Each size is possible, but their products are not.
    assert_eq!(
        refused(Process::Published, 1, 1 << 15, 1 << 14),
        "the number of categories times that of periods is 536870912; it must be from 1 to 268435456"
    );
    assert_eq!(
        refused(Process::Published, 1 << 20, 1 << 12, 1),
        "the number of rows is 4294967296; it must be from 1 to 4294967295"
    );
}

#[test]
fn outputs_that_cannot_be_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let name = |n: &str| folder.path().join(n);
    std::fs::write(name("file"), b"old").unwrap();
    let generate = |out: &str, truth: &str| {
        let generator = generator(Process::Published, 5, 30, 1);
        generate_to_file(&generator, &name(out), &name(truth), 1, &mut |_| {
            panic!("{out}, {truth}: products were drawn")
        })
        .unwrap_err()
    };
    assert!(matches!(
        generate("x.xlsx", "t.csv"),
        GenerateError::Extension { .. }
    ));
    for (out, truth) in [("x.csv", "x.csv"), ("x.csv", "./x.csv"), ("a/../x.csv", "x.csv")] {
        std::fs::create_dir_all(name("a")).unwrap();
        let error = generate(out, truth);
        assert!(matches!(error, GenerateError::SameFile { .. }), "{error}");
        assert!(error.to_string().ends_with("give the truth another name"));
        std::fs::remove_dir(name("a")).unwrap();
    }
    for (out, truth) in [("file/x.csv", "t.csv"), ("x.csv", "file/t.csv")] {
        let error = generate(out, truth);
        assert!(matches!(error, GenerateError::File(_)), "{error}");
        // A cause that is also a source would be printed twice.
        assert!(std::error::Error::source(&error).is_none());
    }
    assert_eq!(std::fs::read(name("file")).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_generation_that_is_stopped_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["csv", "parquet"] {
        let (out, truth) = (
            folder.path().join(format!("x.{extension}")),
            folder.path().join("t.csv"),
        );
        std::fs::write(&out, b"old").unwrap();
        let mut calls = 0;
        let result = generate_to_file(&generator(model(), 5000, 64, 2), &out, &truth, 2, &mut |_| {
            calls += 1;
            if calls == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match result {
            Err(GenerateError::Stopped(done)) => {
                assert!((1..5000).contains(&done.products_done) && done.products == 5000);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(calls, 2);
        assert_eq!(std::fs::read(&out).unwrap(), b"old");
        assert!(!truth.exists());
        std::fs::remove_file(&out).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

fn truth_message(text: &str, panel: &Panel, path: &Path) -> String {
    std::fs::write(path, text).unwrap();
    read_truth(path, panel).unwrap_err().to_string()
}

#[test]
fn elasticities_that_are_missing_twice_or_no_numbers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.csv");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read_true_elasticities(&path, &["a".into(), "b".into()])
    };
    let header = "product,category,elasticity\n";
    let good = format!("{header}b,x,-2\nc,x,nonsense\na,x,-1\n");
    // A product that was not requested is skipped, whatever its row holds.
    assert_eq!(read(&good).unwrap(), [-1.0, -2.0]);
    // As many effects as elasticities: only the site distinguishes them.
    let point = "site,key,value\nproduct_effect,a,5\nproduct_a,a,-1\nproduct_a,b,-2\nproduct_effect,b,6\n";
    assert_eq!(read(point).unwrap(), [-1.0, -2.0]);
    for (text, word) in [
        (
            format!("{header}a,x,-1\n"),
            "value \"b\": the fit has this product, the truth has not",
        ),
        (format!("{good}a,x,-3\n"), "line 5, column \"product\""),
        (
            format!("{header}a,x,-1\nb,x,inf\n"),
            "line 3, column \"elasticity\", value \"inf\"",
        ),
        (
            "product,elasticity\na,1\n".into(),
            "neither product,category,elasticity",
        ),
        (String::new(), "the file is empty"),
    ] {
        let message = read(&text).unwrap_err().to_string();
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn truths_of_other_panels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.csv");
    let (panel, _) = generate_panel(&generator(Process::Published, 2, 30, 1), 1).unwrap();
    let header = "product,category,elasticity";
    // Products beyond the panel's are no defect.
    std::fs::write(&path, format!("{header}\np0,c0,-1\np1,c0,-2\np9,c0,-3\n")).unwrap();
    assert_eq!(
        read_truth(&path, &panel).unwrap(),
        Truth {
            likelihood: Likelihood::Poisson,
            product_elasticity: vec![-1.0, -2.0],
            parameter: Vec::new(),
            point: None,
        }
    );
    let missing = truth_message(&format!("{header}\np0,c0,-1\n"), &panel, &path);
    assert!(
        missing.contains(r#"value "p1": the panel has this key of product_a, the truth has not"#),
        "{missing}"
    );
    let twice = truth_message(&format!("{header}\np0,c0,-1\np0,c0,-1\n"), &panel, &path);
    assert!(
        twice.contains(r#"line 3, column "product", value "p0": product_a of this key came before"#),
        "{twice}"
    );
    let text = truth_message(&format!("{header}\np0,c0,-1\np1,c0,high\n"), &panel, &path);
    assert!(text.contains(r#"line 3, column "elasticity", value "high": the value is not a finite number"#));
    let category = truth_message(&format!("{header}\np0,c0,-1\np1,c1,-1\n"), &panel, &path);
    assert!(
        category.contains(
            r#"line 3, column "category", value "c1": the panel has product "p1" in category "c0"; name the truth that belongs to this panel"#
        ),
        "{category}"
    );
    let other = truth_message("a,b\n1,2\n", &panel, &path);
    assert!(other.contains(r#"the header is "a,b""#), "{other}");
    let site = truth_message("site,key,value\nglobal_b,,1\n", &panel, &path);
    assert!(
        site.contains(r#"line 2, column "site", value "global_b": there is no such site"#),
        "{site}"
    );
}
