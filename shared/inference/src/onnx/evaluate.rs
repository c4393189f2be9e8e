//! The plain evaluator: every operator as the standard describes it, nothing merged, nothing vectorised by hand.

use std::collections::HashMap;

use super::{Data, Graph, Node, Op, Tensor};

/// Why a graph cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The rows have another width than the graph's input.
    #[error("{found} values are no {rows} rows of {width}")]
    Rows {
        /// How many rows were announced.
        rows: usize,
        /// The width of the input.
        width: usize,
        /// How many values there were.
        found: usize,
    },
    /// The inputs of a node do not fit together.
    #[error("{op} ({output}): {problem}")]
    Node {
        /// Which operator.
        op: &'static str,
        /// The value it makes.
        output: String,
        /// What is wrong.
        problem: String,
    },
    /// A name that nothing makes.
    #[error("nothing makes {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
}

impl Graph {
    /// The outputs of `n` rows.
    pub fn evaluate(&self, rows: &[f32], n: usize) -> Result<Vec<f32>, EvaluateError> {
        let mut values = self.evaluate_all(rows, n)?;
        let unknown = || EvaluateError::Unknown { name: self.output.clone() };
        match values.remove(&self.output).ok_or_else(unknown)?.data {
            Data::F32(values) => Ok(values),
            _ => Err(unknown()),
        }
    }

    /// Every value that the graph makes from `n` rows, by name.
    pub(crate) fn evaluate_all(&self, rows: &[f32], n: usize) -> Result<HashMap<String, Tensor>, EvaluateError> {
        if n.checked_mul(self.width) != Some(rows.len()) {
            return Err(EvaluateError::Rows { rows: n, width: self.width, found: rows.len() });
        }
        let mut values: HashMap<String, Tensor> =
            self.initializers.iter().map(|it| (it.name.clone(), it.tensor.clone())).collect();
        values.insert(self.input.clone(), Tensor::f32(&[n, self.width], rows.to_vec()));
        for Node { op, inputs, output } in &self.nodes {
            let get = |name: &String| values.get(name).ok_or_else(|| EvaluateError::Unknown { name: name.clone() });
            let inputs = inputs.iter().map(get).collect::<Result<Vec<_>, _>>()?;
            let made = step(op, &inputs).map_err(|problem| {
                let output = output.clone();
                EvaluateError::Node { op: op.name(), output, problem }
            })?;
            values.insert(output.clone(), made);
        }
        Ok(values)
    }
}

fn step(op: &Op, inputs: &[&Tensor]) -> Result<Tensor, String> {
    let (least, most) = op.inputs();
    if !(least..=most).contains(&inputs.len()) {
        return Err(format!("{} inputs, expected {least} to {most}", inputs.len()));
    }
    match op {
        Op::Gemm { alpha, beta, trans_b } => {
            let product = product(inputs[0], inputs[1], *trans_b)?;
            let product = map(&product, |x| alpha * x)?;
            match inputs.get(2) {
                Some(addend) => broadcast(&product, addend, |x, c| x + beta * c),
                None => Ok(product),
            }
        }
        Op::MatMul => product(inputs[0], inputs[1], false),
        Op::Add => broadcast(inputs[0], inputs[1], |a, b| a + b),
        Op::Sub => broadcast(inputs[0], inputs[1], |a, b| a - b),
        Op::Mul => broadcast(inputs[0], inputs[1], |a, b| a * b),
        Op::Div => broadcast(inputs[0], inputs[1], |a, b| a / b),
        Op::Min => broadcast(inputs[0], inputs[1], f32::min),
        Op::Max => broadcast(inputs[0], inputs[1], f32::max),
        Op::Relu => map(inputs[0], |x| x.max(0.0)),
        Op::LeakyRelu { alpha } => map(inputs[0], |x| if x < 0.0 { alpha * x } else { x }),
        Op::Sigmoid => map(inputs[0], |x| 1.0 / (1.0 + (-x).exp())),
        Op::Tanh => map(inputs[0], f32::tanh),
        Op::Exp => map(inputs[0], f32::exp),
        Op::Log => map(inputs[0], f32::ln),
        Op::Sqrt => map(inputs[0], f32::sqrt),
        Op::Abs => map(inputs[0], f32::abs),
        Op::Neg => map(inputs[0], |x| -x),
        Op::Sign => map(inputs[0], |x| if x == 0.0 { 0.0 } else { x.signum() }),
        Op::Identity => Ok(inputs[0].clone()),
        Op::Clip => {
            let (low, high) = (single(inputs[1])?, single(inputs[2])?);
            map(inputs[0], |x| x.max(low).min(high))
        }
        Op::Concat { axis } => concat(inputs, *axis),
        Op::Gather { axis } => gather(inputs[0], inputs[1], *axis),
        Op::Softmax { axis } => softmax(inputs[0], *axis),
        Op::QuantizeLinear { axis } => quantize(inputs[0], inputs[1], inputs[2], *axis),
        Op::DequantizeLinear { axis } => dequantize(inputs[0], inputs[1], inputs[2], *axis),
    }
}

fn floats(tensor: &Tensor) -> Result<&[f32], String> {
    tensor.as_f32().ok_or_else(|| format!("values of type {}, expected f32", tensor.data.kind()))
}

fn single(tensor: &Tensor) -> Result<f32, String> {
    match floats(tensor)? {
        [value] => Ok(*value),
        values => Err(format!("{} values, expected one", values.len())),
    }
}

fn map(tensor: &Tensor, f: impl Fn(f32) -> f32) -> Result<Tensor, String> {
    Ok(Tensor::f32(&tensor.shape, floats(tensor)?.iter().map(|x| f(*x)).collect()))
}

fn broadcast(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let rank = a.shape.len().max(b.shape.len());
    let padded = |shape: &[usize]| [vec![1; rank - shape.len()], shape.to_vec()].concat();
    let (left, right) = (padded(&a.shape), padded(&b.shape));
    let shape = left.iter().zip(&right).map(|pair| match pair {
        (&x, &y) if x == y || y == 1 => Ok(x),
        (1, &y) => Ok(y),
        _ => Err(format!("shapes {:?} and {:?} do not broadcast", a.shape, b.shape)),
    });
    let shape = shape.collect::<Result<Vec<usize>, _>>()?;
    let (x, y) = (floats(a)?, floats(b)?);
    let values =
        (0..shape.iter().product()).map(|place| f(x[source(place, &shape, &left)], y[source(place, &shape, &right)]));
    Ok(Tensor::f32(&shape, values.collect()))
}

/// Where the value for `place` of a tensor of `shape` lies in one of `from`, whose axes of length 1 are stretched.
fn source(mut place: usize, shape: &[usize], from: &[usize]) -> usize {
    let (mut index, mut stride) = (0, 1);
    for (&axis, &length) in shape.iter().zip(from).rev() {
        if length != 1 {
            index += place % axis * stride;
        }
        place /= axis;
        stride *= length;
    }
    index
}

fn product(a: &Tensor, b: &Tensor, trans_b: bool) -> Result<Tensor, String> {
    let ([n, k], [b0, b1]) = (&a.shape[..], &b.shape[..]) else {
        return Err(format!("shapes {:?} and {:?}, expected two matrices", a.shape, b.shape));
    };
    let (inner, m) = if trans_b { (*b1, *b0) } else { (*b0, *b1) };
    if inner != *k {
        return Err(format!("shapes {:?} and {:?} do not multiply (transposed: {trans_b})", a.shape, b.shape));
    }
    let (x, w) = (floats(a)?, floats(b)?);
    let weight = |row: usize, column: usize| if trans_b { w[column * k + row] } else { w[row * m + column] };
    let mut values = Vec::with_capacity(n * m);
    for row in x.chunks_exact((*k).max(1)) {
        values.extend((0..m).map(|column| row.iter().enumerate().map(|(i, x)| x * weight(i, column)).sum::<f32>()));
    }
    Ok(Tensor::f32(&[*n, m], values))
}

/// A tensor seen along one axis: how many blocks, how long the axis, how many values behind each of its places.
fn along(shape: &[usize], axis: i64) -> Result<(usize, usize, usize, usize), String> {
    let place = if axis < 0 { axis + shape.len() as i64 } else { axis };
    match usize::try_from(place) {
        Ok(place) if place < shape.len() => {
            Ok((place, shape[..place].iter().product(), shape[place], shape[place + 1..].iter().product()))
        }
        _ => Err(format!("axis {axis} of shape {shape:?}")),
    }
}

fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor, String> {
    let (place, blocks, _, _) = along(&inputs[0].shape, axis)?;
    let mut shape = inputs[0].shape.clone();
    shape[place] = 0;
    for input in inputs {
        let fits =
            input.shape.len() == shape.len() && (0..shape.len()).all(|i| i == place || input.shape[i] == shape[i]);
        if !fits {
            return Err(format!("shape {:?} beside {:?}", input.shape, inputs[0].shape));
        }
        shape[place] += input.shape[place];
    }
    let mut values = Vec::new();
    for block in 0..blocks {
        for input in inputs {
            let length = input.data.len() / blocks;
            values.extend_from_slice(&floats(input)?[block * length..][..length]);
        }
    }
    Ok(Tensor::f32(&shape, values))
}

fn gather(x: &Tensor, indices: &Tensor, axis: i64) -> Result<Tensor, String> {
    let Data::I64(wanted) = &indices.data else { return Err(format!("indices of type {}", indices.data.kind())) };
    let (place, blocks, length, inner) = along(&x.shape, axis)?;
    let values = floats(x)?;
    let mut found = Vec::new();
    for block in 0..blocks {
        for &index in wanted {
            let index = usize::try_from(if index < 0 { index + length as i64 } else { index }).ok();
            let index = index.filter(|index| *index < length).ok_or_else(|| format!("index outside of {length}"))?;
            found.extend_from_slice(&values[(block * length + index) * inner..][..inner]);
        }
    }
    let shape = [&x.shape[..place], &indices.shape, &x.shape[place + 1..]].concat();
    Ok(Tensor::f32(&shape, found))
}

fn softmax(x: &Tensor, axis: i64) -> Result<Tensor, String> {
    let (_, blocks, length, inner) = along(&x.shape, axis)?;
    let mut values = floats(x)?.to_vec();
    for block in 0..blocks {
        for offset in 0..inner {
            let place = |i: usize| (block * length + i) * inner + offset;
            let highest = (0..length).map(|i| values[place(i)]).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = (0..length).map(|i| (values[place(i)] - highest).exp()).sum();
            (0..length).for_each(|i| values[place(i)] = (values[place(i)] - highest).exp() / sum);
        }
    }
    Ok(Tensor::f32(&x.shape, values))
}

/// The scale and zero point for each place of `x`: one for all, or one per place of the axis.
fn scales<'a>(
    x: &Tensor,
    scale: &'a Tensor,
    zero_point: &'a Tensor,
    axis: i64,
) -> Result<impl Fn(usize) -> (f32, i32) + 'a, String> {
    let (_, _, length, inner) = if x.shape.is_empty() {
        (0, 1, 1, 1)
    } else {
        along(&x.shape, axis).or_else(|error| if scale.data.len() == 1 { Ok((0, 1, 1, 1)) } else { Err(error) })?
    };
    let (scale, zeros) = (floats(scale)?, zero_point);
    if scale.len() != zeros.data.len() || !(scale.len() == 1 || scale.len() == length) {
        return Err(format!("{} scales and {} zero points for {length}", scale.len(), zeros.data.len()));
    }
    if !matches!(zeros.data, Data::I8(_) | Data::U8(_)) {
        return Err(format!("zero point of type {}", zeros.data.kind()));
    }
    Ok(move |place: usize| {
        let channel = if scale.len() == 1 { 0 } else { place / inner % length };
        let zero = match &zeros.data {
            Data::I8(values) => i32::from(values[channel]),
            Data::U8(values) => i32::from(values[channel]),
            _ => 0,
        };
        (scale[channel], zero)
    })
}

fn quantize(x: &Tensor, scale: &Tensor, zero_point: &Tensor, axis: i64) -> Result<Tensor, String> {
    let scales = scales(x, scale, zero_point, axis)?;
    let values = floats(x)?.iter().enumerate().map(|(place, x)| {
        let (scale, zero) = scales(place);
        // To the nearest, halves to even; the conversion to an integer saturates.
        ((x / scale).round_ties_even() as i32).saturating_add(zero)
    });
    let data = match zero_point.data {
        Data::I8(_) => Data::I8(values.map(|value| value.clamp(-128, 127) as i8).collect()),
        _ => Data::U8(values.map(|value| value.clamp(0, 255) as u8).collect()),
    };
    Ok(Tensor { shape: x.shape.clone(), data })
}

fn dequantize(x: &Tensor, scale: &Tensor, zero_point: &Tensor, axis: i64) -> Result<Tensor, String> {
    let scales = scales(x, scale, zero_point, axis)?;
    let numbers: Vec<i32> = match &x.data {
        Data::I8(values) => values.iter().map(|value| i32::from(*value)).collect(),
        Data::U8(values) => values.iter().map(|value| i32::from(*value)).collect(),
        other => return Err(format!("values of type {}, expected i8 or u8", other.kind())),
    };
    let values = numbers.into_iter().enumerate().map(|(place, number)| {
        let (scale, zero) = scales(place);
        (number - zero) as f32 * scale
    });
    Ok(Tensor::f32(&x.shape, values.collect()))
}
