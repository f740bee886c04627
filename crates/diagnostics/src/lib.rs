//! Convergence diagnostics of Markov chains: R-hat, effective sample sizes and Monte Carlo standard errors.
