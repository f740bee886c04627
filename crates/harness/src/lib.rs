//! Runs benchmarks, keeps their results, and draws tables and plots.
