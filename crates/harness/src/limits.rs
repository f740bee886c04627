//! The machine's limits, with which measured rates are compared.

use infermark_report::records::memory_limit::MemoryLimit;
use infermark_threads::{NoThreads, start};
use std::hint::black_box;
use std::sync::{Barrier, PoisonError, RwLock};
use std::time::Instant;

/// Bytes to read for a machine with this cache and memory: four times the last-level cache, at least 256 MiB, at most an
/// eighth of the memory.
pub fn array_bytes(cache_bytes: Option<u64>, memory_bytes: u64) -> usize {
    let wanted = (4 * cache_bytes.unwrap_or(0)).max(256 << 20);
    wanted.min(memory_bytes / 8) as usize
}

/// Measures how fast `threads` threads read memory: each sums its own part of the array, `passes` times, and the best
/// pass counts. A pass lasts from the first reader's start to the last one's end.
///
/// # Errors
/// When that many threads are not available.
pub fn measure_memory_limit(
    threads: usize,
    array_bytes: usize,
    passes: usize,
) -> Result<MemoryLimit, NoThreads> {
    let words = (array_bytes / 8 / threads).max(1);
    let barrier = Barrier::new(threads);
    // Whether all readers have started: if one is missing, the others would wait forever.
    let complete = RwLock::new(false);
    // Start and end of each pass, for each reader.
    let spans: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let mut all = complete.write().unwrap_or_else(PoisonError::into_inner);
        let readers: Result<Vec<_>, _> = (0..threads)
            .map(|thread| {
                let (barrier, complete) = (&barrier, &complete);
                start(scope, move || {
                    if !*complete.read().unwrap_or_else(PoisonError::into_inner) {
                        return Vec::new();
                    }
                    // The thread that reads a page is the first to touch it, so that it is in near memory.
                    let part: Vec<u64> = (0..words as u64).map(|w| w ^ thread as u64).collect();
                    let pass = |_| {
                        barrier.wait();
                        let start = Instant::now();
                        black_box(sum(black_box(&part)));
                        (start, Instant::now())
                    };
                    (0..passes).map(pass).collect()
                })
            })
            .collect();
        *all = readers.is_ok();
        drop(all);
        let readers = readers.map_err(|error| NoThreads {
            asked: threads,
            reason: error.to_string(),
        })?;
        Ok(readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader does not panic"))
            .collect())
    })?;
    let seconds = (0..passes).filter_map(|pass| {
        let start = spans.iter().map(|s| s[pass].0).min()?;
        let end = spans.iter().map(|s| s[pass].1).max()?;
        Some((end - start).as_secs_f64())
    });
    let array_bytes = words * 8 * threads;
    Ok(MemoryLimit {
        read_bytes_per_second: array_bytes as f64 / seconds.fold(f64::INFINITY, f64::min),
        threads,
        array_bytes,
    })
}

/// The sum in 32 independent lanes: whole numbers, so that the compiler may use vectors.
fn sum(part: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    let chunks = part.chunks_exact(32);
    let rest: u64 = chunks.remainder().iter().fold(0, |s, w| s.wrapping_add(*w));
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().fold(rest, |s, l| s.wrapping_add(*l))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_reads_every_word() {
        let part: Vec<u64> = (0..1000).map(|w| w * w).collect();
        assert_eq!(sum(&part), (0..1000u64).map(|w| w * w).sum::<u64>());
        let mut changed = part.clone();
        changed[999] += 1;
        assert_eq!(sum(&changed), sum(&part) + 1);
    }

    #[test]
    fn a_rate_of_this_world_is_measured() {
        let limit = measure_memory_limit(2, 32 << 20, 3).unwrap();
        assert_eq!((limit.threads, limit.array_bytes), (2, 32 << 20));
        // Slower than any memory of the last twenty years, faster than any cache of today.
        let rate = limit.read_bytes_per_second;
        assert!(rate > 1e8 && rate < 1e13, "{rate}");
    }

    #[test]
    fn the_array_exceeds_the_cache_and_spares_the_memory() {
        assert_eq!(array_bytes(Some(105 << 20), 24 << 30), 420 << 20);
        assert_eq!(array_bytes(None, 24 << 30), 256 << 20);
        assert_eq!(array_bytes(Some(105 << 20), 1 << 30), 128 << 20);
    }
}
