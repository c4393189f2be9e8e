//! The processes of the demo: one hub, three agents, each started through the same entry point as the program itself.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tributary_process::http::{Client, Endpoint};
use tributary_process::resources;

use crate::wait;

/// The model line of the demo.
pub const LINE: &str = "card-fraud";
/// How many agents.
pub const AGENTS: usize = 3;

/// A started program; it is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    /// `hub`, `edge-1`, …
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(name: &str, program: &str, folder: &Path, arguments: &[String]) -> Result<Self> {
        let log = folder.join("logs").join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.into(), child, log })
    }

    /// An error with the end of its log, if it is not running any more.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("{} ended with {status}; the end of its log:\n{}", self.name, end.join("\n"));
        }
        Ok(())
    }

    /// Highest resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        resources::memory_of_process(self.child.id()).peak
    }

    /// Stops it at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The hub and the agents, and how to talk to them.
#[derive(Debug)]
pub struct Fleet {
    /// Where everything lies.
    pub folder: PathBuf,
    /// The hub's process.
    pub hub: Program,
    /// The agents' processes.
    pub agents: Vec<Program>,
    /// The hub's web API.
    pub api: Client,
    /// The agents' local APIs.
    pub locals: Vec<Client>,
}

#[derive(Serialize)]
struct HubConfig {
    data_dir: PathBuf,
    gateway: Listen,
    api: Listen,
    training: Training,
}

#[derive(Serialize)]
struct Listen {
    listen: String,
}

#[derive(Serialize)]
struct Training {
    program: PathBuf,
    arguments: Vec<String>,
}

#[derive(Serialize)]
struct AgentConfig {
    device: String,
    state_dir: PathBuf,
    lines: Vec<String>,
    view: PathBuf,
    hub: HubAddress,
    trust: Trust,
    sources: Sources,
}

#[derive(Serialize)]
struct HubAddress {
    mqtt: String,
    http: String,
}

#[derive(Serialize)]
struct Trust {
    keys: PathBuf,
}

#[derive(Serialize)]
struct Sources {
    api: TimeRules,
}

#[derive(Serialize)]
struct TimeRules {
    time: &'static str,
}

impl Fleet {
    /// Starts everything on free loopback ports and waits until the hub answers. `misled` is an agent that gets a
    /// wrong address for its hub.
    pub async fn start(folder: &Path, misled: Option<usize>) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let (mqtt, http, nowhere) = (free_port()?, free_port()?, free_port()?);
        let data_dir = folder.join("hub");
        let hub_file = folder.join("hub.toml");
        let config = HubConfig {
            data_dir: data_dir.clone(),
            gateway: Listen { listen: format!("127.0.0.1:{mqtt}") },
            api: Listen { listen: format!("127.0.0.1:{http}") },
            training: Training { program: std::env::current_exe()?, arguments: vec!["hub".into()] },
        };
        std::fs::write(&hub_file, toml::to_string(&config)?)?;
        let mut hub = Program::start("hub", "hub", folder, &["serve".into(), "--config".into(), show(&hub_file)])?;
        let address = format!("http://127.0.0.1:{http}");
        let api = Client::new(address.parse().map_err(anyhow::Error::msg)?);
        wait::until("the hub answers", Duration::from_secs(60), async || {
            hub.check()?;
            Ok(api.get::<serde_json::Value>("/api/v1/health").await.map_err(|error| error.to_string()))
        })
        .await?;

        let view = folder.join("card-risk.toml");
        std::fs::write(&view, tributary_fraud::VIEW_TOML)?;
        let (mut agents, mut locals) = (Vec::new(), Vec::new());
        for index in 0..AGENTS {
            let device = device(index);
            let state_dir = folder.join(&device);
            let mqtt = if misled == Some(index) { nowhere } else { mqtt };
            let config = AgentConfig {
                device: device.clone(),
                state_dir: state_dir.clone(),
                lines: vec![LINE.into()],
                view: view.clone(),
                hub: HubAddress { mqtt: format!("127.0.0.1:{mqtt}"), http: address.clone() },
                trust: Trust { keys: data_dir.join("keys").join("trust.json") },
                sources: Sources { api: TimeRules { time: "replay" } },
            };
            let file = folder.join(format!("{device}.toml"));
            std::fs::write(&file, toml::to_string(&config)?)?;
            agents.push(Program::start(&device, "agent", folder, &["run".into(), "--config".into(), show(&file)])?);
            let local = Client::new(Endpoint::Unix(state_dir.join("agent.sock")));
            locals.push(local.with_timeout(Duration::from_secs(120)));
        }
        Ok(Self { folder: folder.into(), hub, agents, api, locals })
    }

    /// An error if any program has ended.
    pub fn check(&mut self) -> Result<()> {
        self.hub.check()?;
        self.agents.iter_mut().try_for_each(Program::check)
    }
}

/// Id of the agent with this index.
pub fn device(index: usize) -> String {
    format!("edge-{}", index + 1)
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// A port that is free now. Another program may take it before ours does; then ours says so and the demo ends.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
