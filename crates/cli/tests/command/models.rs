//! The models: one's own sales in any unit of price, the published specification, and that they are never mixed.

use crate::{code, command, compare, json, posterior, text};
use infermark_test_support::data;
use std::path::{Path, PathBuf};

/// Every method that needs no GPU, in its shortest useful form.
const METHODS: [&[&str]; 6] = [
    &["svi", "--iterations", "300"],
    &["svi", "--iterations", "300", "--precision", "f64"],
    &["nuts", "--chains", "2", "--warmup", "30", "--draws", "30"],
    &["laplace"],
    &["structured-vi"],
    &["meanfield"],
];

/// A fit; returns what it says on stdout and stderr.
fn fit(sales: &Path, out: &Path, arguments: &[&str]) -> (String, String) {
    let output = command(&["fit", "--force"])
        .args([sales, Path::new("--out"), out])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Fits by one of [`METHODS`].
fn fit_by(method: &[&str], sales: &Path, out: &Path, more: &[&str]) -> (String, String) {
    fit(sales, out, &[&["--method"], method, more].concat())
}

/// The sales in dollars, with each row's product and price rewritten.
fn rewritten(folder: &Path, name: &str, price: impl Fn(&str, f64) -> f64) -> PathBuf {
    let dollars = std::fs::read_to_string(data("prices_in_dollars.csv")).unwrap();
    let mut lines = dollars.lines();
    let mut text = lines.next().unwrap().to_owned() + "\n";
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        // Whole cents, so that what is computed from them is exact.
        let cents = (100.0 * cells[3].parse::<f64>().unwrap()).round();
        text += &format!(
            "{},{},{}\n",
            cells[..3].join(","),
            price(cells[0], cents),
            cells[4]
        );
    }
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// Mean, standard deviation, 5% and 95% quantile of a latent in `posterior.csv`.
fn latent(folder: &Path, site: &str, key: &str) -> [f64; 4] {
    let (_, rows) = posterior(folder);
    let row = rows.iter().find(|row| row[0] == site && row[1] == key).unwrap();
    std::array::from_fn(|k| row[2 + k].parse().unwrap())
}

#[test]
fn the_unit_of_price_changes_no_bit_of_a_posterior_by_any_method() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let dollars = data("prices_in_dollars.csv");
    let cents = rewritten(folder.path(), "cents.csv", |_, cents| cents);
    let yen = rewritten(folder.path(), "yen.csv", |_, cents| 1.5 * cents);
    for method in METHODS {
        for likelihood in ["poisson", "negative-binomial"] {
            let posterior_of = |sales: &Path| {
                fit_by(method, sales, &path("fit"), &["--likelihood", likelihood]);
                std::fs::read_to_string(path("fit/posterior.csv")).unwrap()
            };
            let in_dollars = posterior_of(&dollars);
            assert!(
                posterior_of(&cents) == in_dollars,
                "{method:?} {likelihood}: cents"
            );
            assert!(posterior_of(&yen) == in_dollars, "{method:?} {likelihood}: yen");
        }
    }
}

/// Products whose 90% interval of the elasticity holds the truth, and the mean error.
fn against_truth(folder: &Path) -> (usize, usize, f64) {
    let truth = std::fs::read_to_string(data("prices_in_dollars_truth.csv")).unwrap();
    let (mut covered, mut count, mut bias) = (0, 0, 0.0);
    for line in truth.lines().skip(1) {
        let (product, truth) = line.split_once(',').unwrap();
        let truth: f64 = truth.parse().unwrap();
        let [mean, _, low, high] = latent(folder, "product_a", product);
        covered += usize::from((low..=high).contains(&truth));
        count += 1;
        bias += mean - truth;
    }
    (covered, count, bias / count as f64)
}

#[test]
fn elasticities_are_right_in_cents_and_the_published_model_is_still_to_be_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let cents = rewritten(folder.path(), "cents.csv", |_, cents| cents);
    let (table, told) = fit(&cents, &path("sales"), &[]);
    assert!(table.contains("Sales model, Poisson counts"), "{table}");
    assert!(!told.contains("bound"), "{told}");
    let record = json(&path("sales/run.json"));
    assert_eq!(record["model"], "sales");
    assert_eq!(record["request"]["method"]["name"], "structured-vi");
    assert_eq!(record["below_lower_bound"], 0.0);
    let drawn = std::fs::read_to_string(path("sales/elasticities_by_category.svg")).unwrap();
    assert!(drawn.contains("Sales model"));
    let (covered, products, bias) = against_truth(&path("sales"));
    // 27 of 30 are expected; fewer than 23 have probability 0.8%.
    assert!(
        products == 30 && covered >= 23 && bias.abs() < 0.15,
        "{covered} of {products}, {bias}"
    );

    let (table, _) = fit(&cents, &path("published"), &["--model", "published"]);
    assert!(table.contains("Published model"), "{table}");
    let record = json(&path("published/run.json"));
    assert_eq!(record["model"], "published");
    assert_eq!(record["request"]["priors"]["clip_low"], -4.0);
    // What the sales model is for: the published one reads the level of the price.
    let (covered, _, bias) = against_truth(&path("published"));
    assert!(covered <= 6 && bias > 0.8, "{covered}, {bias}");

    // Effects at a price of 1 and at the usual price have nothing in common.
    let output = compare(&[path("sales"), path("published")], &path("sales"), &path("out"));
    assert_eq!(code(&output), 2);
    let message = text(&output.stderr);
    assert!(
        message.contains("of the published model") && message.contains("--model sales"),
        "{message}"
    );
    assert!(!path("out").exists());

    // A folder from before there was a choice is of the published model.
    let record = std::fs::read_to_string(path("published/run.json")).unwrap();
    let older = record.replace("  \"model\": \"published\",\n", "");
    assert!(older.len() < record.len());
    std::fs::write(
        path("published/run.json"),
        older.replace("\"schema_version\": 4", "\"schema_version\": 3"),
    )
    .unwrap();
    fit(
        &cents,
        &path("laplace"),
        &["--model", "published", "--method", "laplace"],
    );
    let output = compare(
        &[path("laplace"), path("published")],
        &path("published"),
        &path("out"),
    );
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("Published model"),
        "{}",
        text(&output.stdout)
    );
    let csv = std::fs::read_to_string(path("out/comparison.csv")).unwrap();
    assert!(
        csv.lines().skip(1).all(|line| line.contains(",published,")),
        "{csv}"
    );
}

#[test]
fn products_of_one_price_have_their_categorys_elasticity_and_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let sales = rewritten(folder.path(), "sales.csv", |product, cents| match product {
        "P03" | "P04" => 499.0,
        _ => cents,
    });
    let text = std::fs::read_to_string(&sales).unwrap();
    let row = text.lines().find(|line| line.starts_with("P03,")).unwrap();
    let category = row.split(',').nth(1).unwrap();
    let long_chains: &[&str] = &["nuts", "--chains", "2", "--draws", "1000"];
    for method in [long_chains, &["laplace"], &["structured-vi"], &["meanfield"]] {
        let (_, told) = fit_by(method, &sales, &path("fit"), &[]);
        assert!(
            told.contains("2 of 30 products never changed their price (P03, P04)"),
            "{told}"
        );
        let record = json(&path("fit/run.json"));
        assert_eq!(
            record["constant_price_products"],
            serde_json::json!(["P03", "P04"])
        );
        assert!(record["report"]["warnings"].to_string().contains("never changed"));
        let of_category = latent(&path("fit"), "category_a", category);
        let [mean, sd, ..] = latent(&path("fit"), "product_a", "P03");
        // Monte Carlo: sd 2 over at least 400 effective draws, five standard errors.
        let (near, wide) = if method[0] == "nuts" {
            (0.5, 0.2)
        } else {
            (1e-4, 1e-4)
        };
        assert!(
            (mean - of_category[0]).abs() < near,
            "{method:?}: {mean} {of_category:?}"
        );
        let expected = match method[0] {
            // Mean-field sds are those given all else.
            "meanfield" => 2.0,
            _ => (4.0 + of_category[1].powi(2)).sqrt(),
        };
        assert!((sd / expected - 1.0).abs() < wide, "{method:?}: {sd} {expected}");
        assert!(
            (-2.6..-1.2).contains(&of_category[0]),
            "{method:?}: {of_category:?}"
        );
    }
    let (_, told) = fit(&sales, &path("fit"), &["--model", "published"]);
    assert!(
        told.contains("from the level of the price") && told.contains("--model sales"),
        "{told}"
    );
}

#[test]
fn priors_that_are_given_win_and_the_others_are_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let sales = data("prices_in_dollars.csv");
    let priors_of = |given: &str, model: &str| {
        std::fs::write(path("priors.json"), given).unwrap();
        let file = path("priors.json");
        fit(
            &sales,
            &path("fit"),
            &["--model", model, "--priors", file.to_str().unwrap()],
        );
        json(&path("fit/run.json"))["request"]["priors"].clone()
    };
    let resolved = priors_of("{\"product_effect_mean\": 1.5, \"clip_low\": -6}", "sales");
    assert_eq!(
        (&resolved["product_effect_mean"], &resolved["clip_low"]),
        (&1.5.into(), &(-6.0).into())
    );
    assert_eq!(resolved["clip_high"], 30.0);
    let resolved = priors_of("{\"product_a_sd\": 1}", "sales");
    let centre = resolved["product_effect_mean"].as_f64().unwrap();
    assert!(
        centre > 0.5 && resolved["clip_low"] == -30.0 && resolved["product_a_sd"] == 1.0,
        "{resolved}"
    );
    let resolved = priors_of("{\"product_a_sd\": 1}", "published");
    assert_eq!(
        (&resolved["product_effect_mean"], &resolved["clip_low"]),
        (&0.0.into(), &(-4.0).into())
    );
    std::fs::write(path("priors.json"), "{\"clip_high\": 90}").unwrap();
    let refused = command(&["fit", "nowhere.csv", "--out", "x", "--priors"])
        .arg(path("priors.json"))
        .output()
        .unwrap();
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains("clip bounds"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn products_from_no_unit_to_the_largest_count_are_fitted_by_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let (sales, out) = (folder.path().join("sales.csv"), folder.path().join("fit"));
    let mut csv = "product,category,week,price,units\n".to_owned();
    for (product, usual) in [0.0, 0.3, 4.0, 100.0, 1e5, 1.4e9f64].iter().enumerate() {
        for week in 1..=30usize {
            let price = [0.8, 1.0, 1.1][(week * 7 + product * 5) % 3];
            let units = (usual * f64::powf(price, -1.8)).round();
            csv += &format!("p{product},c,{week},{price},{units}\n");
        }
    }
    // The largest count that there is.
    csv += &format!("p6,c,1,1,{}\np6,c,2,1.01,{}\n", i32::MAX, i32::MAX);
    std::fs::write(&sales, csv).unwrap();
    for method in METHODS {
        let (_, told) = fit_by(method, &sales, &out, &[]);
        assert!(!told.contains("bound"), "{method:?}: {told}");
        if ["laplace", "structured-vi"].contains(&method[0]) {
            let [mean, sd, ..] = latent(&out, "product_a", "p5");
            assert!(
                (mean + 1.8).abs() < 5.0 * sd + 1e-3 && sd < 0.1,
                "{method:?}: {mean} {sd}"
            );
        }
    }
}

#[test]
fn rows_below_the_published_lower_bound_are_told_by_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let (sales, out) = (folder.path().join("sales.csv"), folder.path().join("fit"));
    let mut csv = "product,category,week,price,units\n".to_owned();
    for product in 0..12usize {
        for week in 1..=40usize {
            let price = [8.0, 10.0, 11.0][(week * 7 + product * 5) % 3];
            // Half the products sell one unit in forty weeks or none.
            let units = if product < 6 {
                5 + (week * 11 + product) % 4
            } else {
                usize::from(week == product)
            };
            csv += &format!("p{product},c,{week},{price},{units}\n");
        }
    }
    std::fs::write(&sales, csv).unwrap();
    let words = "of the rows have a fitted log rate below the model's lower bound of -4 (0.0183 units)";
    for method in [
        &["svi", "--iterations", "3000"] as &[&str],
        &["nuts", "--chains", "2", "--warmup", "100", "--draws", "100"],
        &["laplace"],
        &["structured-vi"],
        &["meanfield"],
    ] {
        let (_, told) = fit_by(method, &sales, &out, &["--model", "published"]);
        assert!(
            told.contains(words) && told.contains("--model sales"),
            "{method:?}: {told}"
        );
        let record = json(&out.join("run.json"));
        assert!(record["below_lower_bound"].as_f64().unwrap() > 0.05, "{record}");
        assert!(
            record["report"]["warnings"]
                .to_string()
                .contains("shaped by the bound")
        );
        let (_, told) = fit_by(method, &sales, &out, &[]);
        assert!(!told.contains("bound"), "{method:?}: {told}");
    }
}

#[test]
fn a_fit_ends_with_a_table_that_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let (sales, out) = (folder.path().join("sales.csv"), folder.path().join("fit"));
    let mut csv = "product,category,week,price,units\n".to_owned();
    for product in 0..200usize {
        for week in 1..=4usize {
            let price = [0.8, 1.0, 1.1][(week * 7 + product * 5) % 3];
            // The first product is elastic beyond doubt, the second sells the same at any price, the others sell nearly nothing.
            let units = match product {
                0 => (1e6 * f64::powf(price, -3.0)).round() as usize,
                1 => 1_000_000,
                _ => (product + week) % 2,
            };
            csv += &format!("p{product:03},c{product:03},{week},{price},{units}\n");
        }
    }
    std::fs::write(&sales, csv).unwrap();
    let (table, told) = fit(&sales, &out, &[]);
    assert!(table.lines().count() < 40, "{table}");
    assert!(
        table.contains("The first 20 of 200 categories; posterior.csv has all."),
        "{table}"
    );
    let cells = |name: &str| -> Vec<String> {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("| {name} ")))
            .unwrap();
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let all = cells("all");
    let counts: Vec<usize> = all[4..8].iter().map(|cell| cell.parse().unwrap()).collect();
    assert_eq!(counts[0], 200);
    assert_eq!(counts[1] + counts[2] + counts[3], 200);
    // A category of one product has period effects that fit it exactly: only a prior separates them from the
    // price.
    let (_, rows) = posterior(&out);
    let ends: Vec<(f64, f64)> = rows
        .iter()
        .filter(|row| row[0] == "product_a")
        .map(|row| (row[4].parse().unwrap(), row[5].parse().unwrap()))
        .collect();
    assert_eq!(counts[1], ends.iter().filter(|(_, high)| *high < -1.0).count());
    assert_eq!(counts[2], ends.iter().filter(|(low, _)| *low > -1.0).count());
    let global = latent(&out, "global_a", "");
    assert_eq!(all[2], format!("{:.2}", global[0]));
    assert_eq!(all[3], format!("{:.2} to {:.2}", global[2], global[3]));
    assert!(
        table.contains("Diagnostics: converged") && table.contains(&format!("Files: {}", out.display())),
        "{table}"
    );
    // Warnings are no part of the answer.
    assert!(!table.contains("note:") && !told.contains('|'), "{told}");

    let panel = data("panel.csv");
    let (table, _) = fit(
        &panel,
        &out,
        &[
            "--method", "nuts", "--chains", "2", "--warmup", "50", "--draws", "50",
        ],
    );
    let key = table
        .lines()
        .find(|line| line.starts_with("Diagnostics: "))
        .unwrap();
    assert!(
        key.contains("worst R-hat ") && key.contains("effective draws") && key.contains("divergences"),
        "{table}"
    );
    for coordinates in ["published", "orthogonal"] {
        let svi = [
            "--method",
            "svi",
            "--iterations",
            "50",
            "--coordinates",
            coordinates,
        ];
        let (table, told) = fit(&panel, &out, &svi);
        assert!(table.contains("converged is not known"), "{coordinates}: {table}");
        assert!(told.contains("--early-stop tests"), "{coordinates}: {told}");
    }
    let watched = ["--method", "svi", "--early-stop", "--require-convergence"];
    let (table, _) = fit(&panel, &out, &watched);
    assert!(table.contains("the loss no longer falls"), "{table}");
    // Of two windows none can be flat three times.
    let (table, _) = fit(
        &panel,
        &out,
        &[
            "--method",
            "svi",
            "--iterations",
            "10000",
            "--early-stop",
            "--window",
            "5000",
        ],
    );
    assert!(table.contains("converged is not known"), "{table}");
}
