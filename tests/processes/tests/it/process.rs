//! A hub with its own authority, and other programs beside it, as processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tributary_demo::wait;

/// A debug build on a busy machine needs seconds for what takes milliseconds otherwise.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A program that is killed when this is dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts one of our programs, `hub` or `agent`, in an environment; its output goes to the end of this log.
    pub fn logging(name: &'static str, log: &Path, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_programs"));
        command.arg(name).args(arguments).envs(environment.iter().cloned()).stdin(Stdio::null());
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Self { name, child, log: log.to_owned() }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits for something that this program is to do; its log is shown if it does not.
    pub async fn until<T>(&mut self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let looked = wait::until(what, PATIENCE, async || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the {} ended with {status}", self.name);
            }
            Ok(look().await)
        });
        let looked = looked.await;
        looked.unwrap_or_else(|error| panic!("{error:#}; the end of the {}'s log:\n{}", self.name, self.log()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs one of our programs to its end; what it printed.
pub fn run(name: &str, arguments: &[&str]) -> String {
    run_in(&[], name, arguments)
}

/// The same in an environment.
pub fn run_in(environment: &[(String, String)], name: &str, arguments: &[&str]) -> String {
    let done = program(name, arguments).envs(environment.iter().cloned()).output().unwrap();
    let (told, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{name} {arguments:?}: {}\n{told}{errors}", done.status);
    told.into_owned()
}

/// Runs one of our programs to its end, good or bad.
pub fn finish(name: &str, arguments: &[&str]) -> Output {
    program(name, arguments).output().unwrap()
}

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_programs"));
    command.arg(name).args(arguments);
    command
}

/// A hub that nobody gets into without a certificate or a token.
pub struct Hub {
    pub process: Process,
    folder: PathBuf,
    /// Where its data lies.
    pub data: PathBuf,
    /// `addresses.json`.
    pub addresses: Value,
    environment: Vec<(String, String)>,
}

impl Hub {
    /// Starts one on free ports of this machine and waits until it says where it listens.
    pub async fn start(folder: &Path) -> Self {
        Self::start_with(folder, folder.join("data"), "", &[]).await
    }

    /// Starts one with its data there, with more settings, in an environment.
    pub async fn start_with(folder: &Path, data: PathBuf, more: &str, environment: &[(String, String)]) -> Self {
        let text = format!(
            "data_dir = {data:?}\n[gateway]\ntls = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n\
             insecure_plain_on_loopback = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n{more}\n"
        );
        std::fs::write(folder.join("hub.toml"), text).unwrap();
        let hub = Self::begin(folder, data, environment).await;
        // Whoever enrolled knows these ports, so it gets them again when it is started again.
        let port = |of: &str| hub.address(of).to_owned();
        let text = format!(
            "data_dir = {:?}\n[gateway]\ntls = {:?}\nquic = {:?}\n\
             insecure_plain_on_loopback = {:?}\n[api]\nlisten = {:?}\n{more}\n",
            hub.data,
            port("mqtt_tls"),
            port("mqtt_quic"),
            port("mqtt"),
            port("https"),
        );
        std::fs::write(folder.join("hub.toml"), text).unwrap();
        hub
    }

    /// Starts one whose settings and data are there already.
    pub async fn found(folder: &Path, data: PathBuf) -> Self {
        Self::begin(folder, data, &[]).await
    }

    async fn begin(folder: &Path, data: PathBuf, environment: &[(String, String)]) -> Self {
        let path = data.join("addresses.json");
        let _ = std::fs::remove_file(&path);
        let config = folder.join("hub.toml").display().to_string();
        let log = folder.join("hub.log");
        let mut process = Process::logging("hub", &log, &["serve", "--config", &config], environment);
        let addresses = process
            .until("the hub says where it listens", async || {
                let text = std::fs::read(&path).map_err(|error| error.to_string())?;
                serde_json::from_slice::<Value>(&text).map_err(|error| error.to_string())
            })
            .await;
        Self { process, folder: folder.to_owned(), data, addresses, environment: environment.to_vec() }
    }

    /// Starts it again, by the same settings on the same ports, after it was killed.
    pub async fn again(self) -> Self {
        let Self { process, folder, data, environment, .. } = self;
        drop(process);
        Self::begin(&folder, data, &environment).await
    }

    /// Runs it to its end, which is to come at once because something is wrong: all that it said.
    pub fn refused(&self) -> String {
        let done = finish("hub", &["serve", "--config", &self.folder.join("hub.toml").display().to_string()]);
        assert!(!done.status.success(), "the hub works");
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    }

    /// Whatever it wrote.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("hub.log")).unwrap_or_default()
    }

    /// Where it listens: `https`, `mqtt_tls`, `mqtt_quic`.
    pub fn address(&self, of: &str) -> &str {
        self.addresses[of].as_str().unwrap_or_else(|| panic!("no {of} in {}", self.addresses))
    }

    /// Runs the hub's command line as an administrator, in the hub's environment; what it printed.
    pub fn operator(&self, arguments: &[&str]) -> String {
        let url = format!("https://{}", self.address("https"));
        let (token, authority) = (self.admin_token(), self.authority());
        let (token, authority) = (token.display().to_string(), authority.display().to_string());
        run_in(
            &self.environment,
            "hub",
            &[&["--hub", &url, "--token-file", &token, "--ca", &authority], arguments].concat(),
        )
    }

    /// The file of the first administrator's token.
    pub fn admin_token(&self) -> PathBuf {
        self.data.join("keys/admin.token")
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> PathBuf {
        self.data.join("identity/authority.pem")
    }

    /// An enrolment token for so many devices, as an operator makes it.
    pub fn token(&self, uses: u32) -> String {
        let told = self.operator(&["token", "create", "--uses", &uses.to_string(), "--expires", "1h"]);
        let token = told.split_whitespace().find(|word| word.starts_with("tributary-enrol."));
        token.unwrap_or_else(|| panic!("no token in {told}")).to_owned()
    }

    /// Folder of the lake's files.
    pub fn lake(&self) -> PathBuf {
        self.data.join("lake")
    }

    /// A folder beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
