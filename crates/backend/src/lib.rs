//! What an inference backend is: request, run, progress, posterior, report and devices.
