//! The int8 graph of a package by itself, and how far its weights move in a retraining.

use anyhow::{Context, ensure};
use serde::Serialize;
use tributary_inference::onnx::{Data, Graph};
use tributary_release::{Package, Precision};

/// What a retraining did to the int8 weights, position by position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moved {
    /// How many of them there are.
    pub weights: usize,
    /// The share that is another value.
    pub share: f64,
    /// How far these are from the old ones on average, in steps of int8.
    pub steps: f64,
}

/// The bytes of a package's int8 graph.
pub fn graph(package: &[u8]) -> anyhow::Result<Vec<u8>> {
    let package = Package::read(package).context("the package")?;
    let named = package.manifest.graphs.iter().zip(package.graphs);
    let found = named.into_iter().find(|(entry, _)| entry.precision == Precision::Int8);
    found.map(|(_, graph)| graph.onnx).context("the package has no int8 graph")
}

/// Compares the weights of two int8 graphs of one shape.
pub fn moved(old: &[u8], new: &[u8]) -> anyhow::Result<Moved> {
    let (old, new) = (weights(old)?, weights(new)?);
    ensure!(old.len() == new.len() && !new.is_empty(), "{} and {} int8 weights", old.len(), new.len());
    let far: Vec<u8> = old.iter().zip(&new).map(|(old, new)| old.abs_diff(*new)).filter(|far| *far > 0).collect();
    let total: u64 = far.iter().map(|far| u64::from(*far)).sum();
    Ok(Moved {
        weights: new.len(),
        share: far.len() as f64 / new.len() as f64,
        steps: total as f64 / far.len().max(1) as f64,
    })
}

/// Matrices of signed bytes, one after the other. Zero points, of one axis or none, are no weights.
fn weights(onnx: &[u8]) -> anyhow::Result<Vec<i8>> {
    let graph = Graph::from_bytes(onnx).context("the int8 graph")?;
    let matrices = graph.initializers.iter().filter(|initializer| initializer.tensor.shape.len() > 1);
    Ok(matrices
        .filter_map(|initializer| match &initializer.tensor.data {
            Data::I8(values) => Some(values.as_slice()),
            _ => None,
        })
        .flatten()
        .copied()
        .collect())
}
