//! A package with the f32 weights of its graphs taken out and their bytes put into four planes.

use std::ops::Range;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tributary_inference::onnx::Graph;
use tributary_release::Package;

/// Shorter tensors are not worth a place in the table.
const LEAST: usize = 64;

/// How weights are told from the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Bit by bit.
    Xor,
    /// As integers.
    Subtract,
}

/// Where the weights lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    length: usize,
    weights: Vec<Range<usize>>,
}

/// A package in two parts.
pub struct Apart {
    table: Table,
    /// All but the weights.
    pub rest: Vec<u8>,
    planes: Vec<u8>,
}

impl Apart {
    /// Takes a package apart; with `old`, tensors of the same place and length as there become differences.
    pub fn of(file: &[u8], old: Option<(&[u8], Difference)>) -> anyhow::Result<Self> {
        let table = Table { length: file.len(), weights: find(file)? };
        let before = old.map(|(old, difference)| anyhow::Ok((old, find(old)?, difference))).transpose()?;
        let (mut rest, mut words, mut at) = (Vec::new(), Vec::new(), 0);
        for (number, range) in table.weights.iter().enumerate() {
            rest.extend(&file[at..range.start]);
            at = range.end;
            let like = before.as_ref().and_then(|(old, weights, difference)| {
                let like = weights.get(number).filter(|like| like.len() == range.len())?;
                Some((&old[like.clone()], *difference))
            });
            words.extend(combine(&file[range.clone()], like, false));
        }
        rest.extend(&file[at..]);
        let planes = (0..4).flat_map(|plane| words.iter().map(move |word: &u32| word.to_le_bytes()[plane])).collect();
        Ok(Self { table, rest, planes })
    }

    /// Both parts, one after the other.
    pub fn all(&self) -> Vec<u8> {
        [&self.rest[..], &self.planes].concat()
    }

    /// Where the weights belong, in front of a patch.
    pub fn table(&self) -> Vec<u8> {
        let text = serde_json::to_vec(&self.table).expect("numbers become JSON");
        [&(text.len() as u32).to_le_bytes()[..], &text].concat()
    }

    /// The table in front of a patch, and the patch.
    pub fn read_table(patch: &[u8]) -> anyhow::Result<(Table, &[u8])> {
        let (length, rest) = patch.split_first_chunk().context("no table")?;
        let (text, content) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).context("a cut table")?;
        Ok((serde_json::from_slice(text)?, content))
    }
}

impl Table {
    /// The package from both parts.
    pub fn together(&self, all: &[u8], old: Option<(&[u8], Difference)>) -> anyhow::Result<Vec<u8>> {
        let count = self.weights.iter().map(Range::len).sum::<usize>() / 4;
        ensure!(all.len() == self.length, "{} bytes, expected {}", all.len(), self.length);
        let (mut rest, planes) = all.split_at(self.length - 4 * count);
        let before = old.map(|(old, difference)| anyhow::Ok((old, find(old)?, difference))).transpose()?;
        let (mut file, mut first) = (Vec::with_capacity(self.length), 0);
        for (number, range) in self.weights.iter().enumerate() {
            let (between, left) = rest.split_at(range.start - file.len());
            file.extend(between);
            rest = left;
            let byte = |plane: usize, at: usize| planes[plane * count + first + at];
            let words: Vec<u8> =
                (0..range.len() / 4).flat_map(|at| [byte(0, at), byte(1, at), byte(2, at), byte(3, at)]).collect();
            first += range.len() / 4;
            let like = before.as_ref().and_then(|(old, weights, difference)| {
                let like = weights.get(number).filter(|like| like.len() == range.len())?;
                Some((&old[like.clone()], *difference))
            });
            file.extend(combine(&words, like, true).flat_map(u32::to_le_bytes));
        }
        file.extend(rest);
        Ok(file)
    }
}

fn combine<'a>(
    words: &'a [u8],
    old: Option<(&'a [u8], Difference)>,
    back: bool,
) -> impl Iterator<Item = u32> + use<'a> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (0..words.len() / 4).map(move |at| {
        let this = word(words, 4 * at);
        match old {
            None => this,
            Some((old, Difference::Xor)) => this ^ word(old, 4 * at),
            Some((old, Difference::Subtract)) if back => this.wrapping_add(word(old, 4 * at)),
            Some((old, Difference::Subtract)) => this.wrapping_sub(word(old, 4 * at)),
        }
    })
}

/// Where the f32 tensors of the graphs lie in the file, in order.
fn find(file: &[u8]) -> anyhow::Result<Vec<Range<usize>>> {
    let package = Package::read(file).context("the package")?;
    let mut found: Vec<Range<usize>> = Vec::new();
    for graph in &package.graphs {
        let read = Graph::from_bytes(&graph.onnx).context("a graph of the package")?;
        let mut at = place(file, &graph.onnx, 0).context("a graph in the package")?;
        for tensor in read.initializers.iter().filter_map(|initializer| initializer.tensor.as_f32()) {
            let bytes: Vec<u8> = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
            if tensor.len() < LEAST {
                continue;
            }
            let Some(start) = place(file, &bytes, at) else { continue };
            at = start + bytes.len();
            found.push(start..at);
        }
    }
    Ok(found)
}

fn place(file: &[u8], bytes: &[u8], from: usize) -> Option<usize> {
    let first = bytes.get(..bytes.len().min(32))?;
    let mut at = from;
    while let Some(found) = file.get(at..)?.windows(first.len()).position(|window| window == first) {
        if file[at + found..].starts_with(bytes) {
            return Some(at + found);
        }
        at += found + 1;
    }
    None
}
