//! An agent of its own beside a [`Hub`], as a process that can be killed and started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tributary_process::http::{Client, Endpoint};

use crate::process::{Hub, Process, run};

/// Such an agent.
pub struct Agent {
    process: Option<Process>,
    name: String,
    folder: PathBuf,
    config: String,
    environment: Vec<(String, String)>,
    /// Its state.
    pub state: PathBuf,
    /// Its local API.
    pub local: Client,
}

impl Agent {
    /// Enrols it. Impatient: what takes minutes in the field takes seconds here. `more` ends its settings.
    pub fn enrol(hub: &Hub, name: &str, state: PathBuf, more: &str) -> Self {
        let folder = hub.beside(name);
        let view = folder.join("view.toml");
        std::fs::write(&view, tributary_fraud::VIEW_TOML).unwrap();
        let url = format!("https://{}", hub.address("https"));
        let config = folder.join("agent.toml");
        let text = format!(
            "device = {name:?}\nstate_dir = {state:?}\nlines = [\"card-fraud\"]\nview = {view:?}\n[hub]\nurl = {url:?}\n\
             [link]\nquic_timeout = \"2s\"\nquic_idle = \"4s\"\nprobe = \"2s\"\nprobe_cap = \"4s\"\n\
             reconnect_cap = \"2s\"\nresend_after = \"2s\"\nresend_cap = \"4s\"\nreport_every = \"1s\"\n{more}\n"
        );
        std::fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        run("agent", &["enroll", "--config", &config, "--hub", &url, "--token", &hub.token(1)]);
        Self::at(name, &folder, &config, state)
    }

    /// One that is enrolled already, by the settings in this file.
    pub fn at(name: &str, folder: &Path, config: &str, state: PathBuf) -> Self {
        let local = Client::new(Endpoint::Unix(state.join("agent.sock"))).with_timeout(Duration::from_secs(60));
        let (name, folder, config) = (name.to_owned(), folder.to_owned(), config.to_owned());
        Self { process: None, name, folder, config, environment: Vec::new(), state, local }
    }

    /// With variables of its environment from the next start on.
    pub fn with(mut self, environment: &[(String, String)]) -> Self {
        self.environment = environment.to_vec();
        self
    }

    /// Starts it; its output goes to the end of its log.
    pub fn start(&mut self) {
        let arguments = ["run", "--config", &self.config];
        let log = self.folder.join(format!("{}.log", self.name));
        self.process = Some(Process::logging("agent", &log, &arguments, &self.environment));
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The command line of another process with the same settings.
    pub fn same(&self) -> Vec<&str> {
        vec!["run", "--config", &self.config]
    }

    /// Waits for something that it shows; its log is told if it does not.
    pub async fn until(&mut self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        let local = self.local.clone();
        let process = self.process.as_mut().expect("it was started");
        process
            .until(what, async || {
                let status: Value = local.get("/v1/status").await.map_err(|error| error.to_string())?;
                if look(&status) { Ok(status) } else { Err(status.to_string()) }
            })
            .await
    }

    /// Waits until it is connected.
    pub async fn connected(&mut self) {
        self.until("the agent is connected", |status| status["hub"]["connected"] == true).await;
    }
}
