//! Where the system starts no thread, or few: the work is done on those that there are, or refused with what to do.
#![cfg(target_os = "linux")]

use crate::{code, over_dispersed_sales, run, text};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that every user can write to, with the command and a sales file in it.
struct Place {
    folder: tempfile::TempDir,
    sales: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(folder.path(), 0o777);
        std::fs::copy(env!("CARGO_BIN_EXE_infermark"), folder.path().join("infermark")).unwrap();
        open(&folder.path().join("infermark"), 0o755);
        let sales = over_dispersed_sales(folder.path());
        open(&sales, 0o644);
        Place { folder, sales }
    }

    /// Runs the command as a user who may have `processes` processes, threads among them, itself included.
    ///
    /// Root is bound by no such limit, and another user's would count what else runs: root becomes a user of nobody.
    fn run_limited(&self, processes: usize, arguments: &[&str]) -> Output {
        let mut command = if is_root() {
            let user = (61_000 + std::process::id() % 1_000).to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "prlimit"]);
            command
        } else {
            Command::new("prlimit")
        };
        command
            .arg(format!("--nproc={processes}"))
            .arg("./infermark")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    text(&id.stdout).trim() == "0"
}

/// Whether a limit can be set up here; says so where it cannot.
fn can_limit(place: &Place) -> bool {
    let runs = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let works = runs("prlimit")
        && (!is_root() || runs("setpriv"))
        && code(&place.run_limited(1, &["--version"])) == 0;
    if !works {
        eprintln!("skipped: no limit of processes can be set here (it takes prlimit, and setpriv for root)");
        assert!(
            !(is_root() && std::env::var_os("CI").is_some()),
            "where CI runs as root this test must run"
        );
    }
    works
}

#[test]
fn no_verb_panics_where_no_thread_starts() {
    let place = Place::new();
    if !can_limit(&place) {
        return;
    }
    let sales = place.sales.to_str().unwrap();
    let point = place.file("point.json");
    let values = serde_json::json!({
        "global_a": -1.0,
        "category_a": [-1.0, -1.0],
        "product_a": vec![-1.0; 6],
        "product_effect": vec![1.0; 6],
        "time_cat_effects": vec![1.0; 40],
    });
    std::fs::write(&point, values.to_string()).unwrap();
    let fit = |method: &str, more: &str| format!("fit {sales} --method {method} --out {{}}/{method} {more}");
    for (line, codes) in [
        (fit("laplace", ""), &[0][..]),
        (fit("structured-vi", "--threads 2"), &[0]),
        (fit("meanfield", "--threads 4"), &[0]),
        (fit("svi", "--iterations 500 --threads 2"), &[0]),
        // A chain is a thread.
        (fit("nuts", "--draws 50 --warmup 50"), &[1, 2]),
        (format!("fit {sales} --method laplace --likelihood negative-binomial --out {{}}/nb"), &[0]),
        (format!("evaluate {sales} --point {point} --threads 3"), &[0]),
        (format!("time {sales} --iterations 5 --repeats 2 --threads 2"), &[2]),
        (format!("time {sales} --iterations 5 --repeats 2 --threads 1"), &[0]),
        ("generate --products 50 --periods 20 --out {}/g.csv --truth {}/t.csv --threads 3".into(), &[0]),
        ("calibrate --methods laplace --replications 3 --threads 2 --out {}/calibration".into(), &[0, 1]),
        ("bench --products 30 --backends svi-cpu --threads 2 --repeat-seconds 0.01 --settle-seconds 0 --out {}/b".into(), &[2]),
        ("compare {}/laplace {}/meanfield --reference {}/laplace --out {}/comparison".into(), &[0]),
        (format!("profile {sales}"), &[1, 2]),
        ("devices".into(), &[0, 1, 2]),
        ("report {}/b".into(), &[1, 2]),
        ("model".into(), &[0]),
    ] {
        let folder = place.folder.path().to_str().unwrap();
        let line = line.replace("{}", folder);
        let output = place.run_limited(1, &line.split_whitespace().collect::<Vec<_>>());
        let message = text(&output.stderr);
        assert!(!message.contains("panicked"), "{line}: {message}");
        let found = output.status.code();
        assert!(found.is_some_and(|code| codes.contains(&code)), "{line}: {found:?} {message}");
        if codes == [2] {
            assert!(message.contains("ulimit -u"), "{line}: {message}");
        }
    }
    // To the bit what all threads find.
    for (method, more) in [("laplace", "4"), ("structured-vi", "2"), ("meanfield", "1")] {
        let out = place.file("free");
        let free = run(&[
            "fit",
            sales,
            "--method",
            method,
            "--threads",
            more,
            "--out",
            &out,
            "--force",
        ]);
        assert_eq!(code(&free), 0, "{}", text(&free.stderr));
        let posterior =
            |folder: &str| std::fs::read(place.folder.path().join(folder).join("posterior.csv")).unwrap();
        assert!(posterior(method) == posterior("free"), "{method}");
    }
}

#[test]
fn some_threads_are_fewer_than_asked_for() {
    let place = Place::new();
    if !can_limit(&place) {
        return;
    }
    let sales = place.sales.to_str().unwrap();
    for processes in [2, 3, 5] {
        let output = place.run_limited(
            processes,
            &[
                "fit",
                sales,
                "--method",
                "laplace",
                "--threads",
                "16",
                "--out",
                "out",
                "--force",
            ],
        );
        let message = text(&output.stderr);
        assert_eq!(code(&output), 0, "{message}");
        assert!(message.contains("fewer threads than were asked for"), "{message}");
    }
}
