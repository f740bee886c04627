//! Fused SIMD kernels over the panel, vector noise, and the thread team that runs them.
