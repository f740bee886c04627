//! Ranks that are threads: sums, their order, and ranks that go.

use infermark_communicator::{
    CommunicationError, Communicator, Local, Operation, ThreadRank, preflight, threads,
};

/// Runs `work` on every rank of a group; its results in the order of the ranks.
fn on_ranks<T: Send>(size: usize, work: impl Fn(ThreadRank) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = threads(size)
            .into_iter()
            .map(|rank| scope.spawn(move || work(rank)))
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Numbers whose sum depends on the order.
fn number(rank: usize, at: usize, round: usize) -> f64 {
    let x = (rank * 7919 + at * 104_729 + round * 31) as f64;
    (x * 0.618).sin() * 10f64.powi((rank * 5 % 17) as i32)
}

#[test]
fn sums_are_in_the_order_of_ranks_on_every_rank() {
    for size in [1, 2, 3, 4, 7] {
        for len in [0, 1, 2, 5, 6292] {
            let rounds = 20;
            let found = on_ranks(size, |mut rank| {
                assert_eq!(rank.size(), size);
                let mut all = Vec::new();
                for round in 0..rounds {
                    let mut buffer: Vec<f64> = (0..len).map(|at| number(rank.rank(), at, round)).collect();
                    rank.all_reduce(&mut buffer).unwrap();
                    all.push(buffer);
                }
                assert_eq!(rank.traffic().operations, rounds as u64);
                assert_eq!(rank.traffic().bytes, (rounds * len * 8) as u64);
                all
            });
            for round in 0..rounds {
                for at in 0..len {
                    let mut sum = 0.0;
                    for rank in 0..size {
                        sum += number(rank, at, round);
                    }
                    for buffers in &found {
                        assert_eq!(
                            buffers[round][at].to_bits(),
                            f64::to_bits(sum),
                            "{size} {len} {round} {at}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn operations_alternate() {
    let found = on_ranks(3, |mut rank| {
        let mut told = Vec::new();
        for round in 0..50 {
            let root = round % 3;
            let mut buffer = [number(rank.rank(), 0, round), rank.rank() as f64];
            rank.broadcast(&mut buffer, root).unwrap();
            assert_eq!(buffer, [number(root, 0, round), root as f64]);
            rank.barrier().unwrap();
            let mut one = [1.0];
            rank.all_reduce(&mut one).unwrap();
            told.push(one[0]);
        }
        told
    });
    assert_eq!(found, vec![vec![3.0; 50]; 3]);
}

#[test]
fn a_rank_that_goes_is_named_to_all_others() {
    let found = on_ranks(4, |mut rank| {
        let mut buffer = [1.0; 10];
        for round in 1.. {
            if rank.rank() == 2 && round == 5 {
                return None;
            }
            if let Err(error) = rank.all_reduce(&mut buffer) {
                // And from then on.
                assert!(rank.barrier().is_err());
                return Some(error);
            }
        }
        unreachable!()
    });
    let gone = CommunicationError::Gone {
        rank: 2,
        size: 4,
        operation: Operation::AllReduce,
        number: 5,
    };
    assert_eq!(
        gone.to_string(),
        "rank 2 of 4 has gone; operation 5 (all-reduce) cannot be completed"
    );
    for (rank, error) in found.into_iter().enumerate() {
        assert_eq!(error, (rank != 2).then(|| gone.clone()));
    }
}

#[test]
fn a_rank_that_goes_after_an_operation_does_not_fail_it() {
    for _ in 0..200 {
        let sums = on_ranks(3, |mut rank| {
            let mut buffer = [rank.rank() as f64; 3];
            rank.all_reduce(&mut buffer).map(|()| buffer[0])
        });
        assert_eq!(sums, vec![Ok(3.0); 3]);
    }
}

#[test]
fn ranks_that_do_different_things_are_told() {
    let errors = on_ranks(2, |mut rank| {
        let mut buffer = vec![0.0; 3 + rank.rank()];
        rank.all_reduce(&mut buffer).unwrap_err().to_string()
    });
    for error in errors {
        assert!(
            error.contains("rank 1") && error.contains("on 4 numbers"),
            "{error}"
        );
    }
}

#[test]
fn one_rank_is_alone() {
    let mut rank = Local::default();
    let mut buffer = [2.0, 3.0];
    rank.all_reduce(&mut buffer).unwrap();
    rank.broadcast(&mut buffer, 0).unwrap();
    rank.barrier().unwrap();
    assert_eq!((buffer, rank.rank(), rank.size()), ([2.0, 3.0], 0, 1));
    assert_eq!((rank.traffic().operations, rank.traffic().bytes), (3, 32));
}

#[test]
fn ranks_that_have_something_else_are_named_before_the_run() {
    let found = |panel_of_2: u64, request_of_1: u64| {
        on_ranks(3, |mut rank| {
            let panel = [u64::MAX, u64::MAX, panel_of_2][rank.rank()];
            let request = [7, request_of_1, 7][rank.rank()];
            preflight(&mut rank, &[("request", request), ("panel", panel)])
        })
    };
    assert_eq!(found(u64::MAX, 7), vec![Ok(()); 3]);
    for (panel, request, rank, what) in [
        (u64::MAX - 1, 7, 2, "panel"),
        (u64::MAX - (1 << 40), 7, 2, "panel"),
        (0, 8, 1, "request"),
    ] {
        let differs = CommunicationError::Differs { rank, what };
        assert_eq!(found(panel, request), vec![Err(differs); 3]);
    }
}
