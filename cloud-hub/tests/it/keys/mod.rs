//! The keys of the repository, as people handle them: files, folders and the command line.

mod ceremony;
mod device;
mod guide;
mod standing;
mod withdrawal;

use std::path::Path;
use std::process::{Command, Output};

use hyper::Method;
use serde_json::json;

use crate::support::{TestHub, package};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cloud-hub");

/// A machine is a folder: what runs in it sees its files alone.
struct Machine<'a> {
    folder: &'a Path,
    hub: Option<(String, String)>,
}

impl<'a> Machine<'a> {
    /// One that reaches the hub.
    fn online(folder: &'a Path, hub: &TestHub) -> Self {
        Self { folder, hub: Some((hub.url(), hub.token_file().display().to_string())) }
    }

    /// One that reaches nothing.
    fn offline(folder: &'a Path) -> Self {
        Self { folder, hub: None }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder).env_remove("CLOUD_HUB_CA").env_remove("CLOUD_HUB_TOKEN");
        let nowhere = ("http://127.0.0.1:1".to_owned(), "/none".to_owned());
        let (url, token) = self.hub.as_ref().unwrap_or(&nowhere);
        command.env("CLOUD_HUB_URL", url).env("CLOUD_HUB_TOKEN_FILE", token);
        command
    }

    async fn output(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The exit code, and everything that was said.
    async fn tries(&self, line: &str) -> (i32, String) {
        let mut command = self.command(PROGRAM);
        command.args(line.split_whitespace());
        let output = self.output(command).await;
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    async fn does(&self, line: &str) -> String {
        let (code, said) = self.tries(line).await;
        assert_eq!(code, 0, "{line}: {said}");
        said
    }

    async fn refuses(&self, line: &str, expected: i32, words: &str) {
        let (code, said) = self.tries(line).await;
        assert!(code == expected && said.contains(words), "{line}: {code}, expected {expected} and {words:?}: {said}");
    }
}

/// Line, view and one uploaded version that nobody has published.
async fn with_a_version(hub: &TestHub) {
    hub.line(json!({})).await;
    let sent =
        hub.send(Method::POST, "/lines/card-fraud/versions", "application/octet-stream", package("card-fraud", 1));
    assert!(sent.await.status.is_success());
}
