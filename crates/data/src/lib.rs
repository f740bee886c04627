//! Panels from generators, CSV and Parquet files, and back.
