//! What this device can run, gathered once at start.

use edge_agent_core::fit::{Capabilities, EngineCapability};
use tributary_inference::{CPU_ENGINE, cpu_operators};
use tributary_process::config::ByteSize;
use tributary_process::resources;

/// Asks the engines that are built in, and the system.
pub(crate) fn gather(package_memory: Option<ByteSize>) -> Capabilities {
    Capabilities {
        agent: crate::VERSION.to_owned(),
        engines: vec![EngineCapability { name: CPU_ENGINE.to_owned(), operators: cpu_operators() }],
        memory_bytes: resources::memory_of_machine(),
        agent_bytes: resources::memory().resident,
        package_memory: package_memory.map(|size| size.0),
        view_language: tributary_features::VIEW_LANGUAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_runs_what_the_trainer_exports() {
        let found = gather(Some(ByteSize(1 << 20)));
        for operator in ["Gemm", "MatMul", "Relu", "Sigmoid", "QuantizeLinear", "DequantizeLinear"] {
            assert!(found.engines[0].operators.iter().any(|it| it == operator), "{operator}");
        }
        assert_eq!(found.package_memory, Some(1 << 20));
        #[cfg(target_os = "linux")]
        assert!(found.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{:?}", found.memory_bytes);
    }
}
