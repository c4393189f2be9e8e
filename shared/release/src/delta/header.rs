//! The beginning of every patch.

use std::io::{self, Read};

use tributary_wire::Sha256;

use super::{DeltaError, Format};

const MAGIC: [u8; 4] = *b"TPKD";
const VERSION: u8 = 1;
const NONE: Sha256 = Sha256([0; 32]);

/// What a patch is and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub format: Format,
    pub from: Option<Sha256>,
    pub to: Sha256,
    pub length: u64,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let format = match self.format {
            Format::Zstd => 1,
            Format::Aligned => 2,
        };
        let from = self.from.unwrap_or(NONE);
        [&MAGIC[..], &[VERSION, format], &from.0, &self.to.0, &self.length.to_le_bytes()].concat()
    }

    pub fn read(patch: &mut impl Read) -> Result<Self, DeltaError> {
        let found = take(patch)?;
        if found != MAGIC {
            return Err(DeltaError::NotPatch { found });
        }
        let [version, format] = take(patch)?;
        if version != VERSION {
            return Err(DeltaError::Version { expected: VERSION, found: version });
        }
        let format = match format {
            1 => Format::Zstd,
            2 => Format::Aligned,
            found => return Err(DeltaError::Format { found }),
        };
        let from = Some(Sha256(take(patch)?)).filter(|from| *from != NONE);
        Ok(Self { format, from, to: Sha256(take(patch)?), length: u64::from_le_bytes(take(patch)?) })
    }
}

fn take<const N: usize>(patch: &mut impl Read) -> Result<[u8; N], DeltaError> {
    let mut bytes = [0; N];
    match patch.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(DeltaError::CutOff { written: 0 }),
        Err(error) => Err(DeltaError::Read(error)),
    }
}
