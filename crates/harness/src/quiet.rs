//! Whether other programs use the machine, and waiting until they are done.

use infermark_backend::Interrupt;
use infermark_report::records::case_record::QUIET;
use std::time::{Duration, Instant};

/// How long CPU use is measured for one figure.
const WATCHED: Duration = Duration::from_millis(500);

/// Share of the machine's CPU time in use over half a second in which this program rests, 0 to 1: the use by
/// others. `None` if the system does not report it.
///
/// The load average would not do: it still counts, a minute later, the compilers that built the program.
pub fn busy_share() -> Option<f64> {
    if !sysinfo::IS_SUPPORTED_SYSTEM {
        return None;
    }
    let mut system = sysinfo::System::new();
    system.refresh_cpu_usage();
    std::thread::sleep(WATCHED.max(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL));
    system.refresh_cpu_usage();
    let share = f64::from(system.global_cpu_usage()) / 100.0;
    share.is_finite().then(|| share.clamp(0.0, 1.0))
}

/// Waits until others use no more than [`QUIET`], for at most `patience`, from which the waiting time is
/// subtracted. Returns their use then. `told` is called with their use while it waits.
pub fn wait_until_quiet(
    patience: &mut Duration,
    interrupt: &Interrupt,
    told: impl FnMut(f64),
) -> Option<f64> {
    wait(busy_share, patience, interrupt, told)
}

fn wait(
    mut share: impl FnMut() -> Option<f64>,
    patience: &mut Duration,
    interrupt: &Interrupt,
    mut told: impl FnMut(f64),
) -> Option<f64> {
    loop {
        let clock = Instant::now();
        let busy = share()?;
        if busy <= QUIET || patience.is_zero() || interrupt.is_set() {
            return Some(busy);
        }
        told(busy);
        *patience = patience.saturating_sub(clock.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_the_others_and_not_for_ever() {
        let shares = |shares: Vec<f64>| {
            let mut left = shares.into_iter();
            move || {
                std::thread::sleep(Duration::from_millis(2));
                left.next()
            }
        };
        let mut patience = Duration::from_secs(5);
        let mut heard = Vec::new();
        let quiet = wait(
            shares(vec![0.9, 0.4, 0.05, 0.9]),
            &mut patience,
            &Interrupt::new(),
            |s| heard.push(s),
        );
        assert_eq!((quiet, heard), (Some(0.05), vec![0.9, 0.4]));
        assert!(patience < Duration::from_secs(5));
        patience = Duration::from_millis(5);
        let busy = wait(shares(vec![0.8; 1000]), &mut patience, &Interrupt::new(), |_| {});
        assert_eq!((busy, patience), (Some(0.8), Duration::ZERO));
        // With no patience left, the first figure is returned.
        let busy = wait(shares(vec![0.7, 0.0]), &mut patience, &Interrupt::new(), |_| {});
        assert_eq!(busy, Some(0.7));
        let interrupt = Interrupt::new();
        interrupt.set();
        patience = Duration::from_secs(5);
        let busy = wait(shares(vec![0.7, 0.0]), &mut patience, &interrupt, |_| {});
        assert_eq!(busy, Some(0.7));
    }

    #[test]
    fn a_share_is_between_none_and_all() {
        if let Some(share) = busy_share() {
            assert!((0.0..=1.0).contains(&share), "{share}");
        }
    }
}
