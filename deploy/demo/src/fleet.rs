//! The processes: one hub and some agents, each started through the same entry point as the program itself.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tributary_process::http::{AUTHORIZATION, Client, Endpoint};
use tributary_process::resources;

use crate::wait;

/// The model line of the demo.
pub const LINE: &str = "card-fraud";

/// A program that can be started, killed and started again. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    /// `hub`, `edge-1`, …
    pub name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    fn new(name: &str, executable: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let log = folder.join("logs").join(format!("{name}.log"));
        Self { name: name.into(), executable: executable.into(), arguments, log, child: None }
    }

    /// Starts it; its output goes to the end of its log.
    pub fn start(&mut self) -> Result<()> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.executable)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// An error with the end of its log, if it ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(5)..].join("\n");
        bail!("{} ended with {status}; the end of its log:\n{end}", self.name)
    }

    /// Highest resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| resources::memory_of_process(child.id()).peak)
    }

    /// Stops it with SIGKILL: it has no chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
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
    gateway: Plain,
    api: Api,
    training: Training,
}

#[derive(Serialize)]
struct Plain {
    tls: &'static str,
    quic: &'static str,
    insecure_plain_on_loopback: String,
}

#[derive(Serialize)]
struct Api {
    listen: &'static str,
    insecure_plain_on_loopback: String,
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
    link: Link,
}

/// A person is watching: evidence should not wait for half a minute.
#[derive(Serialize)]
struct Link {
    report_every: &'static str,
}

#[derive(Serialize)]
struct HubAddress {
    insecure_plain_mqtt: String,
    insecure_plain_http: String,
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

/// What to start.
#[derive(Debug, Clone)]
pub struct Wish {
    /// A program whose first argument `hub` or `agent` makes it either.
    pub executable: PathBuf,
    /// How many agents.
    pub agents: usize,
    /// The feature view until a package brings its own, as TOML.
    pub view: &'static str,
    /// An agent that gets a wrong address for its hub.
    pub misled: Option<usize>,
}

impl Fleet {
    /// Starts everything in `folder` on free loopback ports and waits until the hub answers.
    pub async fn start(folder: &Path, wish: &Wish) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let (mqtt, http, nowhere) = (free_port()?, free_port()?, free_port()?);
        let address = format!("http://127.0.0.1:{http}");
        let data_dir = folder.join("hub");
        let view = folder.join("view.toml");
        std::fs::write(&view, wish.view)?;
        let file = write(
            folder,
            "hub",
            &HubConfig {
                data_dir: data_dir.clone(),
                gateway: Plain {
                    tls: "127.0.0.1:0",
                    quic: "127.0.0.1:0",
                    insecure_plain_on_loopback: format!("127.0.0.1:{mqtt}"),
                },
                api: Api { listen: "127.0.0.1:0", insecure_plain_on_loopback: format!("127.0.0.1:{http}") },
                training: Training { program: wish.executable.clone(), arguments: vec!["hub".into()] },
            },
        )?;
        let mut fleet = Self {
            folder: folder.into(),
            hub: Program::new("hub", &wish.executable, folder, &["hub", "serve", "--config", &file]),
            agents: Vec::new(),
            api: Client::new(address.parse().map_err(anyhow::Error::msg)?),
            locals: Vec::new(),
        };
        fleet.hub.start()?;
        fleet.hub_answers(Duration::from_secs(60)).await?;
        let token =
            std::fs::read_to_string(data_dir.join("keys").join("admin.token")).context("the hub's first token")?;
        let bearer = format!("Bearer {}", token.trim()).parse().context("the hub's first token")?;
        fleet.api = fleet.api.with_header(AUTHORIZATION, bearer);
        for index in 0..wish.agents {
            let device = device(index);
            let state_dir = folder.join(&device);
            let mqtt = if wish.misled == Some(index) { nowhere } else { mqtt };
            let file = write(
                folder,
                &device,
                &AgentConfig {
                    device: device.clone(),
                    state_dir: state_dir.clone(),
                    lines: vec![LINE.into()],
                    view: view.clone(),
                    hub: HubAddress {
                        insecure_plain_mqtt: format!("127.0.0.1:{mqtt}"),
                        insecure_plain_http: address.clone(),
                    },
                    trust: Trust { keys: data_dir.join("keys").join("trust.json") },
                    sources: Sources { api: TimeRules { time: "replay" } },
                    link: Link { report_every: "1s" },
                },
            )?;
            let mut agent = Program::new(&device, &wish.executable, folder, &["agent", "run", "--config", &file]);
            agent.start()?;
            fleet.agents.push(agent);
            let local = Client::new(Endpoint::Unix(state_dir.join("agent.sock")));
            fleet.locals.push(local.with_timeout(Duration::from_secs(120)));
        }
        fleet.agents_answer(Duration::from_secs(60)).await?;
        Ok(fleet)
    }

    /// Waits until the hub's web API answers.
    pub async fn hub_answers(&mut self, deadline: Duration) -> Result<()> {
        wait::until("the hub answers", deadline, async || {
            self.hub.check()?;
            Ok(self.api.get::<serde_json::Value>("/api/v1/health").await.map(drop).map_err(|error| error.to_string()))
        })
        .await
    }

    /// Waits until every agent's local API answers.
    pub async fn agents_answer(&mut self, deadline: Duration) -> Result<()> {
        wait::until("the agents answer", deadline, async || {
            for (agent, local) in self.agents.iter_mut().zip(&self.locals) {
                agent.check()?;
                if let Err(error) = local.get::<serde_json::Value>("/v1/status").await {
                    return Ok(Err(error.to_string()));
                }
            }
            Ok(Ok(()))
        })
        .await
    }

    /// An error if any program has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.hub.check()?;
        self.agents.iter_mut().try_for_each(Program::check)
    }

    /// Folder of the lake's files.
    pub fn lake(&self) -> PathBuf {
        self.folder.join("hub").join("lake")
    }
}

/// Id of the agent with this index.
pub fn device(index: usize) -> String {
    format!("edge-{}", index + 1)
}

fn write(folder: &Path, name: &str, config: &impl Serialize) -> Result<String> {
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, toml::to_string(config)?)?;
    Ok(path.display().to_string())
}

/// A port that is free now. Another program may take it before ours does; then ours says so and ends.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
