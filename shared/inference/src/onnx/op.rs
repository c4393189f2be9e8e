//! The operators.

/// An operator with its attributes. Inputs that ONNX calls optional are left out at the end only.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `alpha * A B + beta * C`; B is transposed when `trans_b`. Inputs: A, B and, if any, C.
    Gemm {
        /// Factor of the product.
        alpha: f32,
        /// Factor of C.
        beta: f32,
        /// Whether B is given as `[out, in]`.
        trans_b: bool,
    },
    /// Product of two matrices.
    MatMul,
    /// `a + b`, broadcast.
    Add,
    /// `a - b`, broadcast.
    Sub,
    /// `a * b`, broadcast.
    Mul,
    /// `a / b`, broadcast.
    Div,
    /// The lower of two, broadcast.
    Min,
    /// The higher of two, broadcast.
    Max,
    /// `max(x, 0)`.
    Relu,
    /// `x` where it is positive, `alpha * x` elsewhere.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `exp(x)`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// Absolute value.
    Abs,
    /// `-x`.
    Neg,
    /// -1, 0 or 1.
    Sign,
    /// `x`.
    Identity,
    /// Inputs: x, lowest, highest.
    Clip,
    /// Inputs side by side along an axis.
    Concat {
        /// Which axis.
        axis: i64,
    },
    /// Those columns (axis 1) that the constant indices name. Inputs: x, indices.
    Gather {
        /// Which axis.
        axis: i64,
    },
    /// Shares that add up to 1 along an axis.
    Softmax {
        /// Which axis.
        axis: i64,
    },
    /// `saturate(round(x / scale) + zero_point)`. Inputs: x, scale, zero point, whose type decides that of the output.
    QuantizeLinear {
        /// The axis of the scales, when there is one per channel.
        axis: i64,
    },
    /// `(x - zero_point) * scale`. Inputs: x, scale, zero point.
    DequantizeLinear {
        /// The axis of the scales, when there is one per channel.
        axis: i64,
    },
}

impl Op {
    /// Its name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gemm { .. } => "Gemm",
            Self::MatMul => "MatMul",
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
            Self::Min => "Min",
            Self::Max => "Max",
            Self::Relu => "Relu",
            Self::LeakyRelu { .. } => "LeakyRelu",
            Self::Sigmoid => "Sigmoid",
            Self::Tanh => "Tanh",
            Self::Exp => "Exp",
            Self::Log => "Log",
            Self::Sqrt => "Sqrt",
            Self::Abs => "Abs",
            Self::Neg => "Neg",
            Self::Sign => "Sign",
            Self::Identity => "Identity",
            Self::Clip => "Clip",
            Self::Concat { .. } => "Concat",
            Self::Gather { .. } => "Gather",
            Self::Softmax { .. } => "Softmax",
            Self::QuantizeLinear { .. } => "QuantizeLinear",
            Self::DequantizeLinear { .. } => "DequantizeLinear",
        }
    }

    /// The least and the greatest number of inputs.
    pub fn inputs(&self) -> (usize, usize) {
        match self {
            Self::Gemm { .. } => (2, 3),
            Self::MatMul | Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Min | Self::Max => (2, 2),
            Self::Gather { .. } => (2, 2),
            Self::Clip | Self::QuantizeLinear { .. } | Self::DequantizeLinear { .. } => (3, 3),
            Self::Concat { .. } => (1, 64),
            _ => (1, 1),
        }
    }
}
