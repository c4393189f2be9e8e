//! What a program takes of flash and RAM, and the bytes that go into flash, from its ELF file (32 bits, little-endian).

/// Bytes a program takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Code, constants and first values of variables.
    pub flash: u32,
    /// Static variables.
    pub ram: u32,
}

/// Reads the section headers; `None` when these are not the bytes of such a file.
pub fn size(bytes: &[u8]) -> Option<Size> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    if !bytes.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let (table, each, count) = (word(0x20)? as usize, half(0x2e)?, half(0x30)?);
    let mut size = Size::default();
    for section in 0..count {
        let at = table + section * each;
        let (kind, flags, length) = (word(at + 4)?, word(at + 8)?, word(at + 20)?);
        const ALLOCATED: u32 = 2;
        const WRITABLE: u32 = 1;
        const NOT_IN_FILE: u32 = 8;
        if flags & ALLOCATED == 0 {
            continue;
        }
        size.flash += if kind == NOT_IN_FILE { 0 } else { length };
        size.ram += if flags & WRITABLE == 0 { 0 } else { length };
    }
    Some(size)
}

/// What of a program lies in flash, from its first byte on; `None` when these are not the bytes of such a file, or they
/// lie too far apart to be one program.
pub fn image(bytes: &[u8]) -> Option<Vec<u8>> {
    const LOADED: u32 = 1;
    const LARGEST: usize = 16 << 20;
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    if !bytes.starts_with(b"\x7fELF\x01\x01") {
        return None;
    }
    let (table, each, count) = (word(0x1c)?, half(0x2a)?, half(0x2c)?);
    let mut parts = Vec::new();
    for segment in 0..count {
        let at = table + segment * each;
        let (from, place, length) = (word(at + 4)?, word(at + 12)?, word(at + 16)?);
        if word(at)? == LOADED as usize && length > 0 {
            parts.push((place, bytes.get(from..from.checked_add(length)?)?));
        }
    }
    let first = parts.iter().map(|(place, _)| *place).min()?;
    let end = parts.iter().map(|(place, part)| place + part.len()).max()?;
    if end - first > LARGEST {
        return None;
    }
    let mut image = vec![0xff; end - first];
    for (place, part) in parts {
        image[place - first..][..part.len()].copy_from_slice(part);
    }
    Some(image)
}
