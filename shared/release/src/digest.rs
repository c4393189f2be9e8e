//! SHA-256 over bytes, streams and files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::Digest as _;
use tributary_wire::Sha256;

/// Hashes what arrives piece by piece, such as a download.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

/// The hash of `bytes`.
pub fn digest(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// SHA-512 in hexadecimal digits: other publishers' metadata may name it.
pub(crate) fn sha512_hex(bytes: &[u8]) -> String {
    crate::key::hex(&sha2::Sha512::digest(bytes))
}

/// Length and hash of a file, read in pieces: a package need not fit into memory to be checked.
pub fn sha256_file(path: &Path) -> io::Result<(u64, Sha256)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut length = 0;
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((length, hasher.finish())),
            Ok(read) => {
                hasher.update(&piece[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_a_stream_and_its_bytes_have_one_hash() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 7) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let mut hasher = Hasher::new();
        bytes.chunks(777).for_each(|piece| hasher.update(piece));
        assert_eq!(sha256_file(&path).unwrap(), (bytes.len() as u64, digest(&bytes)));
        assert_eq!(hasher.finish(), digest(&bytes));
        assert_eq!(digest(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
