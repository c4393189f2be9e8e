//! Commands that talk to a running agent over its local API.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tributary_process::http::Client;

use super::{Failure, Settings, show};

/// Events per request; the agent takes 1000 unless configured.
const EVENTS_PER_REQUEST: usize = 500;

/// Which agent.
#[derive(Debug, Clone, Args)]
pub(super) struct Address {
    /// Address of the agent, such as unix:/run/agent.sock or
    /// http://127.0.0.1:7070; unless given, that of the settings
    #[arg(long, value_name = "ADDRESS")]
    agent: Option<String>,
}

/// Ask a running agent for decisions on events. Nothing is stored unless
/// --record is given.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  edge-agent predict events.json
  cat events.jsonl | edge-agent predict -
  edge-agent predict --event '{\"id\":\"t1\",\"time\":\"2018-07-25T10:00:00Z\",
      \"entities\":{\"customer_id\":7,\"terminal_id\":9},
      \"values\":{\"amount\":12.5}}'")]
pub(super) struct Predict {
    #[command(flatten)]
    address: Address,
    /// File of events: one JSON object, an array, or one object per line;
    /// - is standard input
    #[arg(value_name = "FILE", required_unless_present = "event")]
    file: Option<PathBuf>,
    /// One event as JSON. May be repeated
    #[arg(long, value_name = "JSON")]
    event: Vec<String>,
    /// Accept the events: they are stored, enter the windows and go to the hub
    #[arg(long)]
    record: bool,
}

impl Address {
    fn client(&self, settings: &Settings) -> Result<Client, Failure> {
        let endpoint = match &self.agent {
            Some(text) => text.parse().map_err(Failure::Usage)?,
            None => settings.load()?.endpoint(),
        };
        Ok(Client::new(endpoint))
    }
}

pub(super) fn status(settings: &Settings, address: &Address) -> Result<ExitCode, Failure> {
    let client = address.client(settings)?;
    let status: Value = runtime()?.block_on(client.get("/v1/status"))?;
    show::print(settings.json, &status, show::status);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn predict(settings: &Settings, predict: &Predict) -> Result<ExitCode, Failure> {
    let client = predict.address.client(settings)?;
    let events = predict.events()?;
    let path = if predict.record { "/v1/events" } else { "/v1/predict" };
    let runtime = runtime()?;
    let mut results = Vec::with_capacity(events.len());
    for events in events.chunks(EVENTS_PER_REQUEST) {
        let body = serde_json::to_vec(events).context("events as JSON")?;
        let answer = runtime.block_on(client.send(Method::POST, path, "application/json", body.into()))?;
        // All refused is an answer too: it has one result per event.
        let answer = if answer.status == StatusCode::UNPROCESSABLE_ENTITY { answer } else { answer.accepted()? };
        let mut answer: Value = answer.json()?;
        match answer["results"].take() {
            Value::Array(more) => results.extend(more),
            _ => return Err(anyhow::anyhow!("the agent's answer has no results: {answer}").into()),
        }
    }
    let refused = results.iter().any(|result| result["status"] == "refused");
    show::print(settings.json, &json!({ "results": results }), show::results);
    Ok(if refused { ExitCode::from(4) } else { ExitCode::SUCCESS })
}

impl Predict {
    fn events(&self) -> Result<Vec<Value>, Failure> {
        let mut texts: Vec<(String, String)> =
            self.event.iter().map(|event| ("--event".to_owned(), event.clone())).collect();
        match &self.file {
            Some(path) if path.as_os_str() == "-" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input")?;
                texts.push(("standard input".into(), text));
            }
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
                texts.push((name, text));
            }
            None => {}
        }
        let mut events = Vec::new();
        for (name, text) in texts {
            for value in serde_json::Deserializer::from_str(&text).into_iter() {
                match value.map_err(|error| Failure::Usage(format!("{name}: {error}")))? {
                    Value::Array(many) => events.extend(many),
                    one => events.push(one),
                }
            }
        }
        if events.is_empty() {
            return Err(Failure::Usage("there are no events".into()));
        }
        Ok(events)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict(event: &[&str], file: Option<PathBuf>) -> Predict {
        let event = event.iter().map(|event| event.to_string()).collect();
        Predict { address: Address { agent: None }, file, event, record: false }
    }

    #[test]
    fn events_are_read_as_object_array_or_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        for (text, expected) in [("{\"id\":1}", 1), ("[{},{}]", 2), ("{}\n{}\n{}\n", 3)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(predict(&["{}"], Some(file.clone())).events().unwrap().len(), expected + 1);
        }
        std::fs::write(&file, "{}\n{oops}").unwrap();
        let failure = predict(&[], Some(file)).events().unwrap_err();
        assert!(failure.to_string().contains("line 2"), "{failure}");
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn no_agent_is_its_own_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address { agent: Some(format!("unix:{}/none.sock", folder.path().display())) };
        let settings = Settings { config: None, set: Vec::new(), json: false };
        assert_eq!(status(&settings, &address).unwrap_err().code(), 3);
        let address = Address { agent: Some("somewhere".into()) };
        assert_eq!(status(&settings, &address).unwrap_err().code(), 2);
    }
}
