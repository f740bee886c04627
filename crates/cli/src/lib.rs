//! Trustworthy posteriors for hierarchical demand models, and how fast.
