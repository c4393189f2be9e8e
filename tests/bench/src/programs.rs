//! The real programs as processes: found beside this one, started in a folder of their own, killed at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tributary_process::http::{AUTHORIZATION, Client, Endpoint};
use tributary_process::resources::{Memory, memory_of_process};

/// How long a program may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The model line that is measured.
pub const LINE: &str = "card-fraud";

/// Where the programs lie.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// In `folder`, or beside this program: Cargo puts the programs of one profile into one folder.
    pub fn find(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let own = || Some(std::env::current_exe().ok()?.parent()?.to_owned());
        let folder = folder.or_else(own).context("the folder of this program")?;
        let programs = Self { folder };
        for name in ["edge-agent", "cloud-hub"] {
            let path = programs.path(name);
            if !path.is_file() {
                let profile = if cfg!(debug_assertions) { "" } else { "--release " };
                bail!("{} is not there; first: cargo build {profile}-p edge-agent -p cloud-hub", path.display());
            }
        }
        Ok(programs)
    }

    /// Path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a hub in `folder` on free ports, waits until it answers, and gives it a signed repository whose line it
    /// signs by itself.
    pub async fn hub(&self, folder: &Path) -> anyhow::Result<Hub> {
        self.hub_at(folder, "127.0.0.1:0").await
    }

    /// The same, with devices connecting without encryption at this address.
    pub async fn hub_at(&self, folder: &Path, mqtt: &str) -> anyhow::Result<Hub> {
        let data = folder.join("hub");
        let config = HubConfig {
            data_dir: data.clone(),
            gateway: Plain { tls: "127.0.0.1:0", quic: "127.0.0.1:0", insecure_plain_on_loopback: mqtt },
            api: HubApi { listen: "127.0.0.1:0", insecure_plain_on_loopback: "127.0.0.1:0" },
        };
        let file = write(folder, "hub", &config)?;
        let mut process = Process::start("hub", &self.path("cloud-hub"), folder, &["serve", "--config", &file])?;
        let addresses = data.join("addresses.json");
        let read = async || -> anyhow::Result<Hub_> { Ok(serde_json::from_slice(&std::fs::read(&addresses)?)?) };
        let Hub_ { http, https, mqtt } = process.until("the hub wrote its addresses", read).await?;
        let api = Client::new(format!("http://{http}").parse().map_err(anyhow::Error::msg)?);
        process.until("the hub answers", async || Ok(api.get::<Value>("/api/v1/health").await?)).await?;
        let token = std::fs::read_to_string(data.join("keys").join("admin.token")).context("the hub's first token")?;
        let keys = data.join("keys").join("admin.token");
        let mut init = Command::new(self.path("cloud-hub"));
        init.args(["keys", "init", "--line", LINE, "--hub", &format!("http://{http}"), "--token-file"]).arg(&keys);
        ran("keys init", init.arg("--out").arg(folder.join("offline-keys")))?;
        let bearer = format!("Bearer {}", token.trim()).parse().context("the hub's first token")?;
        let api = api.with_header(AUTHORIZATION, bearer);
        let authority = data.join("identity").join("authority.pem");
        Ok(Hub { process, api, https: format!("https://{https}"), authority, mqtt, data })
    }

    /// Enrols an agent in `folder`, starts it and waits until it answers.
    pub async fn agent(&self, folder: &Path, hub: &Hub) -> anyhow::Result<Agent> {
        let token = hub.enrolment_token(folder, 1).await?;
        let mut agent = self.begin_agent(folder, hub, "edge-1", &token)?;
        agent.answers().await?;
        Ok(agent)
    }

    /// Enrols an agent and starts it, with all that is its own in a folder of its name.
    pub fn begin_agent(&self, folder: &Path, hub: &Hub, device: &str, token: &Path) -> anyhow::Result<Agent> {
        let folder = folder.join(device);
        std::fs::create_dir_all(&folder)?;
        let state_dir = folder.join("agent");
        let view = folder.join("view.toml");
        std::fs::write(&view, tributary_fraud::VIEW_TOML)?;
        let config = AgentConfig {
            device,
            state_dir: state_dir.clone(),
            lines: [LINE],
            view,
            hub: HubAddress { url: &hub.https },
            sources: Sources { api: TimeRules { time: "replay" } },
        };
        let file = write(&folder, "agent", &config)?;
        let mut enrol = Command::new(self.path("edge-agent"));
        ran("enroll", enrol.args(["enroll", "--config", &file, "--token-file"]).arg(token))?;
        let process = Process::start("agent", &self.path("edge-agent"), &folder, &["run", "--config", &file])?;
        let socket = state_dir.join("agent.sock");
        let local = Client::new(Endpoint::Unix(socket.clone())).with_timeout(PATIENCE);
        Ok(Agent { process, local, socket })
    }
}

/// Runs a program to its end.
fn ran(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {what}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} ended with {}:\n{}", output.status, words.trim());
    Ok(())
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    /// Its process.
    pub process: Process,
    /// Its web API.
    pub api: Client,
    https: String,
    /// Certificate of its authority.
    pub authority: PathBuf,
    /// Where devices connect without encryption.
    pub mqtt: String,
    /// Where its data lies.
    pub data: PathBuf,
}

#[derive(serde::Deserialize)]
struct Hub_ {
    http: String,
    https: String,
    mqtt: String,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// Its local API, for what is not measured.
    pub local: Client,
    /// Path of its Unix socket.
    pub socket: PathBuf,
}

impl Hub {
    /// A file with a token that so many devices may enrol with.
    pub async fn enrolment_token(&self, folder: &Path, uses: usize) -> anyhow::Result<PathBuf> {
        let wanted = json!({ "group": "bench", "uses": uses, "lifetime": "1h" });
        let made: Value = self.api.call(Method::POST, "/api/v1/enrolment-tokens", &wanted).await?;
        let path = folder.join("enrolment-token");
        let token = made["token"].as_str().context("the hub's answer holds no token")?;
        tributary_process::durable::write_private(&path, token.as_bytes())?;
        Ok(path)
    }
}

impl Agent {
    /// Waits until its local API answers.
    pub async fn answers(&mut self) -> anyhow::Result<()> {
        let local = &self.local;
        self.process.until("the agent answers", async || Ok(local.get::<Value>("/v1/status").await?)).await?;
        Ok(())
    }
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program that writes its log into `folder`.
    pub fn start(name: &'static str, program: &Path, folder: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).context("the log of a program")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// Its memory.
    pub fn memory(&self) -> Memory {
        memory_of_process(self.child.id())
    }

    /// Resident bytes that belong to it alone: without the program's own file and libraries.
    pub fn private(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        private(&status)
    }

    /// Seconds of a core that it has used.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        cpu(&stat)
    }

    /// Asks again and again until there is an answer; an error if the process ends or time runs out first.
    pub async fn until<T>(&mut self, what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(5)..].join("\n");
                let state = ended.map_or_else(|| "still runs".to_owned(), |status| format!("ended with {status}"));
                return Err(error.context(format!("{what}: not in time; the {} {state}:\n{end}", self.name)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn private(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// User and system time. The kernel counts in hundredths of a second for programs, whatever its own tick.
fn cpu(stat: &str) -> f64 {
    // The program's name stands in brackets and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of its folder is needed afterwards; an error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Serialize)]
struct HubConfig<'a> {
    data_dir: PathBuf,
    gateway: Plain<'a>,
    api: HubApi,
}

#[derive(Serialize)]
struct HubApi {
    listen: &'static str,
    insecure_plain_on_loopback: &'static str,
}

#[derive(Serialize)]
struct Plain<'a> {
    tls: &'static str,
    quic: &'static str,
    insecure_plain_on_loopback: &'a str,
}

#[derive(Serialize)]
struct AgentConfig<'a> {
    device: &'a str,
    state_dir: PathBuf,
    lines: [&'static str; 1],
    view: PathBuf,
    hub: HubAddress<'a>,
    sources: Sources,
}

#[derive(Serialize)]
struct HubAddress<'a> {
    url: &'a str,
}

#[derive(Serialize)]
struct Sources {
    api: TimeRules,
}

#[derive(Serialize)]
struct TimeRules {
    time: &'static str,
}

fn write(folder: &Path, name: &str, config: &impl Serialize) -> anyhow::Result<String> {
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, toml::to_string(config)?).with_context(|| format!("write {}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu(stat), 2.0);
        assert_eq!(cpu(""), 0.0);
    }

    #[test]
    fn private_memory_is_the_kernels_figure() {
        assert_eq!(private("VmRSS:\t    9 kB\nRssAnon:\t    2048 kB\n"), 2 << 20);
        assert_eq!(private(""), 0);
    }

    #[test]
    fn a_missing_program_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(folder.path().into())).unwrap_err().to_string();
        assert!(error.contains("edge-agent") && error.contains("cargo build"), "{error}");
    }
}
