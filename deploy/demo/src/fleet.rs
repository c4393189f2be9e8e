//! The processes: one hub and some agents, each started through the same entry point as the program itself.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tributary_identity::{Certificate, DeviceClock, tls};
use tributary_process::http::{Client, Endpoint};
use tributary_process::resources;
use tributary_wire::Micros;

use crate::wait;

/// The model line of the demo.
pub const LINE: &str = "card-fraud";

/// The folder of the keys that would lie with people, not with the hub.
pub const OFFLINE_KEYS: &str = "offline-keys";

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
    gateway: Gateway,
    api: Api,
    training: Training,
}

#[derive(Serialize)]
struct Gateway {
    quic: String,
    tls: String,
}

#[derive(Serialize)]
struct Api {
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
    sources: Sources,
    link: Link,
}

/// A person is watching: evidence should not wait for half a minute.
#[derive(Serialize)]
struct Link {
    report_every: &'static str,
}

/// An enrolled agent knows its hub; `url` is where it enrols. The others mislead it.
#[derive(Serialize)]
struct HubAddress {
    url: String,
    quic: Option<String>,
    tls: Option<String>,
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
    /// Starts everything in `folder` on free loopback ports: the hub, then agents that enrol with one token.
    pub async fn start(folder: &Path, wish: &Wish) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let (https, tls, quic) = (free_port()?, free_port()?, free_udp_port()?);
        let url = format!("https://127.0.0.1:{https}");
        let data_dir = folder.join("hub");
        let view = folder.join("view.toml");
        std::fs::write(&view, wish.view)?;
        let file = write(
            folder,
            "hub",
            &HubConfig {
                data_dir: data_dir.clone(),
                gateway: Gateway { quic: format!("127.0.0.1:{quic}"), tls: format!("127.0.0.1:{tls}") },
                api: Api { listen: format!("127.0.0.1:{https}") },
                training: Training { program: wish.executable.clone(), arguments: vec!["hub".into()] },
            },
        )?;
        let mut hub = Program::new("hub", &wish.executable, folder, &["hub", "serve", "--config", &file]);
        hub.start()?;
        let api = operator(&mut hub, &data_dir, &url).await?;
        let mut fleet = Self { folder: folder.into(), hub, agents: Vec::new(), api, locals: Vec::new() };
        fleet.hub_answers(Duration::from_secs(60)).await?;
        // Before anybody enrols: enrolment brings the root of trust.
        fleet.sign_first_keys(&wish.executable)?;
        let token = fleet.enrolment_token(wish.agents).await?;
        let nowhere = format!("127.0.0.1:{}", free_port()?);
        for index in 0..wish.agents {
            let device = device(index);
            let state_dir = folder.join(&device);
            let misled = (wish.misled == Some(index)).then(|| nowhere.clone());
            let file = write(
                folder,
                &device,
                &AgentConfig {
                    device: device.clone(),
                    state_dir: state_dir.clone(),
                    lines: vec![LINE.into()],
                    view: view.clone(),
                    hub: HubAddress { url: url.clone(), quic: misled.clone(), tls: misled },
                    sources: Sources { api: TimeRules { time: "replay" } },
                    link: Link { report_every: "1s" },
                },
            )?;
            enrol(&wish.executable, &file, &token)?;
            let mut agent = Program::new(&device, &wish.executable, folder, &["agent", "run", "--config", &file]);
            agent.start()?;
            fleet.agents.push(agent);
            let local = Client::new(Endpoint::Unix(state_dir.join("agent.sock")));
            fleet.locals.push(local.with_timeout(Duration::from_secs(120)));
        }
        fleet.agents_answer(Duration::from_secs(60)).await?;
        Ok(fleet)
    }

    /// Makes the offline keys and the first signed files of the repository, as the person who owns the fleet does.
    fn sign_first_keys(&self, executable: &Path) -> Result<()> {
        let mut command = Command::new(executable);
        command.args(["hub", "keys", "init", "--line", LINE, "--out"]).arg(self.folder.join(OFFLINE_KEYS));
        let output = command.envs(self.access()).output().context("starting the ceremony of keys")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`keys init` ended with {}:\n{}", output.status, words.trim());
        Ok(())
    }

    /// Asks the hub for an enrolment token, good for so many devices and an hour.
    async fn enrolment_token(&self, uses: usize) -> Result<PathBuf> {
        #[derive(Deserialize)]
        struct Made {
            token: String,
        }
        let wanted = json!({"group": "demo", "uses": uses.max(1), "lifetime": "1h"});
        let made: Made = self.api.call(Method::POST, "/api/v1/enrolment-tokens", &wanted).await?;
        let path = self.folder.join("enrolment-token");
        tributary_process::durable::write_private(&path, made.token.as_bytes())?;
        Ok(path)
    }

    /// What an operator's commands need to reach this hub: address, authority, token.
    pub fn access(&self) -> [(&'static str, String); 3] {
        let hub = self.folder.join("hub");
        [
            ("CLOUD_HUB_URL", self.api.endpoint().to_string()),
            ("CLOUD_HUB_CA", hub.join("identity").join("authority.pem").display().to_string()),
            ("CLOUD_HUB_TOKEN_FILE", hub.join("keys").join("admin.token").display().to_string()),
        ]
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

/// A client with the rights of the hub's first administrator, once the hub has made its authority and that token.
async fn operator(hub: &mut Program, data: &Path, url: &str) -> Result<Client> {
    let (authority, token) = (data.join("identity").join("authority.pem"), data.join("keys").join("admin.token"));
    let mut read = None;
    wait::until("the hub made its keys", Duration::from_secs(60), async || {
        hub.check()?;
        read = std::fs::read_to_string(&authority).ok().zip(std::fs::read_to_string(&token).ok());
        Ok(if read.is_some() { Ok(()) } else { Err(format!("no {}", token.display())) })
    })
    .await?;
    let (authority, token) = read.context("the hub's keys")?;
    let clock = Arc::new(DeviceClock::new(Micros(0)));
    let trust = tls::device_client(&Certificate::all_from_pem(&authority)?, None, tls::ALPN_HTTP, clock)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.trim()))?;
    bearer.set_sensitive(true);
    let client = Client::new(url.parse().map_err(anyhow::Error::msg)?);
    Ok(client.with_tls(Arc::new(trust)).with_header(AUTHORIZATION, bearer))
}

/// Runs `edge-agent enroll`, as whoever installs a device does.
fn enrol(executable: &Path, config: &str, token: &Path) -> Result<()> {
    let mut command = Command::new(executable);
    command.args(["agent", "enroll", "--config", config, "--token-file"]).arg(token);
    let output = command.output().context("starting the enrolment of an agent")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "enrolment of {config} ended with {}:\n{}", output.status, words.trim());
    Ok(())
}

/// A port that is free now. Another program may take it before ours does; then ours says so and ends.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The same for UDP.
fn free_udp_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
