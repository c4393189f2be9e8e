//! Makes a signed blob of a program or a model.

use std::error::Error;

use ed25519_dalek::{Digest, Sha512, Signer, SigningKey};
use tributary_node_simulation::EMULATOR_SEED;
use tributary_wire::link::{BlobKind, IMAGE_HEAD, ImageHead, NodeName};

use crate::elf;

/// Writes one.
pub fn write(
    kind: &str,
    node: &str,
    (version, rollback): (&str, &str),
    file: &str,
    key: &str,
    out: &str,
) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    let (kind, payload) = match kind {
        "model" => (BlobKind::Model, bytes),
        "firmware" => {
            let image = elf::image(&bytes).ok_or_else(|| format!("{file} is no program of 32 bits"))?;
            (BlobKind::Firmware, image)
        }
        other => return Err(format!("{other:?} is neither `model` nor `firmware`").into()),
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no version or rollback index"));
    let blob = sign(kind, NodeName::new(node)?, number(version)?, number(rollback)?, &payload, &secret(key)?);
    std::fs::write(out, &blob).map_err(|error| format!("{out}: {error}"))?;
    eprintln!("{out}: {} bytes, {IMAGE_HEAD} of them head", blob.len());
    Ok(())
}

/// The blob: head, signature, payload.
pub fn sign(
    kind: BlobKind,
    node: NodeName<'_>,
    version: u32,
    rollback: u32,
    payload: &[u8],
    key: &SigningKey,
) -> Vec<u8> {
    let mut hash = [0; 64];
    hash.copy_from_slice(&Sha512::digest(payload));
    let head = ImageHead { kind, node, version, rollback, length: payload.len() as u32, hash };
    let mut blob = head.signed().to_vec();
    blob.extend(key.sign(&blob).to_bytes());
    blob.extend(payload);
    blob
}

/// The key in a file as `cloud-hub keys` writes it: a line that says what it is, and the seed in hexadecimal digits.
pub fn secret(file: &str) -> Result<SigningKey, Box<dyn Error>> {
    if file == "emulator" {
        return Ok(SigningKey::from_bytes(&EMULATOR_SEED));
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let wrong = || format!("{file}: its second line is not a seed of 64 hexadecimal digits");
    let digits = text.lines().nth(1).filter(|line| line.len() == 64 && line.is_ascii()).ok_or_else(wrong)?;
    let mut seed = [0; 32];
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(SigningKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use tributary_node_simulation::EMULATOR_KEY;

    use super::*;

    #[test]
    fn the_emulator_s_keys_belong_together_and_a_blob_holds_under_them() {
        let key = secret("emulator").unwrap();
        assert_eq!(key.verifying_key().to_bytes(), EMULATOR_KEY);
        let blob = sign(BlobKind::Model, NodeName::new("mps2").unwrap(), 2, 1, b"payload", &key);
        let head = ImageHead::read(&blob).unwrap();
        assert_eq!((head.version, head.rollback, head.length, blob.len()), (2, 1, 7, IMAGE_HEAD + 7));
    }
}
