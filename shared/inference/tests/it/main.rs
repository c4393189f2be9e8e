//! Tests of the inference crate through its public names.

mod fixture;
mod operators;
mod files;
mod engine;
mod golden;
mod quantization;
mod domain;
