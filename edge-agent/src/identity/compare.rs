//! Holds this device's clock against its hub's, so that a clock that is wrong is seen before everything has expired.

use std::time::{Duration, Instant};

use edge_agent_core::refresh::Pace;
use hyper::{HeaderMap, Method};
use tributary_process::shutdown::Shutdown;
use tributary_wire::Micros;

use super::{PATIENCE, Time, Web};
use crate::words::in_words;

/// Small, and there for every device; that a hub has none says the time as well.
const ASKED: &str = "/api/v1/repository/metadata/timestamp.json";

/// The time that an answer of the web was given at.
pub fn date(headers: &HeaderMap) -> Option<Micros> {
    let date = headers.get("date")?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(Micros(date.timestamp().as_microsecond()))
}

/// Compares now and at intervals, until the signal is given.
pub async fn compare(web: Web, time: Time, every: Duration, shutdown: Shutdown) {
    let mut pace = Pace::new(every, rand::random());
    loop {
        let Some(well) = shutdown.unless_given(ask(&web, &time)).await else { return };
        tokio::select! {
            () = shutdown.given() => return,
            () = tokio::time::sleep(pace.next_wait(well)) => {}
        }
    }
}

async fn ask(web: &Web, time: &Time) -> bool {
    let Some(client) = web.client() else { return false };
    let began = Instant::now();
    match client.with_timeout(PATIENCE).send(Method::GET, ASKED, "", bytes::Bytes::new()).await {
        Ok(answer) => date(&answer.headers).map(|theirs| time.hub_says(theirs, began.elapsed())).is_some(),
        Err(error) => {
            tracing::debug!(error = %in_words(&error), "the hub's time was not heard");
            false
        }
    }
}
