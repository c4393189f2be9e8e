//! `device certificates`, `device revoke`, `device allow-enrolment`: who may speak for a device.

use serde_json::{Value, json};
use tributary_process::config::HumanDuration;

use super::{Failure, Remote};

/// Lists the certificates of a device.
pub(super) async fn list(remote: &Remote, device: &str) -> Result<(), Failure> {
    let answer = remote.get(&format!("/devices/{device}/certificates")).await?;
    let certificates: Vec<Value> = answer["items"].as_array().cloned().unwrap_or_default();
    remote
        .show_list(&certificates, &[("serial", "serial"), ("state", "state"), ("how", "how"), ("until", "not_after")]);
    Ok(())
}

/// Revokes all certificates of a device.
pub(super) async fn revoke(remote: &Remote, device: &str, reason: &str) -> Result<(), Failure> {
    let done = remote.post(&format!("/devices/{device}/revoke"), &json!({ "reason": reason })).await?;
    let count = done["revoked"].as_u64().unwrap_or_default();
    let certificates = if count == 1 { "1 certificate" } else { &*format!("{count} certificates") };
    let cut = if done["disconnected"] == true { "; its connection was ended" } else { "" };
    remote.done(&done, &format!("revoked {certificates} of device {device}{cut}"));
    Ok(())
}

/// Lets a device enrol once more.
pub(super) async fn allow(remote: &Remote, device: &str, lifetime: HumanDuration) -> Result<(), Failure> {
    let body = json!({ "lifetime": lifetime.to_string() });
    let done = remote.post(&format!("/devices/{device}/allow-enrolment"), &body).await?;
    remote.done(&done, &format!("device {device} may enrol once more within {lifetime}, with a token"));
    Ok(())
}
