//! `keys apply`: signed files go to the hub.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::super::show::text;
use super::super::{Failure, Remote};
use super::files::Carried;

/// Sends contents, then all files at once.
pub(super) async fn apply(
    remote: &Remote,
    files: &[PathBuf],
    contents: &[PathBuf],
    withdraw: bool,
) -> Result<(), Failure> {
    let carried = files.iter().map(|file| Carried::read(file)).collect::<Result<Vec<_>, _>>()?;
    for file in contents {
        let bytes = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        remote.send("/signing/contents", "application/octet-stream", bytes.into()).await?;
    }
    let done = send(remote, &carried.iter().map(|file| file.bytes.as_slice()).collect::<Vec<_>>(), withdraw).await?;
    remote.done(&done, &sentence(&done));
    Ok(())
}

/// Gives files to the hub.
pub(super) async fn send(remote: &Remote, files: &[&[u8]], withdraw: bool) -> Result<Value, Failure> {
    let texts = files.iter().map(|bytes| std::str::from_utf8(bytes)).collect::<Result<Vec<_>, _>>();
    let texts = texts.context("signed metadata is text")?;
    remote.post("/signing/files", &json!({ "files": texts, "withdraw": withdraw })).await
}

/// What the hub did, in words.
pub(super) fn sentence(done: &Value) -> String {
    let roles = |name: &str| {
        let items = done[name].as_array().into_iter().flatten();
        items.map(|item| format!("{} {}", text(&item["role"]), text(&item["version"]))).collect::<Vec<_>>().join(", ")
    };
    let mut sentence = format!("in force: {}", roles("applied"));
    if done["signed"].as_array().is_some_and(|items| !items.is_empty()) {
        sentence += &format!("; the hub signed {}", roles("signed"));
    }
    for (name, word) in [("published", "published"), ("withdrawn", "withdrawn")] {
        if done[name].as_array().is_some_and(|items| !items.is_empty()) {
            sentence += &format!("; {word}: {}", text(&done[name]));
        }
    }
    sentence
}
