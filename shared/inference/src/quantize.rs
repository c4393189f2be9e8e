//! Static int8 quantisation in QDQ form: every matrix product between a Quantize/Dequantize pair on its input and
//! dequantised int8 weights. What stands before the first product (standardisation) stays f32, as do biases.

use std::collections::{BTreeSet, HashMap};

use crate::onnx::{EvaluateError, Graph, GraphError, Node, Op, Tensor};

/// How the range of an activation follows from the calibration rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// From the lowest to the highest value seen.
    MinMax,
    /// Without the outermost values: the range that holds this share of them, such as 0.9999.
    Central(f64),
}

/// How to quantise.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How activations are calibrated.
    pub range: Range,
    /// One weight scale per output channel instead of one per matrix.
    pub per_channel: bool,
    /// Evens out the columns of the first product's input, so that one column with a long tail does not take the
    /// resolution of all others. Costs one multiplication per column; the function computed is the same.
    pub equalize: bool,
    /// Which products stay f32, counted from 0 in the order of the graph.
    pub keep_f32: BTreeSet<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { range: Range::MinMax, per_channel: true, equalize: true, keep_f32: BTreeSet::new() }
    }
}

/// Why a graph cannot be quantised.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// Nothing to calibrate with.
    #[error("no calibration rows")]
    NoRows,
    /// A share outside of 0 to 1.
    #[error("a range cannot hold the share {found} of all values, expected above 0 and at most 1")]
    Share {
        /// As given.
        found: f64,
    },
    /// No product with constant weights, so nothing would become int8.
    #[error("the graph has no matrix product with constant weights to quantise")]
    NothingToQuantize,
    /// Calibration rows lead to values that are not numbers.
    #[error("calibration gives {value:?} values that are not finite")]
    NotFinite {
        /// Which value of the graph.
        value: String,
    },
    /// The graph is inconsistent.
    #[error("graph to quantise")]
    Graph(#[from] GraphError),
    /// The graph cannot be evaluated on the calibration rows.
    #[error("calibration")]
    Evaluate(#[from] EvaluateError),
}

/// The int8 form of a graph, calibrated on `n` rows.
pub fn to_qdq(graph: &Graph, rows: &[f32], n: usize, options: &Options) -> Result<Graph, QuantizeError> {
    graph.check()?;
    if n == 0 {
        return Err(QuantizeError::NoRows);
    }
    if let Range::Central(found) = options.range
        && !(found > 0.0 && found <= 1.0)
    {
        return Err(QuantizeError::Share { found });
    }
    let seen = graph.evaluate_all(rows, n)?;
    let mut quantizer = Quantizer { seen: &seen, options, out: Graph { nodes: Vec::new(), ..graph.clone() } };
    let mut products = 0;
    let mut quantized = 0;
    // Names of nodes still to come must not be taken by new ones.
    for node in &graph.nodes {
        match product_weights(graph, node) {
            Some(weights) => {
                if options.keep_f32.contains(&products) {
                    quantizer.out.nodes.push(node.clone());
                } else {
                    quantizer.product(node, weights, options.equalize && products == 0)?;
                    quantized += 1;
                }
                products += 1;
            }
            None => quantizer.out.nodes.push(node.clone()),
        }
    }
    if quantized == 0 {
        return Err(QuantizeError::NothingToQuantize);
    }
    let mut out = quantizer.out;
    let used: BTreeSet<String> = out.nodes.iter().flat_map(|node| node.inputs.clone()).collect();
    out.initializers.retain(|it| used.contains(&it.name) || it.name == out.output);
    out.check()?;
    Ok(out)
}

/// The constant matrix of a product, when it has one.
fn product_weights<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let is_product = matches!(node.op, Op::Gemm { .. } | Op::MatMul);
    let weights = graph.initializer(node.inputs.get(1).filter(|_| is_product)?)?;
    (weights.shape.len() == 2 && weights.as_f32().is_some()).then_some(weights)
}

struct Quantizer<'a> {
    seen: &'a HashMap<String, Tensor>,
    options: &'a Options,
    out: Graph,
}

impl Quantizer<'_> {
    fn product(&mut self, node: &Node, weights: &Tensor, equalize: bool) -> Result<(), QuantizeError> {
        let trans_b = matches!(node.op, Op::Gemm { trans_b: true, .. });
        let mut matrix = Matrix::new(weights, trans_b);
        let name = &node.inputs[0];
        let mut input = name.clone();
        let mut values = self.seen.get(name).and_then(Tensor::as_f32).unwrap_or_default().to_vec();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return Err(QuantizeError::NotFinite { value: name.clone() });
        }
        if equalize {
            let factors = matrix.equalize(&mut values, self.options.range);
            let factors = self.constant(&format!("{name}_equalize"), Tensor::f32(&[factors.len()], factors));
            input = self.push(Op::Mul, &[&input, &factors], &format!("{name}_even"));
        }
        let input = self.activation(&input, &values);
        let weights = self.weights(&matrix, &node.inputs[1]);
        let mut inputs = vec![input, weights];
        inputs.extend(node.inputs[2..].iter().cloned());
        self.out.nodes.push(Node { op: node.op.clone(), inputs, output: node.output.clone() });
        Ok(())
    }

    /// A Quantize/Dequantize pair on an activation.
    fn activation(&mut self, input: &str, values: &[f32]) -> String {
        let (low, high) = range(values.to_vec(), self.options.range);
        // Zero must have an exact form: padding and the output of Relu are full of it.
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = step((high - low) / 255.0);
        let zero = (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        let scale = self.constant(&format!("{input}_scale"), Tensor::scalar(scale));
        let zero = self.constant(&format!("{input}_zero"), Tensor::i8(&[], vec![zero]));
        let quantized = self.push(Op::QuantizeLinear { axis: 1 }, &[input, &scale, &zero], &format!("{input}_q"));
        self.push(Op::DequantizeLinear { axis: 1 }, &[&quantized, &scale, &zero], &format!("{input}_dq"))
    }

    /// Int8 weights and the node that makes floats of them.
    fn weights(&mut self, matrix: &Matrix, name: &str) -> String {
        let (scales, values) = matrix.quantize(self.options.per_channel);
        let per_channel = if self.options.per_channel { vec![scales.len()] } else { Vec::new() };
        let zeros = self.constant(&format!("{name}_zero"), Tensor::i8(&per_channel, vec![0; scales.len()]));
        let scales = self.constant(&format!("{name}_scale"), Tensor::f32(&per_channel, scales));
        let weights = self.constant(&format!("{name}_q"), Tensor::i8(&matrix.shape, values));
        let axis = matrix.output_axis();
        self.push(Op::DequantizeLinear { axis }, &[&weights, &scales, &zeros], &format!("{name}_dq"))
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> String {
        let name = self.free_name(name);
        self.out.constant(&name, tensor)
    }

    fn push(&mut self, op: Op, inputs: &[&str], name: &str) -> String {
        let output = self.free_name(name);
        let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
        self.out.nodes.push(Node { op, inputs, output: output.clone() });
        output
    }

    /// A name that neither the new graph nor the part of the old one still to come uses.
    fn free_name(&self, wanted: &str) -> String {
        let mut name = self.out.free_name(wanted);
        while self.seen.contains_key(&name) {
            name = self.out.free_name(&format!("{name}_"));
        }
        name
    }
}

/// The lowest and highest value, without the outermost if the rule says so.
fn range(mut values: Vec<f32>, rule: Range) -> (f32, f32) {
    values.sort_unstable_by(f32::total_cmp);
    let last = values.len() - 1;
    let outside = match rule {
        Range::MinMax => 0,
        // At least one on each side: with few rows, one broken value would otherwise set the range alone.
        Range::Central(share) => (((1.0 - share) / 2.0 * last as f64).ceil() as usize).min(last / 2),
    };
    (values[outside], values[last - outside])
}

/// A scale that can be divided by.
fn step(scale: f32) -> f32 {
    if scale.is_normal() { scale } else { 1.0 }
}

/// Weights of a product, whichever way round they are stored.
struct Matrix {
    shape: Vec<usize>,
    values: Vec<f32>,
    trans_b: bool,
}

impl Matrix {
    fn new(weights: &Tensor, trans_b: bool) -> Self {
        Self { shape: weights.shape.clone(), values: weights.as_f32().unwrap_or_default().to_vec(), trans_b }
    }

    fn output_axis(&self) -> i64 {
        if self.trans_b { 0 } else { 1 }
    }

    /// Input column and output channel of the value at `place`.
    fn place(&self, place: usize) -> (usize, usize) {
        let (row, column) = (place / self.shape[1], place % self.shape[1]);
        if self.trans_b { (column, row) } else { (row, column) }
    }

    /// Divides the input columns by factors and multiplies their weights with them, so that columns reach equally far.
    /// The factor balances the reach of a column against that of its weights; both lose resolution alike. Returns the
    /// reciprocals, with which the input is to be multiplied.
    fn equalize(&mut self, inputs: &mut [f32], rule: Range) -> Vec<f32> {
        let columns = if self.trans_b { self.shape[1] } else { self.shape[0] };
        let mut weight_reach = vec![0.0f32; columns];
        for (place, value) in self.values.iter().enumerate() {
            let column = self.place(place).0;
            weight_reach[column] = weight_reach[column].max(value.abs());
        }
        let reciprocals: Vec<f32> = (0..columns)
            .map(|column| {
                let (low, high) = range(inputs.iter().skip(column).step_by(columns).copied().collect(), rule);
                let reach = low.abs().max(high.abs());
                1.0 / step((reach / step(weight_reach[column])).sqrt())
            })
            .collect();
        for (place, value) in inputs.iter_mut().enumerate() {
            *value *= reciprocals[place % columns];
        }
        for place in 0..self.values.len() {
            let column = self.place(place).0;
            self.values[place] /= reciprocals[column];
        }
        reciprocals
    }

    /// Symmetric int8: scales and values.
    fn quantize(&self, per_channel: bool) -> (Vec<f32>, Vec<i8>) {
        let channels = if per_channel { self.shape[self.output_axis() as usize] } else { 1 };
        let channel = |place: usize| if per_channel { self.place(place).1 } else { 0 };
        let mut scales = vec![0.0f32; channels];
        for (place, value) in self.values.iter().enumerate() {
            let scale = &mut scales[channel(place)];
            *scale = scale.max(value.abs());
        }
        scales.iter_mut().for_each(|scale| *scale = step(*scale / 127.0));
        let values = self.values.iter().enumerate();
        let values = values.map(|(place, value)| (value / scales[channel(place)]).round_ties_even() as i8);
        (scales.clone(), values.collect())
    }
}
