//! Ranks on the played card, with the NCCL that is played there: `scripts/cuda_check.sh`. On a machine with cards and NCCL they run as
//! well. Where neither is, a test says so and passes, except where `INFERMARK_TEST_CARDS` promises cards.

use infermark_communicator::{CommunicationError, Communicator, World, preflight, threads};
use infermark_nccl::{NcclError, NcclWorld, Place};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// Cards that there are said to be.
fn cards() -> usize {
    std::env::var("INFERMARK_TEST_CARDS").map_or(1, |cards| cards.parse().unwrap())
}

fn say(error: &CommunicationError) {
    eprintln!("error: {error}");
}

fn skipped(error: &NcclError) {
    let promised = std::env::var_os("INFERMARK_TEST_CARDS").is_some();
    assert!(!promised, "{error}");
    let is_missing = matches!(
        error,
        NcclError::Library(_) | NcclError::Driver | NcclError::Card { .. }
    );
    assert!(is_missing, "{error}");
    eprintln!("skipped: {error}");
}

/// Whether the NCCL here is the played one, which fails on demand.
fn is_played() -> bool {
    let is = std::env::var_os("PLAYED_CARD").is_some();
    if !is {
        eprintln!("skipped: no played card");
    }
    is
}

/// Numbers of very different sizes, whose sum depends on its order.
fn numbers(rank: usize, count: usize) -> Vec<f64> {
    let number = |i: usize| {
        ((i * 7919 + rank * 104_729) as f64).sin() * 10f64.powi((i * 5 + rank * 3) as i32 % 17 - 8)
    };
    (0..count).map(number).collect()
}

/// The sums of all ranks, by a rank of each of `ranks`, each on a thread.
fn sums(ranks: Vec<Box<dyn Communicator>>, count: usize) -> Vec<Vec<f64>> {
    std::thread::scope(|scope| {
        let started: Vec<_> = ranks
            .into_iter()
            .map(|mut rank| {
                scope.spawn(move || {
                    let mut buffer = numbers(rank.rank(), count);
                    rank.all_reduce(&mut buffer).unwrap();
                    rank.barrier().unwrap();
                    for root in 0..rank.size() {
                        let mut from = numbers(rank.rank(), 5);
                        rank.broadcast(&mut from, root).unwrap();
                        assert_eq!(from, numbers(root, 5));
                    }
                    let traffic = rank.traffic();
                    assert_eq!(traffic.operations, 2 + rank.size() as u64);
                    assert_eq!(traffic.bytes, 8 * (count + 5 * rank.size()) as u64);
                    buffer
                })
            })
            .collect();
        started.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn cards_of_a_process_get_the_bits_of_threads() {
    for size in [1, 2, 3, 4].into_iter().filter(|size| *size <= cards()) {
        let numbers: Vec<usize> = (0..size).collect();
        let world = match NcclWorld::of_cards(&numbers, DEADLINE, say) {
            Ok(world) => world,
            Err(error) => return skipped(&error),
        };
        assert_eq!(world.size(), None);
        assert!(world.version().starts_with("2."), "{}", world.version());
        // The same connections again: a check before a run, and the run.
        for count in [1, 6_293, 100_003, 7] {
            let threads = threads(size)
                .into_iter()
                .map(|rank| Box::new(rank) as Box<dyn Communicator>);
            let expected = sums(threads.collect(), count);
            let found = sums(world.ranks(size), count);
            assert!(found == expected, "{count} numbers of {size} cards");
        }
        std::thread::scope(|scope| {
            for mut rank in world.ranks(size) {
                scope.spawn(move || preflight(&mut *rank, &[("panel", 0xdead_beef_0123_4567)]).unwrap());
            }
        });
    }
}

/// A card's rank that does not go on takes the others of its process along.
#[test]
fn a_rank_that_leaves_is_named() {
    if cards() < 2 {
        eprintln!("skipped: one card");
        return;
    }
    // The process is to outlive what has failed.
    let world = NcclWorld::of_cards(&[0, 1], 60 * DEADLINE, say).unwrap();
    let [mut first, mut second] = <[_; 2]>::try_from(world.ranks(2)).ok().unwrap();
    second.leave();
    let error = first.all_reduce(&mut [1.0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rank 1 of 2 has gone; operation 1 (all-reduce) cannot be completed"
    );
}

/// The environment variables of a rank that is a process of its own, which runs the test `process`.
const RANK: &str = "INFERMARK_TEST_NCCL_RANK";
const SIZE: &str = "INFERMARK_TEST_NCCL_SIZE";
const FILE: &str = "INFERMARK_TEST_NCCL_FILE";
const COUNT: usize = 3_001;

/// A rank, where [`RANK`] says so: three sums.
#[test]
fn process() {
    let Ok(rank) = std::env::var(RANK) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let (rank, size) = (rank.parse().unwrap(), number(SIZE));
    let place = Place {
        rank,
        size,
        local_rank: Some(rank),
    };
    let file = PathBuf::from(std::env::var_os(FILE).unwrap());
    let world = match NcclWorld::of_processes(place, rank % cards(), &file, Duration::from_secs(2), say) {
        Ok(world) => world,
        Err(error) => {
            eprintln!("no world: {error}");
            std::process::exit(3);
        }
    };
    assert_eq!((world.size(), world.local_rank()), (Some(size), Some(rank)));
    let [mut own] = <[_; 1]>::try_from(world.ranks(size)).ok().unwrap();
    for round in 1..=3 {
        let mut buffer = numbers(rank, COUNT);
        if let Err(error) = own.all_reduce(&mut buffer) {
            eprintln!("error: {error}");
            // None succeeds after it.
            assert_eq!(own.barrier(), Err(error));
            std::process::exit(4);
        }
        let expected = (0..size).map(|rank| numbers(rank, COUNT));
        let sums = expected.reduce(|mut sums, more| {
            sums.iter_mut().zip(more).for_each(|(sum, number)| *sum += number);
            sums
        });
        assert_eq!(Some(buffer), sums, "round {round}");
    }
}

fn start(rank: usize, size: usize, file: &Path, played: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["process", "--exact", "--nocapture", "--test-threads=1"])
        .env(RANK, rank.to_string())
        .env(SIZE, size.to_string())
        .env(FILE, file)
        .env("PLAYED_NCCL_FOLDER", file.parent().unwrap())
        .envs(played.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Exit codes of all ranks, with what they say.
fn ends(size: usize, played: &[(&str, &str)]) -> Vec<(Option<i32>, String)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let started: Vec<Child> = (0..size).map(|rank| start(rank, size, &file, played)).collect();
    let ends = started.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    });
    ends.collect()
}

#[test]
fn processes_get_the_sums_in_the_order_of_ranks() {
    if !is_played() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let path = log.to_str().unwrap();
    for (code, said) in ends(4, &[("PLAYED_NCCL_LOG", path)]) {
        assert_eq!(code, Some(0), "{said}");
    }
    // What each asked the library for, in its order.
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("id\n").count(), 1);
    for rank in 0..4 {
        let number = rank.to_string();
        let of_rank = |line: &&str| line.split([' ', ':']).nth(1) == Some(&number);
        let calls: Vec<&str> = log.lines().filter(of_rank).collect();
        let gather = |n: usize| format!("gather {rank}: {COUNT} numbers, number {n}");
        let expected = [
            format!("start {rank} of 4 on card {rank}"),
            gather(1),
            gather(2),
            gather(3),
            format!("end {rank}"),
        ];
        assert_eq!(calls, expected, "{log}");
    }
}

#[test]
fn a_rank_that_hangs_ends_the_others_in_time() {
    if !is_played() {
        return;
    }
    let begin = Instant::now();
    let ends = ends(3, &[("PLAYED_NCCL_HANG", "1:2")]);
    // Two seconds and a look; the machine may be busy.
    assert!(begin.elapsed() < Duration::from_secs(30));
    for (code, said) in ends {
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("error: messages between the 3 ranks do not arrive in 2 s; operation 2 (all-reduce) cannot be completed"),
            "{said}"
        );
    }
}

#[test]
fn what_nccl_reports_is_told_and_ends_the_others() {
    if !is_played() {
        return;
    }
    for (rank, (code, said)) in ends(3, &[("PLAYED_NCCL_FAIL", "2:3")]).into_iter().enumerate() {
        if rank == 2 {
            assert_eq!(code, Some(4), "{said}");
            let words = "error: operation 3 (all-reduce) has failed: NCCL failed: remote process exited or there was a network error: played: a rank \
                         has gone";
            assert!(said.contains(words), "{said}");
        } else {
            assert_eq!(code, Some(1), "{said}");
            assert!(
                said.contains("operation 3 (all-reduce) cannot be completed"),
                "{said}"
            );
        }
    }
    for (code, said) in ends(2, &[("PLAYED_NCCL_REFUSE", "1")]) {
        assert_eq!(code, Some(3), "{said}");
        let words =
            "no world: NCCL does not connect the ranks: unhandled system error: played: no connection";
        assert!(said.contains(words), "{said}");
    }
}

/// A process that never comes: the others end in the start.
#[test]
fn a_rank_that_does_not_start_ends_the_others() {
    if !is_played() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = start(0, 2, &folder.path().join("id"), &[])
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("messages between the 2 ranks do not arrive in 2 s; operation 0"),
        "{said}"
    );
}
