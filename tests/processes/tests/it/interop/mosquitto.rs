//! Debian's `mosquitto_pub` and `mosquitto_sub`.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use cloud_hub_gateway::Limits;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tributary_wire::topic::Channel;

use super::{Acceptor, Files};
use crate::tools;

const PATIENCE: Duration = Duration::from_secs(30);

fn command(program: &Path, port: u16, client: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-V", "5", "-h", "localhost", "-p", &port.to_string(), "-i", client]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn publish(mut command: Command, topic: &str, message: &str, quality: u8) -> Output {
    command.args(["-t", topic, "-m", message, "-q", &quality.to_string()]);
    timeout(PATIENCE, command.output()).await.expect("mosquitto_pub ends").unwrap()
}

struct Subscriber {
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Subscriber {
    /// Starts one and waits until it has subscribed.
    async fn start(mut command: Command, filter: &str) -> Self {
        // Otherwise its output waits in a buffer of the C library.
        let mut child = command.args(["-t", filter, "-q", "1", "-d", "-v"]).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut subscriber = Self { output, _child: child };
        subscriber.until("Subscribed").await;
        subscriber
    }

    async fn until(&mut self, beginning: &str) -> String {
        timeout(PATIENCE, async {
            loop {
                let line = self.output.next_line().await.unwrap().expect("mosquitto_sub goes on");
                if line.starts_with(beginning) {
                    return line;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("mosquitto_sub said nothing that begins with {beginning:?}"))
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn programs(test: &str) -> Option<(PathBuf, PathBuf)> {
    Some((tools::program(test, "mosquitto_pub")?, tools::program(test, "mosquitto_sub")?))
}

#[tokio::test]
async fn messages_go_from_mosquitto_pub_to_mosquitto_sub_with_every_quality() {
    let Some((publisher, subscriber)) = programs("mosquitto's clients") else { return };
    let acceptor = Acceptor::start(Limits::default()).await;
    let port = acceptor.plain.port();
    // mosquitto_sub gives out lines at once only if it writes to a terminal, or through stdbuf.
    let mut wrapped = Command::new("stdbuf");
    wrapped.arg("-oL").arg(&subscriber).args(["-V", "5", "-h", "localhost", "-p", &port.to_string(), "-i", "sub"]);
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut follows = Subscriber::start(wrapped, "house/+/light").await;
    for quality in [0, 1] {
        let message = format!("quality {quality}");
        let done = publish(command(&publisher, port, "pub"), "house/kitchen/light", &message, quality).await;
        assert!(done.status.success(), "{}", text(&done));
        assert_eq!(follows.until("house/").await, format!("house/kitchen/light {message}"));
    }
    let done = publish(command(&publisher, port, "pub"), "elsewhere", "nobody follows this", 1).await;
    assert!(done.status.success(), "{}", text(&done));
    drop(follows);
    acceptor.stop().await;
}

fn as_device(program: &Path, port: u16, device: &str, files: &Files) -> Command {
    let mut command = command(program, port, device);
    command.arg("--cafile").arg(&files.authority).arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key);
    command.args(["--tls-version", "tlsv1.3"]);
    command
}

#[tokio::test]
async fn a_device_publishes_with_its_certificate_to_its_own_topics_alone() {
    let Some((publisher, subscriber)) = programs("mosquitto's clients with a certificate") else { return };
    let mut acceptor = Acceptor::start(Limits::default()).await;
    let (port, files) = (acceptor.tls.port(), acceptor.enrol("edge-1"));
    let done = publish(as_device(&publisher, port, "edge-1", &files), "v1/d/edge-1/up/batch", "own", 1).await;
    assert!(done.status.success(), "{}", text(&done));
    let said = timeout(PATIENCE, acceptor.up.recv()).await.expect("the message comes").unwrap();
    assert_eq!((said.device.as_str(), said.channel, &said.payload[..]), ("edge-1", Channel::Batch, &b"own"[..]));

    let done = publish(as_device(&publisher, port, "edge-1", &files), "v1/d/edge-2/up/batch", "other", 1).await;
    assert!(text(&done).contains("Not authorized"), "{}", text(&done));
    let mut follow = as_device(&subscriber, port, "edge-1", &files);
    follow.args(["-t", "v1/d/edge-2/down/#", "-q", "1", "-W", "20"]);
    let done = timeout(PATIENCE, follow.output()).await.expect("mosquitto_sub ends").unwrap();
    assert!(text(&done).contains("denied"), "{}", text(&done));
    assert!(acceptor.up.try_recv().is_err(), "nothing else came through");
    acceptor.stop().await;
}
