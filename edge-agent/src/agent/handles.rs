//! What the parts of the agent know of each other: closures, so that none names another.

use std::pin::Pin;
use std::sync::Arc;

use tributary_process::shutdown::Shutdown;

use super::hub::HubAccess;
use crate::api::{Report, StatusSource};
use crate::download::DownloadStatus;
use crate::identity::{Renewal, Web};
use crate::link::{Condition, LinkStatus};
use crate::orders;
use crate::orders::restart::Wanted;
use crate::sources::ImageSource;
use crate::trust::Trust;
use crate::update::Handle;
use crate::words::in_words;

/// Asks the status for something later.
pub(super) fn shown<T: 'static>(
    status: &Arc<StatusSource>,
    of: fn(&StatusSource) -> T,
) -> Box<dyn Fn() -> T + Send + Sync> {
    let status = status.clone();
    Box::new(move || of(&status))
}

/// The signed repository, for images of sensor nodes.
pub(super) struct Images(pub(super) Trust);

impl ImageSource for Images {
    fn fetch<'a>(&'a self, path: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
        Box::pin(async move { self.0.small_target(path).await.map_err(|error| in_words(&error)) })
    }
}

/// Makes a new key and has it certified, when the hub says so.
pub(super) fn rotate_key(renewal: Option<Renewal>) -> Box<dyn Fn() -> orders::Doing<'static> + Send + Sync> {
    Box::new(move || {
        let renewal = renewal.clone();
        Box::pin(async move {
            let renewal = renewal.ok_or("this device has no certificate to renew")?;
            let serial = renewal.rotate().await.map_err(|error| in_words(&error))?;
            Ok(format!("certificate {serial}, for a new key"))
        })
    })
}

/// Ends the agent in an orderly way, so that it can be started again.
pub(super) fn end(restart: Wanted, shutdown: &Shutdown) -> Box<dyn Fn() + Send + Sync> {
    let shutdown = shutdown.clone();
    Box::new(move || {
        restart.set();
        shutdown.give();
    })
}

/// What the updater and the link say of themselves.
pub(super) fn report(
    handle: Handle,
    trust: Trust,
    link: Arc<LinkStatus>,
    downloads: DownloadStatus,
    hub: HubAccess,
) -> Box<dyn Fn() -> Report + Send + Sync> {
    Box::new(move || Report {
        repository: trust.versions(),
        // Whoever has not enrolled is told that, and not that a root is missing.
        repository_problem: trust.problem().filter(|_| hub.why.is_none() && !matches!(hub.web, Web::Nowhere)),
        generation: handle.generation().0,
        lines: handle.lines(),
        asks: handle.asks(),
        problem: handle.problem(),
        flags: handle.flags(),
        unfit: handle.unfit(),
        audit: handle.audit(),
        audit_problem: handle.audit_problem(),
        link: link.view(),
        download: downloads.view(),
        certificate: hub.identity.as_ref().map(|identity| identity.view()),
        clock: hub.time.view(),
        no_certificate: hub.why.clone(),
        identity_problem: hub.problem.clone(),
    })
}

/// What the device reports to the hub of itself.
pub(super) fn condition(
    status: Arc<StatusSource>,
    labels: Vec<(String, String)>,
) -> Arc<dyn Fn() -> Condition + Send + Sync> {
    Arc::new(move || Condition {
        health: status.health(),
        resources: status.resources(),
        labels: labels.clone(),
        nodes: status.nodes.iter().map(|node| node.status().report()).collect(),
    })
}
