//! Runs as `cloud-hub train` makes them: a folder with `run.json` and a dataset in, a package out.

mod data;
mod refusals;
mod runs;
