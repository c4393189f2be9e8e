//! What a package says it requires, against what its served graph contains: a device decides by the former whether it
//! fetches the package at all.

use tributary_inference::onnx::operators_in;
use tributary_release::Package;

use super::RegistryError;

/// Refuses a package whose served graph cannot be read, or uses operators that the package does not require.
pub fn check(package: &Package) -> Result<(), RegistryError> {
    let served = package.served();
    let graph = served.name.clone();
    let used = operators_in(&served.onnx);
    let used = used.map_err(|problem| RegistryError::Graph { graph: graph.clone(), problem: problem.to_string() })?;
    let declared = &package.manifest.requires.operators;
    let operators: Vec<String> = used.into_iter().filter(|operator| !declared.contains(operator)).collect();
    if operators.is_empty() { Ok(()) } else { Err(RegistryError::Undeclared { graph, operators }) }
}
