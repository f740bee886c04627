//! Fits of several processes, connected by MPI, under `mpirun` and under Slurm's `srun`.
//!
//! Both are found on the PATH. Where one is not, a test says so and passes, except where CI is set.

#[path = "ranks/own_rows.rs"]
mod own_rows;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const INFERMARK: &str = env!("CARGO_BIN_EXE_infermark");

fn there_is(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output();
    let works = found.is_ok_and(|output| output.status.success());
    if !works {
        assert!(std::env::var_os("CI").is_none(), "CI needs {program}");
        eprintln!("skipped: {program} does not work here");
    }
    works
}

/// A launcher of several processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launcher {
    Mpirun,
    Srun,
}

impl Launcher {
    fn works(self) -> bool {
        match self {
            Launcher::Mpirun => there_is("mpirun", &["--version"]),
            Launcher::Srun => there_is("srun", &["--ntasks=1", "true"]),
        }
    }

    /// A folder and the name of a panel of `products` products in it; `None` where the launcher does not work.
    fn panel(self, products: usize) -> Option<(TempDir, String)> {
        if !self.works() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let panel = generate(folder.path(), products);
        Some((folder, panel))
    }

    fn command(self, ranks: usize) -> Command {
        let mut command = match self {
            Launcher::Mpirun => Command::new("mpirun"),
            Launcher::Srun => Command::new("srun"),
        };
        match self {
            Launcher::Mpirun => command
                // In a container the user may be root, and there are more ranks than cores.
                .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
                .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
                .args(["--oversubscribe", "--bind-to", "none", "-n"]),
            Launcher::Srun => command.args(["--mpi=pmix", "--overcommit", "--ntasks"]),
        };
        command
            .arg(ranks.to_string())
            .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
            .arg(INFERMARK);
        command
    }
}

fn generate(folder: &Path, products: usize) -> String {
    let panel = folder.join("panel.csv").to_str().unwrap().to_owned();
    let done = Command::new(INFERMARK)
        .args([
            "generate",
            "--periods",
            "30",
            "--categories",
            "3",
            "--seed",
            "5",
            "--out",
            &panel,
        ])
        .args(["--products", &products.to_string()])
        .arg("--truth")
        .arg(folder.join("truth.csv"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    panel
}

/// The options of a short fit that is the same to the bit wherever its shards are.
fn short_fit(panel: &str) -> Vec<String> {
    [
        "fit",
        panel,
        "--method",
        "svi",
        "--iterations",
        "200",
        "--threads",
        "1",
        "--seed",
        "3",
        "--force",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn output(mut command: Command, arguments: &[String], out: &Path) -> Output {
    command.args(arguments).arg("--out").arg(out).output().unwrap()
}

fn posterior(out: &Path, output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read_to_string(out.join("posterior.csv")).unwrap()
}

/// Sums are in the order of ranks, so a fit of processes has the bits of one of as many threads.
fn processes_give_the_bits_of_threads(launcher: Launcher) {
    let Some((folder, panel)) = launcher.panel(60) else {
        return;
    };
    for ranks in [1, 2, 4] {
        let fit = short_fit(&panel);
        let out = folder.path().join("threads");
        let shards = [&fit[..], &["--shards".to_owned(), ranks.to_string()]].concat();
        let threads = posterior(&out, &output(Command::new(INFERMARK), &shards, &out));
        let out = folder.path().join("processes");
        let done = output(launcher.command(ranks), &fit, &out);
        let processes = posterior(&out, &done);
        assert!(processes == threads, "{launcher:?}: {ranks} ranks");
        // One of them speaks.
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(told.matches("done: ").count(), 1, "{told}");
        let record = std::fs::read_to_string(out.join("run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["request"]["shards"], ranks);
    }
}

#[test]
fn processes_of_mpirun_give_the_bits_of_threads() {
    processes_give_the_bits_of_threads(Launcher::Mpirun);
}

#[test]
fn processes_of_srun_give_the_bits_of_threads() {
    processes_give_the_bits_of_threads(Launcher::Srun);
}

/// A fit of the exact methods, or of NUTS, by any number of processes.
fn fit_of(panel: &str, method: &str) -> Vec<String> {
    let nuts = ["--warmup", "60", "--draws", "50", "--chains", "4"];
    [
        "fit",
        panel,
        "--method",
        method,
        "--threads",
        "1",
        "--seed",
        "3",
        "--force",
    ]
    .iter()
    .chain(if method == "nuts" { &nuts[..] } else { &[] })
    .map(|word| (*word).to_owned())
    .collect()
}

/// Mean and standard deviation of each latent.
fn moments(posterior: &str) -> Vec<[f64; 2]> {
    let mut reader = csv::Reader::from_reader(posterior.as_bytes());
    let header = reader.headers().unwrap().clone();
    let places = ["mean", "sd"].map(|name| header.iter().position(|column| column == name).unwrap());
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| places.map(|place| row[place].parse().unwrap()))
        .collect()
}

/// The exact methods add up the same sums in another order; a chain of NUTS is the same wherever it runs.
fn exact_methods_and_nuts_give_the_posterior_of_one_process(launcher: Launcher) {
    let Some((folder, panel)) = launcher.panel(60) else {
        return;
    };
    for method in ["laplace", "structured-vi", "nuts"] {
        let fit = fit_of(&panel, method);
        let out = folder.path().join("one");
        let one = posterior(&out, &output(Command::new(INFERMARK), &fit, &out));
        for ranks in [1, 2, 4] {
            let out = folder.path().join("processes");
            let processes = posterior(&out, &output(launcher.command(ranks), &fit, &out));
            if method == "nuts" || ranks == 1 {
                assert!(processes == one, "{launcher:?}: {method}, {ranks} ranks");
                continue;
            }
            let shards = [&fit[..], &["--shards".to_owned(), ranks.to_string()]].concat();
            let out = folder.path().join("threads");
            let threads = posterior(&out, &output(Command::new(INFERMARK), &shards, &out));
            assert!(processes == threads, "{launcher:?}: {method}, {ranks} ranks");
            let (found, expected) = (moments(&processes), moments(&one));
            assert_eq!(found.len(), expected.len());
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let [mean, sd] = *expected;
                assert!(
                    (found[0] - mean).abs() < 1e-7 * sd && (found[1] / sd - 1.0).abs() < 1e-7,
                    "{launcher:?}: {method}, {ranks} ranks, latent {row}: {found:?}, by one {expected:?}"
                );
            }
        }
    }
}

#[test]
fn processes_of_mpirun_give_the_exact_posterior() {
    exact_methods_and_nuts_give_the_posterior_of_one_process(Launcher::Mpirun);
}

#[test]
fn processes_of_srun_give_the_exact_posterior() {
    exact_methods_and_nuts_give_the_posterior_of_one_process(Launcher::Srun);
}

/// A checkpoint of several processes: any of them is asked for it, the first writes it, and a fit goes on from it on as many to the
/// bit, and on others up to the order of sums.
#[test]
fn fits_of_processes_go_on_from_checkpoints() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(60) else {
        return;
    };
    for (method, options) in [
        ("svi", "--iterations 20000"),
        ("nuts", "--warmup 200 --draws 1500 --chains 4"),
    ] {
        let words = format!("fit {panel} --method {method} {options} --threads 1 --seed 3");
        let fit: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let whole = folder.path().join(format!("{method}-whole"));
        let whole = posterior(&whole, &output(Launcher::Mpirun.command(2), &fit, &whole));
        let out = folder.path().join(method);
        let checkpoint = out.join("checkpoint.bin");
        let with_checkpoints = [&fit[..], &["--checkpoint-every".to_owned(), "1h".to_owned()]].concat();
        let mut run = Launcher::Mpirun
            .command(2)
            .args(&with_checkpoints)
            .arg("--out")
            .arg(&out)
            .env("INFERMARK_TEST_RUN", method)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ranks = ranks_of(&run, method, 2);
        let begin = Instant::now();
        while !checkpoint.exists() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "no checkpoint is written"
            );
            sleep(Duration::from_millis(100));
            assert!(run.try_wait().unwrap().is_none(), "the fit was over too soon");
            if out.exists() {
                signal(ranks[1], "-USR1");
            }
        }
        for pid in &ranks {
            signal(*pid, "-KILL");
        }
        run.wait().unwrap();
        let kept = std::fs::read(&checkpoint).unwrap();
        let resume = [&with_checkpoints[..], &["--resume".to_owned()]].concat();
        let resumed = posterior(&out, &output(Launcher::Mpirun.command(2), &resume, &out));
        assert!(resumed == whole, "{method}");
        assert!(!checkpoint.exists());
        for ranks in [1, 3] {
            std::fs::remove_dir_all(&out).unwrap();
            std::fs::create_dir(&out).unwrap();
            std::fs::write(&checkpoint, &kept).unwrap();
            let resumed = posterior(&out, &output(Launcher::Mpirun.command(ranks), &resume, &out));
            if method == "nuts" {
                assert!(resumed == whole, "{ranks} ranks");
                continue;
            }
            for (found, expected) in moments(&resumed).iter().zip(moments(&whole)) {
                let off = (found[0] - expected[0]).abs() / expected[1];
                assert!(
                    off < 0.02 && (found[1] / expected[1] - 1.0).abs() < 0.02,
                    "{ranks} ranks: {found:?}, {expected:?}"
                );
            }
        }
    }
}

/// What one rank alone finds ends all, with its message, and at once.
#[test]
fn an_error_of_one_rank_is_said_and_ends_all() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(60) else {
        return;
    };
    let fit = short_fit(&panel);
    let out = folder.path().join("taken");
    posterior(&out, &output(Command::new(INFERMARK), &fit, &out));
    let begin = Instant::now();
    let without_force = &fit[..fit.len() - 1];
    let refused = output(Launcher::Mpirun.command(3), without_force, &out);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert_eq!(told.matches("--force").count(), 1, "{told}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{told}");
    // What all find, one says.
    let nowhere = short_fit("nowhere.csv");
    let refused = output(Launcher::Mpirun.command(3), &nowhere, &out);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(told.matches("error: ").count(), 1, "{told}");
    assert!(told.contains("nowhere.csv"), "{told}");
}

/// The processes of a run, by their ranks.
fn ranks_of(parent: &Child, run: &str, size: usize) -> Vec<i32> {
    let begin = Instant::now();
    loop {
        let mut found = vec![None; size];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
                continue;
            };
            let is_of_it = std::fs::read_to_string(entry.path().join("cmdline"))
                .is_ok_and(|line| line.split('\0').next() == Some(INFERMARK));
            let variable = |name: &str| {
                let of = environment.split(|byte| *byte == 0);
                of.filter_map(|variable| std::str::from_utf8(variable).ok())
                    .find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
            };
            if is_of_it
                && variable("INFERMARK_TEST_RUN").as_deref() == Some(run)
                && let Some(rank) =
                    variable("OMPI_COMM_WORLD_RANK").and_then(|rank| rank.parse::<usize>().ok())
            {
                found[rank] = Some(pid);
            }
        }
        if let Some(all) = found.into_iter().collect() {
            return all;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "the ranks of {parent:?} do not start"
        );
        sleep(Duration::from_millis(20));
    }
}

fn signal(pid: i32, name: &str) {
    let sent = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// A rank that is stopped or killed ends the others, with its number, within the time-out and what it takes to notice.
#[test]
fn a_rank_that_hangs_or_dies_is_named_and_ends_the_others() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(300) else {
        return;
    };
    let size = 3;
    for (name, launcher_helps) in [("-STOP", true), ("-KILL", true), ("-KILL", false)] {
        let mut command = Command::new("mpirun");
        if !launcher_helps {
            command.arg("--enable-recovery");
        }
        let mut launched = Launcher::Mpirun.command(size);
        command.args(launched.get_args());
        for (variable, value) in launched.get_envs() {
            command.env(variable, value.unwrap());
        }
        launched.env_clear();
        let mut run = command
            .args([
                "fit",
                &panel,
                "--method",
                "svi",
                "--iterations",
                "100000000",
                "--threads",
                "1",
            ])
            .args(["--rank-timeout", "3", "--force", "--out"])
            .arg(folder.path().join("out"))
            .env("INFERMARK_TEST_RUN", &panel)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ranks = ranks_of(&run, &panel, size);
        sleep(Duration::from_millis(1500));
        signal(ranks[1], name);
        let begin = Instant::now();
        while run.try_wait().unwrap().is_none() {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{name}: the others do not end"
            );
            sleep(Duration::from_millis(50));
        }
        let told = run.wait_with_output().unwrap();
        assert!(!launcher_helps || !told.status.success());
        let told = String::from_utf8_lossy(&told.stderr);
        // A launcher that notices says so itself.
        let by_launcher = launcher_helps && told.contains("signal 9");
        assert!(
            told.contains("rank 1 of 3 does not answer in 3 s; operation") || by_launcher,
            "{name}: {told}"
        );
        // None is left.
        for pid in ranks {
            let begin = Instant::now();
            while Path::new(&format!("/proc/{pid}/exe")).exists() {
                assert!(begin.elapsed() < Duration::from_secs(20), "{name}: {pid} is left");
                sleep(Duration::from_millis(50));
            }
        }
    }
}

/// A rank that works for longer than the time-out, here at a file that comes late, gives signs of life and is waited for.
#[test]
fn a_rank_that_works_is_waited_for() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(20) else {
        return;
    };
    let late = folder.path().join("late");
    std::fs::create_dir(&late).unwrap();
    let late = late.join("panel.csv");
    assert!(Command::new("mkfifo").arg(&late).status().unwrap().success());
    let out = folder.path().join("out");
    let fit = |panel: &str| {
        [
            fit_of(panel, "nuts"),
            ["--rank-timeout", "2"].map(str::to_owned).to_vec(),
        ]
        .concat()
    };
    let mut command = Launcher::Mpirun.command(1);
    command.args(fit(&panel)).arg("--out").arg(&out);
    command
        .args([":", "-n", "1", INFERMARK])
        .args(fit(late.to_str().unwrap()));
    let contents = std::fs::read(&panel).unwrap();
    std::thread::spawn(move || {
        sleep(Duration::from_secs(8));
        std::fs::write(late, contents)
    });
    let begin = Instant::now();
    let waited = output(command, &[], &out);
    posterior(&out, &waited);
    assert!(begin.elapsed() > Duration::from_secs(7));
}

/// Interrupted, all ranks stop after the same iteration, and the first writes what there is.
#[test]
fn an_interrupted_run_leaves_what_it_had() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(300) else {
        return;
    };
    let out = folder.path().join("out");
    for rank in [0, 1] {
        let mut run = Launcher::Mpirun.command(2);
        let run = run
            .args([
                "fit",
                &panel,
                "--method",
                "svi",
                "--iterations",
                "100000000",
                "--threads",
                "1",
                "--force",
                "--out",
            ])
            .arg(&out)
            .env("INFERMARK_TEST_RUN", &panel)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ranks = ranks_of(&run, &panel, 2);
        sleep(Duration::from_millis(1500));
        // Any one of them.
        signal(ranks[rank], "-TERM");
        let told = run.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&told.stderr);
        assert!(
            told.contains("unfinished (interrupted): partial results are in"),
            "{told}"
        );
        assert!(out.join("posterior.csv").exists());
        std::fs::remove_dir_all(&out).unwrap();
    }
}
