//! Stochastic variational inference on the CPU.
