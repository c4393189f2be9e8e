//! The bundle for whoever looks for a fault: a tar archive, compressed. No keys, no tokens, no records.

use std::io;
use std::path::Path;

use serde_json::json;
use tributary_wire::MAX_RESULT_BYTES;

use super::Parts;

/// Its media type.
pub(super) const MEDIA: &str = "application/x-tar+zstd";

/// Level of compression: logs shrink well at any, and a device has better things to do.
const LEVEL: i32 = 3;

/// Makes the bundle; the log is cut until it fits.
pub(super) fn make(parts: &Parts) -> io::Result<Vec<u8>> {
    let mut log_bytes = 1 << 20;
    loop {
        let bytes = zstd::encode_all(&*archive(parts, log_bytes)?, LEVEL)?;
        if bytes.len() <= MAX_RESULT_BYTES || log_bytes == 0 {
            return Ok(bytes);
        }
        log_bytes = if log_bytes > 32 << 10 { log_bytes / 2 } else { 0 };
    }
}

fn archive(parts: &Parts, log_bytes: usize) -> io::Result<Vec<u8>> {
    let time = parts.clock.wall().max(0) as u64 / 1_000_000;
    let versions = json!({
        "agent": crate::VERSION, "wire": tributary_wire::WIRE_VERSION, "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH, "kernel": read("/proc/sys/kernel/osrelease"),
        "load": read("/proc/loadavg"), "process": std::process::id(), "made": parts.clock.wall(),
    });
    let mut archive = Vec::new();
    let files: [(&str, String); 6] = [
        ("versions.json", format!("{versions:#}\n")),
        ("status.json", format!("{:#}\n", (parts.status)())),
        ("settings.toml", without_secrets(&parts.settings)),
        ("metrics.txt", (parts.metrics)()),
        ("disk.txt", disk(&parts.state_dir)),
        ("log.txt", parts.log.last(usize::MAX, log_bytes)),
    ];
    for (name, content) in files {
        append(&mut archive, name, content.as_bytes(), time);
    }
    // Two empty blocks end an archive.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

const BLOCK: usize = 512;

/// A plain file in the form of POSIX `ustar`.
fn append(archive: &mut Vec<u8>, name: &str, content: &[u8], time: u64) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, &format!("{time:011o}"));
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Settings whose names say that they are secret lose their values, and addresses the password in them.
fn without_secrets(settings: &str) -> String {
    match settings.parse::<toml::Table>() {
        Ok(mut table) => {
            table.iter_mut().for_each(|(key, value)| clear(key, value));
            toml::to_string(&table).unwrap_or_default()
        }
        Err(error) => format!("# the settings cannot be shown: {error}\n"),
    }
}

const REMOVED: &str = "(removed)";
const SECRET: [&str; 4] = ["token", "password", "passphrase", "secret"];

fn clear(key: &str, value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => table.iter_mut().for_each(|(key, value)| clear(key, value)),
        toml::Value::Array(values) => values.iter_mut().for_each(|value| clear(key, value)),
        toml::Value::String(text) if SECRET.iter().any(|word| key.contains(word)) => *text = REMOVED.to_owned(),
        toml::Value::String(text) => {
            let Some((scheme, rest)) = text.split_once("://") else { return };
            let end = rest.find('/').unwrap_or(rest.len());
            if let Some(at) = rest[..end].rfind('@') {
                *text = format!("{scheme}://{REMOVED}@{}", &rest[at + 1..]);
            }
        }
        _ => {}
    }
}

/// The sizes of what lies in the state folder, one line each.
fn disk(folder: &Path) -> String {
    let mut lines: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        lines.push(format!("{:>12} {}\n", size(&entry.path()), entry.file_name().to_string_lossy()));
    }
    lines.sort();
    lines.concat()
}

fn size(path: &Path) -> u64 {
    let Ok(about) = std::fs::symlink_metadata(path) else { return 0 };
    if !about.is_dir() {
        return about.len();
    }
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_of_settings() {
        let settings = "device = \"edge-1\"\n[hub]\nhttps = \"https://me:pw@hub:8443/a@b\"\napi_token = \"abc\"\n\
                        [[more]]\npassword = [\"x\"]\nkeys = \"trust.json\"\n";
        let shown = without_secrets(settings);
        assert!(!shown.contains("pw") && !shown.contains("abc") && !shown.contains("\"x\""), "{shown}");
        assert!(shown.contains("edge-1") && shown.contains("@hub:8443/a@b") && shown.contains("trust.json"), "{shown}");
    }
}
