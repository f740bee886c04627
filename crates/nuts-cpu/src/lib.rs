//! The No-U-Turn sampler on the CPU.
