//! The hierarchical demand model: panel, log joint, parameterizations, guide, objectives, optimizer and noise.
