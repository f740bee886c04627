//! Holds the workspace's benches: see `speedup.rs`.
