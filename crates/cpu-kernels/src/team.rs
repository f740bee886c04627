//! A team of threads that works through the phases of an iteration: a leader, and helpers that join where they can.
//!
//! A phase is a number of items, each taken by one thread. It ends when its items are done, not when every thread has
//! passed by: a helper that the system has not given a core holds nobody up unless it has taken an item. So a team on a
//! busy machine is about as fast as its leader would be alone, and more threads than items do no harm.
//!
//! An iteration at 10K products takes half a millisecond and its shortest phases some microseconds, so a thread that
//! waits spins first; the step from one phase to the next costs about a microsecond. Who has waited for `SPIN`
//! sleeps until there is something to do, and leaves its core to others.

use infermark_threads::start;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps: a few times what putting a thread to sleep and waking it costs.
const SPIN: Duration = Duration::from_micros(100);

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// A value with a cache line (and the line that is fetched with it) of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// The phase under way and the next of its items: the phase in the upper half, the item in the lower one.
#[derive(Debug)]
struct Ticket(AtomicU64);

/// The phase of a team that is done.
const END: u32 = u32::MAX;

impl Ticket {
    /// Opens a phase. What the leader wrote before is visible to whoever takes an item of it.
    fn open(&self, phase: u32) {
        self.0.store(u64::from(phase) << 32, Ordering::SeqCst);
    }

    fn take(&self) -> (u32, usize) {
        Self::parts(self.0.fetch_add(1, Ordering::AcqRel))
    }

    fn look(&self) -> (u32, usize) {
        Self::parts(self.0.load(Ordering::SeqCst))
    }

    fn parts(ticket: u64) -> (u32, usize) {
        ((ticket >> 32) as u32, (ticket & u64::from(u32::MAX)) as usize)
    }
}

/// What the threads of a team share.
#[derive(Debug)]
struct Team<'t> {
    /// Items of each phase.
    counts: &'t [usize],
    ticket: Apart<Ticket>,
    /// Items of the phase under way that are not done.
    outstanding: Apart<AtomicUsize>,
    /// How many helpers sleep, or are about to.
    sleepers: Apart<AtomicUsize>,
    /// Whether each helper sleeps, or is about to.
    asleep: Vec<AtomicBool>,
    leader: Thread,
    leader_sleeps: AtomicBool,
    /// Whether a helper has panicked.
    abandoned: AtomicBool,
}

impl<'t> Team<'t> {
    /// A team of `threads` threads with the calling one as its leader.
    fn new(threads: usize, counts: &'t [usize]) -> Self {
        assert!(threads > 0, "a team has at least one thread");
        let most = u32::MAX as usize / 2;
        assert!(
            counts.len() < most && counts.iter().all(|n| *n < most),
            "phases and items are counted in 31 bits"
        );
        Team {
            counts,
            // No phase yet: nothing is left of the first one.
            ticket: Apart(Ticket(AtomicU64::new(most as u64))),
            outstanding: Apart::default(),
            sleepers: Apart::default(),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            leader: std::thread::current(),
            leader_sleeps: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    fn count(&self, phase: u32) -> usize {
        self.counts.get(phase as usize).copied().unwrap_or(0)
    }

    /// The items that are left of the phase under way, from one that this thread gets; `None` where none is left.
    fn join(&self) -> Option<Items<'_>> {
        // Looked at before it is taken: a ticket counts up with every try.
        let (phase, index) = self.ticket.0.look();
        if index >= self.count(phase) {
            return None;
        }
        // Where another phase has begun in the meantime, the ticket is one of that phase.
        let (phase, index) = self.ticket.0.take();
        (index < self.count(phase)).then(|| Items::new(self, phase, Some(index)))
    }

    fn ended(&self) -> bool {
        self.ticket.0.look().0 == END
    }

    /// Counts items as done. What this thread wrote is visible to the leader when all are.
    fn report(&self, items: usize) {
        if self.outstanding.0.fetch_sub(items, Ordering::SeqCst) == items
            && self.leader_sleeps.load(Ordering::SeqCst)
        {
            self.leader.unpark();
        }
    }

    /// Works on what there is until the team ends.
    fn help(&self, helper: usize, mut work: impl FnMut(&mut Items<'_>)) {
        loop {
            let mut joined = None;
            let done = spin_until(|| {
                joined = self.join();
                joined.is_some() || self.ended()
            });
            match joined {
                Some(mut items) => {
                    work(&mut items);
                    items.report();
                }
                None if done => return,
                None => self.sleep(helper),
            }
        }
    }

    /// Sleeps until there is an item or the team ends. The flags come before the last look, and the leader opens a phase
    /// before it looks at the flags: one of the two sees the other.
    fn sleep(&self, helper: usize) {
        self.asleep[helper].store(true, Ordering::SeqCst);
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        loop {
            let (phase, index) = self.ticket.0.look();
            if phase == END || index < self.count(phase) {
                break;
            }
            std::thread::park();
        }
        self.asleep[helper].store(false, Ordering::SeqCst);
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes sleeping helpers, `most` at most.
    fn wake(&self, helpers: &[Thread], most: usize) {
        if self.sleepers.0.load(Ordering::SeqCst) == 0 {
            return;
        }
        helpers
            .iter()
            .zip(&self.asleep)
            .filter(|(_, asleep)| asleep.load(Ordering::SeqCst))
            .take(most)
            .for_each(|(helper, _)| helper.unpark());
    }

    /// Waits, as the leader, until all items of the phase are done.
    fn wait(&self) {
        let done = || self.outstanding.0.load(Ordering::SeqCst) == 0;
        let over = || done() || self.abandoned.load(Ordering::SeqCst);
        if !spin_until(over) {
            self.leader_sleeps.store(true, Ordering::SeqCst);
            while !over() {
                std::thread::park();
            }
            self.leader_sleeps.store(false, Ordering::SeqCst);
        }
        assert!(done(), "another thread of the team panicked");
    }
}

/// Spins until `ready` holds, for [`SPIN`] at most; returns whether it does.
fn spin_until(mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..SPINS_PER_LOOK {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
    }
    false
}

/// Items of a phase that one thread gets, by their index, until none is left; other threads take from the same ones.
#[derive(Debug)]
pub struct Items<'t> {
    team: &'t Team<'t>,
    phase: u32,
    first: Option<usize>,
    taken: usize,
    none_left: bool,
}

impl<'t> Items<'t> {
    fn new(team: &'t Team<'t>, phase: u32, first: Option<usize>) -> Self {
        Items {
            team,
            phase,
            first,
            taken: 0,
            none_left: false,
        }
    }

    /// The phase that they belong to.
    pub fn phase(&self) -> usize {
        self.phase as usize
    }

    /// Counts them as done.
    fn report(self) {
        assert!(self.none_left, "items of a phase were left to nobody");
        self.team.report(self.taken);
    }
}

impl Iterator for Items<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = match self.first.take() {
            Some(index) => index,
            // No other phase begins while an item of this one is not reported.
            None => {
                let (phase, index) = self.team.ticket.0.take();
                if phase != self.phase || index >= self.team.count(phase) {
                    self.none_left = true;
                    return None;
                }
                index
            }
        };
        self.taken += 1;
        Some(index)
    }
}

/// Marks the team when its helper unwinds, so that the leader does not wait for ever.
struct AbandonOnPanic<'a>(&'a Team<'a>);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandoned.store(true, Ordering::SeqCst);
            self.0.leader.unpark();
        }
    }
}

/// Sends the helpers home, whether the leader returns or unwinds.
struct EndOnDrop<'a> {
    team: &'a Team<'a>,
    helpers: Vec<Thread>,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.team.ticket.0.open(END);
        self.team.wake(&self.helpers, usize::MAX);
    }
}

/// Leads a team of `threads` threads, the caller being the leader, and returns what `lead` returns.
///
/// `counts` says how many items each phase has. `lead` is given a function that carries out one phase, named by its index
/// in `counts`: it returns when all items are done, and whatever `lead` does between two phases it does alone. `work`
/// carries out the items that a thread gets; it must take them until there are none. Each thread makes its `scratch` once.
/// What was written before a phase is visible in it, and what its items wrote after it. Where the system starts fewer threads,
/// the team is smaller.
///
/// # Panics
/// When `threads` is 0, when there is no such phase, and when a thread panics.
pub fn run_team<S, R>(
    threads: usize,
    counts: &[usize],
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &mut Items<'_>) + Sync,
    lead: impl FnOnce(&mut dyn FnMut(usize)) -> R,
) -> R {
    lead_team(&Team::new(threads, counts), scratch, work, lead)
}

fn lead_team<S, R>(
    team: &Team<'_>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &mut Items<'_>) + Sync,
    lead: impl FnOnce(&mut dyn FnMut(usize)) -> R,
) -> R {
    std::thread::scope(|scope| {
        // Before the first is started: when one cannot be, those that were must not wait for ever.
        let mut end = EndOnDrop {
            team,
            helpers: Vec::with_capacity(team.asleep.len()),
        };
        for helper in 0..team.asleep.len() {
            let (scratch, work) = (&scratch, &work);
            let started = start(scope, move || {
                let _guard = AbandonOnPanic(team);
                let mut scratch = scratch();
                team.help(helper, |items| work(&mut scratch, items));
            });
            // A phase needs no helper: with those that there are it takes longer.
            let Ok(started) = started else {
                break;
            };
            end.helpers.push(started.thread().clone());
        }
        let mut scratch = scratch();
        lead(&mut |phase| {
            let count = team.counts[phase];
            team.outstanding.0.store(count, Ordering::SeqCst);
            team.ticket.0.open(phase as u32);
            team.wake(&end.helpers, count.saturating_sub(1));
            let mut items = Items::new(team, phase as u32, None);
            work(&mut scratch, &mut items);
            items.report();
            team.wait();
        })
    })
}

/// Items that the threads of a team share, each in the hands of one thread at a time or read by several.
#[derive(Debug)]
pub struct Shared<T> {
    items: Vec<RwLock<T>>,
}

impl<T> Shared<T> {
    /// Shares `items`.
    pub fn new(items: Vec<T>) -> Self {
        Shared {
            items: items.into_iter().map(RwLock::new).collect(),
        }
    }

    /// Calls `f(index, item)` for every item in order.
    pub fn for_each(&self, mut f: impl FnMut(usize, &mut T)) {
        for index in 0..self.items.len() {
            f(index, &mut self.write(index));
        }
    }

    /// One item, to read.
    pub fn read(&self, index: usize) -> RwLockReadGuard<'_, T> {
        self.items[index].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One item, to change.
    pub fn write(&self, index: usize) -> RwLockWriteGuard<'_, T> {
        self.items[index].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for anything that is to happen, on any machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Waits until `holds`; `why` says what it stands for.
    fn wait_until(mut holds: impl FnMut() -> bool, why: &str) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{why}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    #[test]
    fn phases_do_not_overlap_and_every_item_is_taken_once() {
        // More threads than cores and than items, long phases and short ones, and one without items.
        for threads in [1, 2, 3, 7] {
            let counts = [101, 3, 1, 0];
            let items = Shared::new(vec![0u64; 101]);
            run_team(
                threads,
                &counts,
                || (),
                |(), taken| {
                    let step = taken.phase() as u64 + 1;
                    taken.for_each(|index| *items.write(index) += step);
                },
                |phase| {
                    let mut expected = vec![0; 101];
                    for round in 0..2_000 {
                        let now = round % 4;
                        phase(now);
                        expected[..counts[now]]
                            .iter_mut()
                            .for_each(|e| *e += now as u64 + 1);
                        let found: Vec<u64> = (0..101).map(|i| *items.read(i)).collect();
                        assert_eq!(found, expected, "{threads} threads, round {round}");
                    }
                },
            );
        }
    }

    #[test]
    fn a_helper_without_an_item_holds_nobody_up() {
        // The helpers are stuck before they take anything, as where the system gives them no core.
        let (leader_done, waited_for) = (AtomicBool::new(false), AtomicBool::new(false));
        let done = AtomicUsize::new(0);
        let leader = std::thread::current().id();
        run_team(
            3,
            &[5, 2],
            || {
                let start = Instant::now();
                while std::thread::current().id() != leader && !leader_done.load(Ordering::SeqCst) {
                    if start.elapsed() > PATIENCE {
                        waited_for.store(true, Ordering::SeqCst);
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            },
            |(), items| {
                done.fetch_add(items.count(), Ordering::Relaxed);
            },
            |phase| {
                for round in 0..1_000 {
                    phase(round % 2);
                }
                leader_done.store(true, Ordering::SeqCst);
            },
        );
        assert!(
            !waited_for.into_inner(),
            "the leader waits for helpers that have nothing to do"
        );
        assert_eq!(done.into_inner(), 500 * 5 + 500 * 2);
    }

    #[test]
    fn whoever_waits_sleeps_and_is_woken() {
        let team = Team::new(2, &[2]);
        let here = std::thread::current().id();
        let helped = AtomicUsize::new(0);
        lead_team(
            &team,
            || helped.load(Ordering::SeqCst),
            |before, items| {
                for _ in items {
                    if std::thread::current().id() == here {
                        // One item each: this one ends when the helper has come to the other.
                        let come = || helped.load(Ordering::SeqCst) > *before;
                        wait_until(come, "a sleeping helper is woken");
                        *before += 1;
                    } else {
                        helped.fetch_add(1, Ordering::SeqCst);
                        let sleeps = || team.leader_sleeps.load(Ordering::SeqCst);
                        wait_until(sleeps, "a leader that waits goes to sleep");
                    }
                }
            },
            |phase| {
                for _ in 0..5 {
                    let asleep = || team.sleepers.0.load(Ordering::SeqCst) == 1;
                    wait_until(asleep, "a helper that waits goes to sleep");
                    phase(0);
                }
            },
        );
        assert_eq!(helped.into_inner(), 5);
    }

    #[test]
    #[should_panic(expected = "at least one thread")]
    fn a_team_of_nobody_is_refused() {
        run_team(0, &[1], || (), |(), items| items.for_each(drop), |phase| phase(0));
    }

    #[test]
    #[should_panic(expected = "another thread of the team panicked")]
    fn a_panic_of_a_helper_ends_the_team() {
        let leader = std::thread::current().id();
        let came = AtomicBool::new(false);
        run_team(
            2,
            &[2],
            || (),
            |(), items| {
                for _ in items {
                    let helps = std::thread::current().id() != leader;
                    came.fetch_or(helps, Ordering::SeqCst);
                    assert!(!helps, "a helper fails");
                    wait_until(|| came.load(Ordering::SeqCst), "a helper comes");
                }
            },
            |phase| phase(0),
        );
    }

    #[test]
    #[should_panic(expected = "the leader fails")]
    fn a_panic_of_the_leader_ends_the_team() {
        run_team(
            3,
            &[64],
            || (),
            |(), items| items.for_each(drop),
            |phase| {
                phase(0);
                panic!("the leader fails");
            },
        );
    }
}
