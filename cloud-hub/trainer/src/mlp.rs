//! The net in burn: several members of one shape, side by side along the first axis of every tensor.

use burn::module::{Module, Param, ParamId};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::activation::{log_sigmoid, relu};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Members see the same rows and differ only in their initial weights and dropout.
#[derive(Module, Debug)]
pub struct Mlp {
    weights: Vec<Param<Tensor<3>>>,
    biases: Vec<Param<Tensor<3>>>,
    dropout: Dropout,
}

/// Weights of one layer of one member, as plain numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// Row by row, a row per input.
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

impl Mlp {
    /// Draws initial weights; `prior` is the log odds of a positive that the net starts with.
    pub fn new(
        inputs: usize,
        hidden: &[usize],
        members: usize,
        dropout: f64,
        prior: f32,
        seed: u64,
        device: &Device,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        let mut from = inputs;
        for (at, to) in hidden.iter().copied().chain([1]).enumerate() {
            // He's uniform initialisation keeps the spread of activations through the ReLUs.
            let bound = (6.0 / from as f32).sqrt() * if at == hidden.len() { 0.3 } else { 1.0 };
            let weight: Vec<f32> = (0..members * from * to).map(|_| rng.random_range(-bound..bound)).collect();
            let bias = vec![if at == hidden.len() { prior } else { 0.0 }; members * to];
            weights.push(Param::from_data(TensorData::new(weight, [members, from, to]), device));
            biases.push(Param::from_data(TensorData::new(bias, [members, 1, to]), device));
            from = to;
        }
        Self { weights, biases, dropout: DropoutConfig::new(dropout).init() }
    }

    /// With these weights: layer by layer, in each one entry per member.
    pub fn of_layers(layers: &[Vec<Layer>], dropout: f64, device: &Device) -> Self {
        let parameter = |members: &[Layer], shape: [usize; 2], of: fn(&Layer) -> &[f32]| {
            let values: Vec<f32> = members.iter().flat_map(of).copied().collect();
            Param::from_data(TensorData::new(values, [members.len(), shape[0], shape[1]]), device)
        };
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for members in layers {
            let Layer { inputs, outputs, .. } = members[0];
            weights.push(parameter(members, [inputs, outputs], |layer| &layer.weight));
            biases.push(parameter(members, [1, outputs], |layer| &layer.bias));
        }
        Self { weights, biases, dropout: DropoutConfig::new(dropout).init() }
    }

    /// The parameters of the last layer.
    pub fn last_layer(&self) -> Vec<ParamId> {
        [self.weights.last(), self.biases.last()].into_iter().flatten().map(|parameter| parameter.id).collect()
    }

    /// Logits of every member for prepared rows: members × rows × 1.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<3> {
        let [members, ..] = self.weights[0].dims();
        let [count, width] = rows.dims();
        let mut x = rows.unsqueeze::<3>().expand([members, count, width]);
        let last = self.weights.len() - 1;
        for (at, (weight, bias)) in self.weights.iter().zip(&self.biases).enumerate() {
            x = x.matmul(weight.val()) + bias.val();
            if at < last {
                x = self.dropout.forward(relu(x));
            }
        }
        x
    }

    /// Mean logit over the members: one per row.
    pub fn mean_logits(&self, rows: Tensor<2>) -> Vec<f32> {
        values(self.forward(rows).mean_dim(0))
    }

    /// Weighted mean of the log loss, summed over the members; weights have mean 1.
    pub fn loss(&self, rows: Tensor<2>, labels: Tensor<3>, weights: Tensor<3>) -> Tensor<1> {
        let logits = self.forward(rows);
        let [_, count, _] = logits.dims();
        let loss = -log_sigmoid(-logits.clone()) - logits * labels;
        (loss * weights).sum() / count as f32
    }

    /// Weights as plain numbers: layer by layer, in each one entry per member.
    pub fn layers(&self) -> Vec<Vec<Layer>> {
        let layer = |(weight, bias): (&Param<Tensor<3>>, &Param<Tensor<3>>)| {
            let [members, inputs, outputs] = weight.dims();
            let (weight, bias) = (values(weight.val()), values(bias.val()));
            let member = |at: usize| Layer {
                inputs,
                outputs,
                weight: weight[at * inputs * outputs..][..inputs * outputs].to_vec(),
                bias: bias[at * outputs..][..outputs].to_vec(),
            };
            (0..members).map(member).collect()
        };
        self.weights.iter().zip(&self.biases).map(layer).collect()
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().expect("every tensor here is f32")
}
