//! Constant tensors of a graph.

/// A dense tensor, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Length of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// As many values as the shape says.
    pub data: Data,
}

/// The values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// Signed 8-bit.
    I8(Vec<i8>),
    /// Unsigned 8-bit.
    U8(Vec<u8>),
    /// Signed 64-bit: indices.
    I64(Vec<i64>),
}

impl Data {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the type, for errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::I8(_) => "i8",
            Self::U8(_) => "u8",
            Self::I64(_) => "i64",
        }
    }
}

impl Tensor {
    /// A tensor of 32-bit floats.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), data: Data::F32(values) }
    }

    /// A single 32-bit float.
    pub fn scalar(value: f32) -> Self {
        Self::f32(&[], vec![value])
    }

    /// A tensor of signed bytes.
    pub fn i8(shape: &[usize], values: Vec<i8>) -> Self {
        Self { shape: shape.to_vec(), data: Data::I8(values) }
    }

    /// A list of indices.
    pub fn indices(values: Vec<i64>) -> Self {
        Self { shape: vec![values.len()], data: Data::I64(values) }
    }

    /// The values, when they are 32-bit floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Data::F32(values) = &self.data { Some(values) } else { None }
    }
}
