//! The engine on the CPU: tract.
//!
//! A plan is prepared per batch size, because tract plans best for sizes it knows; a call takes the largest plans that
//! fit. Each plan keeps the states of finished runs, so that a call in steady state builds nothing anew.

use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::SimpleState;
use tributary_release::Package;

use crate::engine::check_shape;
use crate::{Engine, InferenceError};

/// Name of the engine on the CPU.
pub const CPU_ENGINE: &str = NAME;
const NAME: &str = "tract";
/// Largest first. One row must always be possible.
const BATCHES: [usize; 3] = [64, 8, 1];
/// Every plan holds its own packed weights: graphs above this size run row by row and spend the memory once.
const MAX_BATCHED_BYTES: usize = 8 << 20;

type State = SimpleState<TypedFact, Box<dyn TypedOp>>;

/// Loads an ONNX file with one input of shape `[N, features]` and one output with one or more values per row.
pub fn load_cpu(onnx: &[u8], features: usize) -> Result<Box<dyn Engine>, InferenceError> {
    let load = |error: TractError| InferenceError::Load { engine: NAME, reason: format!("{error:#}") };
    let model = tract_onnx::onnx().model_for_read(&mut &onnx[..]).map_err(load)?;
    if (model.inputs.len(), model.outputs.len()) != (1, 1) {
        let reason = format!("{} inputs and {} outputs, expected one each", model.inputs.len(), model.outputs.len());
        return Err(InferenceError::Load { engine: NAME, reason });
    }
    let one = Plan::prepare(&model, 1, features).map_err(load)?;
    let outputs = one.outputs;
    let mut plans = Vec::new();
    if onnx.len() <= MAX_BATCHED_BYTES {
        // A graph that fixes its batch at one row is still useful.
        let larger = BATCHES.iter().filter(|batch| **batch > 1);
        let larger = larger.filter_map(|batch| Plan::prepare(&model, *batch, features).ok());
        plans.extend(larger.filter(|plan| plan.outputs == outputs));
    }
    plans.push(one);
    Ok(Box::new(Tract { features, outputs, plans }))
}

/// The ONNX operators that the engine on the CPU knows, sorted. Whether it takes their attributes shows when a graph is
/// loaded.
pub fn cpu_operators() -> Vec<String> {
    let mut operators: Vec<String> = tract_onnx::onnx().op_register.0.into_keys().collect();
    operators.sort_unstable();
    operators
}

/// Loads the graph that a package serves.
pub fn load_served(package: &Package) -> Result<Box<dyn Engine>, InferenceError> {
    load_cpu(&package.served().onnx, package.manifest.features.len())
}

struct Tract {
    features: usize,
    outputs: usize,
    /// Largest batch first; the last one has batch 1.
    plans: Vec<Plan>,
}

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn features(&self) -> usize {
        self.features
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn predict(&self, rows: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), InferenceError> {
        check_shape(rows, n, self.features)?;
        out.clear();
        out.reserve(n * self.outputs);
        let mut done = 0;
        while done < n {
            let plan = self.plans.iter().find(|plan| plan.batch <= n - done).expect("the last plan takes one row");
            let chunk = &rows[done * self.features..][..plan.batch * self.features];
            let run = plan.run(chunk, self.features, out);
            run.map_err(|error| InferenceError::Run { engine: NAME, reason: format!("{error:#}") })?;
            done += plan.batch;
        }
        Ok(())
    }
}

struct Plan {
    batch: usize,
    /// Values per row.
    outputs: usize,
    plan: Arc<TypedSimplePlan>,
    /// As many as calls have run at the same time.
    idle: Mutex<Vec<State>>,
}

impl Plan {
    fn prepare(model: &InferenceModel, batch: usize, features: usize) -> TractResult<Self> {
        let fact = InferenceFact::dt_shape(f32::datum_type(), tvec!(batch, features));
        let plan = model.clone().with_input_fact(0, fact)?.into_optimized()?.into_runnable()?;
        let mut prepared = Self { batch, outputs: 0, plan, idle: Mutex::default() };
        // The first run settles shapes and finds what only fails when it runs.
        let mut out = Vec::new();
        prepared.run(&vec![0.0; batch * features], features, &mut out)?;
        if out.is_empty() || out.len() % batch != 0 {
            return Err(TractError::msg(format!("{} output values for {batch} rows", out.len())));
        }
        prepared.outputs = out.len() / batch;
        Ok(prepared)
    }

    fn run(&self, rows: &[f32], features: usize, out: &mut Vec<f32>) -> TractResult<()> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = match idle {
            Some(state) => state,
            None => self.plan.spawn()?,
        };
        let input = Tensor::from_shape(&[self.batch, features], rows)?;
        // After an error the state is dropped: whatever it held is not worth keeping.
        let outputs = state.run(tvec!(input.into()))?;
        out.extend_from_slice(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(state);
        Ok(())
    }
}
