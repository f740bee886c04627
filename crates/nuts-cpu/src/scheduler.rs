//! Schedules the chains: bounds how many work at a time, admits them draw by draw, and holds them in the
//! middle of a draw when the run is interrupted, so that they go on from there as if nothing had happened.

use infermark_backend::Interrupt;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The run is over; the chain's thread must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run was dropped")]
pub(crate) struct Shut;

/// The scheduler between a run and its chains' threads.
#[derive(Debug)]
pub(crate) struct ChainScheduler {
    state: Mutex<State>,
    /// One per chain, so that only the chain whose turn it is wakes up.
    turn: Vec<Condvar>,
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    open: bool,
    shut: bool,
    interrupt: Interrupt,
    permits: usize,
    inside: usize,
    /// Chains that wait for a permit, in order of arrival.
    queue: VecDeque<usize>,
    chains: Vec<Turn>,
}

#[derive(Debug, Clone, Default)]
struct Turn {
    done: u64,
    target: u64,
    entered: Option<Instant>,
    busy: Duration,
    failure: Option<String>,
    /// Whether another rank runs the chain.
    is_elsewhere: bool,
}

impl Turn {
    fn wants(&self) -> bool {
        !self.is_elsewhere && self.failure.is_none() && self.done < self.target
    }
}

impl ChainScheduler {
    /// A paused scheduler for chains that have made these numbers of draws, at most `permits` of which work at a time.
    pub(crate) fn new(done: &[u64], permits: usize) -> Self {
        ChainScheduler {
            state: Mutex::new(State {
                open: false,
                shut: false,
                interrupt: Interrupt::new(),
                permits,
                inside: 0,
                queue: VecDeque::new(),
                chains: done
                    .iter()
                    .map(|done| Turn {
                        done: *done,
                        ..Turn::default()
                    })
                    .collect(),
            }),
            turn: done.iter().map(|_| Condvar::new()).collect(),
            idle: Condvar::new(),
        }
    }

    /// The same with the chains of other ranks, which never enter; [`ChainScheduler::has_done`] tells how far they are.
    pub(crate) fn without(self, is_elsewhere: impl Fn(usize) -> bool) -> Self {
        for (chain, turn) in self.lock().chains.iter_mut().enumerate() {
            turn.is_elsewhere = is_elsewhere(chain);
        }
        self
    }

    /// Sets the number of draws of every chain: those of other ranks are known from these.
    pub(crate) fn has_done(&self, draws: impl Iterator<Item = u64>) {
        for (turn, draws) in self.lock().chains.iter_mut().zip(draws) {
            turn.done = draws;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every unlock, also when the thread that unlocks is unwinding.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of draws of each chain, and the first failure.
    pub(crate) fn standing(&self) -> (Vec<u64>, Option<String>) {
        let state = self.lock();
        let failure = state.chains.iter().enumerate().find_map(|(k, c)| {
            c.failure
                .as_ref()
                .map(|reason| format!("chain {}: {reason}", k + 1))
        });
        (state.chains.iter().map(|c| c.done).collect(), failure)
    }

    /// Lets the chains make `steps` draws, each at most `limit` in total, and returns when they are done, one
    /// has failed, or `interrupt` is set and every chain is held.
    pub(crate) fn advance(&self, steps: u64, limit: u64, interrupt: &Interrupt) {
        let mut state = self.lock();
        let done: Vec<u64> = state.chains.iter().map(|c| c.done).collect();
        for (chain, target) in state.chains.iter_mut().zip(even_targets(&done, limit, steps)) {
            chain.target = target;
        }
        // Chains that were held may have no draw to make in this piece; the others queue up again.
        state.queue.clear();
        state.interrupt = interrupt.clone();
        state.open = true;
        self.turn.iter().for_each(Condvar::notify_one);
        while state.inside > 0 || (state.open && state.chains.iter().any(Turn::wants)) {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.open = false;
    }

    /// Waits until the chain may work, and returns the interrupt that it must watch.
    ///
    /// # Errors
    /// [`Shut`] when the run was dropped.
    pub(crate) fn enter(&self, chain: usize) -> Result<Interrupt, Shut> {
        let mut state = self.lock();
        loop {
            if state.shut {
                return Err(Shut);
            }
            if state.open && state.interrupt.is_set() {
                state.open = false;
                self.idle.notify_all();
            }
            if state.open && state.chains[chain].wants() {
                if !state.queue.contains(&chain) {
                    state.queue.push_back(chain);
                }
                if state.queue.front() == Some(&chain) && state.inside < state.permits {
                    state.queue.pop_front();
                    state.inside += 1;
                    state.chains[chain].entered = Some(Instant::now());
                    self.wake_next(&state);
                    return Ok(state.interrupt.clone());
                }
            }
            state = self.turn[chain]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The chain stops working in the middle of a draw; it enters again to go on.
    pub(crate) fn pause(&self, chain: usize) {
        self.leave(chain, &mut self.lock());
    }

    /// Time that the chain has worked since the last call.
    pub(crate) fn take_busy(&self, chain: usize) -> Duration {
        let turn = &mut self.lock().chains[chain];
        let now = Instant::now();
        let since = turn.entered.replace(now).map_or(Duration::ZERO, |t| now - t);
        std::mem::take(&mut turn.busy) + since
    }

    /// The chain has done a draw and stops working.
    pub(crate) fn finish_draw(&self, chain: usize) {
        let mut state = self.lock();
        self.leave(chain, &mut state);
        state.chains[chain].done += 1;
    }

    /// The chain cannot go on; the scheduler stops the others after their draws.
    pub(crate) fn fail(&self, chain: usize, reason: String) {
        let mut state = self.lock();
        self.leave(chain, &mut state);
        state.chains[chain].failure = Some(reason);
        state.open = false;
    }

    /// Ends all chains.
    pub(crate) fn shut(&self) {
        self.lock().shut = true;
        self.turn.iter().for_each(Condvar::notify_one);
    }

    fn leave(&self, chain: usize, state: &mut State) {
        if let Some(entered) = state.chains[chain].entered.take() {
            state.chains[chain].busy += entered.elapsed();
            state.inside -= 1;
        }
        self.wake_next(state);
        self.idle.notify_all();
    }

    fn wake_next(&self, state: &State) {
        if let Some(next) = state.queue.front()
            && state.inside < state.permits
        {
            self.turn[*next].notify_one();
        }
    }
}

/// The number of draws that each chain should have after `steps` more in total, chains that are behind first,
/// so that all get as close to each other as possible; none beyond `limit`.
fn even_targets(done: &[u64], limit: u64, steps: u64) -> Vec<u64> {
    let needed = |level: u64| -> u64 {
        done.iter()
            .fold(0, |sum, d| u64::saturating_add(sum, level.saturating_sub(*d)))
    };
    let (mut level, mut above) = (0, limit.saturating_add(1));
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        if needed(middle) <= steps {
            level = middle;
        } else {
            above = middle;
        }
    }
    let mut left = steps - needed(level);
    done.iter()
        .map(|d| {
            let target = level.max(*d);
            if *d <= level && level < limit && left > 0 {
                left -= 1;
                target + 1
            } else {
                target
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_to_the_chains_behind() {
        assert_eq!(even_targets(&[0, 0, 0], 10, 7), [3, 2, 2]);
        assert_eq!(even_targets(&[5, 0, 1], 10, 3), [5, 2, 2]);
        assert_eq!(even_targets(&[5, 0, 1], 10, 4), [5, 3, 2]);
        assert_eq!(even_targets(&[5, 0, 1], 10, u64::MAX), [10, 10, 10]);
        assert_eq!(even_targets(&[5, 9], 10, 0), [5, 9]);
        assert_eq!(even_targets(&[2], 10, 3), [5]);
    }

    #[test]
    fn at_most_the_permitted_chains_work_and_all_come_through() {
        let scheduler = ChainScheduler::new(&[0; 5], 2);
        let working = Mutex::new((0, 0));
        std::thread::scope(|scope| {
            for chain in 0..5 {
                let (scheduler, working) = (&scheduler, &working);
                scope.spawn(move || {
                    while scheduler.enter(chain).is_ok() {
                        {
                            let mut w = working.lock().unwrap();
                            w.0 += 1;
                            w.1 = w.1.max(w.0);
                        }
                        std::thread::sleep(Duration::from_micros(300));
                        working.lock().unwrap().0 -= 1;
                        scheduler.finish_draw(chain);
                    }
                });
            }
            scheduler.advance(13, 20, &Interrupt::new());
            assert_eq!(scheduler.standing().0, [3, 3, 3, 2, 2]);
            scheduler.advance(1000, 20, &Interrupt::new());
            assert_eq!(scheduler.standing().0, [20; 5]);
            scheduler.shut();
        });
        assert_eq!(working.lock().unwrap().1, 2);
    }

    #[test]
    fn a_draw_of_each_chain_is_made_by_all_at_once() {
        let scheduler = ChainScheduler::new(&[0; 2], 2);
        let (inside, met) = (Mutex::new(0), Condvar::new());
        std::thread::scope(|scope| {
            for chain in 0..2 {
                let (scheduler, inside, met) = (&scheduler, &inside, &met);
                scope.spawn(move || {
                    while scheduler.enter(chain).is_ok() {
                        // Neither leaves before the other has arrived; a chain that stays alone gives up.
                        let mut count = inside.lock().unwrap();
                        *count += 1;
                        met.notify_all();
                        let (count, waited) = met
                            .wait_timeout_while(count, Duration::from_secs(20), |count| *count < 2)
                            .unwrap();
                        drop(count);
                        if waited.timed_out() {
                            scheduler.fail(chain, "was alone".into());
                            return;
                        }
                        scheduler.finish_draw(chain);
                    }
                });
            }
            scheduler.advance(2, 10, &Interrupt::new());
            assert_eq!(scheduler.standing(), (vec![1, 1], None));
            scheduler.shut();
        });
    }

    #[test]
    fn chains_that_were_held_wait_while_those_behind_catch_up() {
        let scheduler = ChainScheduler::new(&[0; 2], 1);
        std::thread::scope(|scope| {
            for chain in 0..2 {
                let scheduler = &scheduler;
                scope.spawn(move || {
                    while let Ok(interrupt) = scheduler.enter(chain) {
                        if chain == 0 && interrupt.is_set() {
                            scheduler.pause(chain);
                            continue;
                        }
                        scheduler.finish_draw(chain);
                        if chain == 1 && scheduler.standing().0[1] == 3 {
                            interrupt.set();
                        }
                    }
                });
            }
            scheduler.advance(100, 50, &Interrupt::new());
            let (done, _) = scheduler.standing();
            assert_eq!(done[1], 3);
            // One draw at a time, whichever chain waits in the queue.
            for step in 1..=4 {
                scheduler.advance(1, 1000, &Interrupt::new());
                let sum: u64 = scheduler.standing().0.iter().sum();
                assert_eq!(sum, done.iter().sum::<u64>() + step);
            }
            scheduler.shut();
        });
    }
}
