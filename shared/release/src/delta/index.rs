//! Which patches there are, and which of them to take.

use serde::{Deserialize, Serialize};
use tributary_wire::Sha256;

use super::Format;

/// The longest index that is read: some three hundred entries.
pub const MAX_INDEX_BYTES: usize = 64 << 10;

/// The ways to one package, as the hub offers them. Unsigned: the package's hash decides about what came out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PatchIndex {
    /// In no particular order.
    pub patches: Vec<PatchEntry>,
}

/// One way to a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchEntry {
    /// The package it starts from; none for the whole package compressed.
    pub from: Option<Sha256>,
    /// Name of its [`Format`]; a reader passes over what it does not know.
    pub format: String,
    /// Length of the patch in bytes.
    pub length: u64,
    /// Hash of the patch.
    pub sha256: Sha256,
}

/// Why bytes are not an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Over the limit.
    #[error("the index of patches has {found} bytes, the limit is {MAX_INDEX_BYTES}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Not of this form.
    #[error("the index of patches")]
    Malformed(#[from] serde_json::Error),
}

impl PatchIndex {
    /// Reads `index.json`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() > MAX_INDEX_BYTES {
            return Err(IndexError::TooLong { found: bytes.len() });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Writes `index.json`.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("hashes, names and numbers become JSON")
    }
}

impl PatchEntry {
    /// Where it lies in the repository.
    pub fn path(&self, to: &Sha256) -> String {
        format!("patches/{to}/{}", self.file_name())
    }

    /// Its file there.
    pub fn file_name(&self) -> String {
        match &self.from {
            Some(from) => format!("{from}.{}", self.format),
            None => format!("full.{}", self.format),
        }
    }
}

/// Where the index of a package lies in the repository.
pub fn index_path(to: &Sha256) -> String {
    format!("patches/{to}/index.json")
}

/// How to get a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By this patch, or compressed.
    Patch(PatchEntry),
    /// As it is.
    Plain,
}

impl Way {
    /// In one word, for logs and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Patch(PatchEntry { from: Some(_), .. }) => "patch",
            Self::Patch(PatchEntry { from: None, .. }) => "compressed",
            Self::Plain => "plain",
        }
    }
}

/// The cheapest way to a package of `full_length` bytes: by a patch from one of `held`, compressed, or as it is. `failed`
/// are the hashes of patches that were tried for it already. At equal length a way that needs less comes first.
pub fn choose(held: &[Sha256], index: &PatchIndex, full_length: u64, failed: &[Sha256]) -> Way {
    let usable = |entry: &&PatchEntry| {
        let fits = match (Format::named(&entry.format), &entry.from) {
            (Some(_), None) => true,
            (Some(Format::Aligned), Some(from)) => held.contains(from),
            _ => false,
        };
        fits && entry.length > 0 && entry.length < full_length && !failed.contains(&entry.sha256)
    };
    let cheapest = index.patches.iter().filter(usable).min_by_key(|entry| (entry.length, entry.from));
    cheapest.map_or(Way::Plain, |entry| Way::Patch(entry.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(from: Option<u8>, format: &str, length: u64, name: u8) -> PatchEntry {
        PatchEntry {
            from: from.map(|byte| Sha256([byte; 32])),
            format: format.to_owned(),
            length,
            sha256: Sha256([name; 32]),
        }
    }

    #[test]
    fn the_cheapest_usable_way_is_taken_and_none_twice() {
        let all = [
            entry(Some(1), "aligned", 50, 11),
            entry(Some(2), "aligned", 20, 12),
            entry(None, "zst", 80, 13),
            entry(Some(1), "from-the-future", 5, 14),
            entry(None, "aligned", 90, 15),
            entry(Some(1), "zst", 1, 16),
            entry(Some(1), "aligned", 0, 17),
        ];
        let index = PatchIndex { patches: all.to_vec() };
        let held = |bytes: &[u8]| bytes.iter().map(|byte| Sha256([*byte; 32])).collect::<Vec<_>>();
        let taken = |held_bytes: &[u8], failed: &[u8]| choose(&held(held_bytes), &index, 100, &held(failed));
        assert_eq!(taken(&[1, 2], &[]), Way::Patch(all[1].clone()));
        assert_eq!(taken(&[1, 2], &[12]), Way::Patch(all[0].clone()));
        assert_eq!(taken(&[1], &[]), Way::Patch(all[0].clone()));
        assert_eq!(taken(&[3], &[]), Way::Patch(all[2].clone()));
        assert_eq!(taken(&[1, 2], &[11, 12, 13, 15]), Way::Plain);
        assert_eq!(choose(&held(&[1]), &index, 40, &[]), Way::Plain, "nothing is gained");
        assert_eq!(choose(&[], &PatchIndex::default(), 40, &[]), Way::Plain);
        assert_eq!(
            [taken(&[1], &[]), taken(&[], &[]), Way::Plain].map(|way| way.name()),
            ["patch", "compressed", "plain"]
        );
    }

    #[test]
    fn any_bytes_are_an_index_that_comes_back_or_refused_and_what_is_chosen_lies_where_patches_lie() {
        let good = PatchIndex { patches: vec![entry(Some(1), "aligned", 50, 11), entry(None, "zst", 80, 13)] }.encode();
        let (held, to) = ([Sha256([1; 32])], Sha256([0xab; 32]));
        bolero::check!().with_type::<(Vec<(u16, u8)>, Vec<u8>, String, u64)>().for_each(
            |(changes, own, format, length)| {
                let mut changed = good.clone();
                for (at, byte) in changes {
                    let at = usize::from(*at) % changed.len();
                    changed[at] = *byte;
                }
                let strange =
                    PatchIndex { patches: vec![entry(None, format, *length, 1), entry(Some(1), format, 9, 2)] };
                for bytes in [&changed[..], own, &strange.encode()] {
                    let Ok(index) = PatchIndex::decode(bytes) else { continue };
                    assert_eq!(PatchIndex::decode(&index.encode()).unwrap(), index);
                    if let Way::Patch(entry) = choose(&held, &index, 100, &[]) {
                        assert!(entry.length < 100 && Format::named(&entry.format).is_some());
                        let path = entry.path(&to);
                        assert!(
                            path.starts_with(&format!("patches/{to}/")) && path.matches('/').count() == 2,
                            "{path}"
                        );
                    }
                }
            },
        );
    }

    #[test]
    fn an_index_comes_back_and_a_newer_one_is_read_too() {
        let index = PatchIndex { patches: vec![entry(Some(1), "aligned", 50, 11), entry(None, "zst", 80, 13)] };
        assert_eq!(PatchIndex::decode(&index.encode()).unwrap(), index);
        let newer = r#"{"patches":[{"from":null,"format":"new","length":3,"sha256":"HASH","x":1}],"more":2}"#;
        let newer = newer.replace("HASH", &"0".repeat(64));
        assert_eq!(PatchIndex::decode(newer.as_bytes()).unwrap().patches[0].format, "new");
        assert!(PatchIndex::decode(b"{}").is_err());
        let long = vec![b' '; MAX_INDEX_BYTES + 1];
        assert!(PatchIndex::decode(&long).unwrap_err().to_string().contains("the limit is 65536"));
        let to = Sha256([0xab; 32]);
        assert_eq!(index.patches[1].path(&to), format!("patches/{to}/full.zst"));
        assert_eq!(index.patches[0].path(&to), format!("patches/{to}/{}.aligned", Sha256([1; 32])));
    }
}
