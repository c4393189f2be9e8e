//! `keys status`.

use serde_json::{Value, json};
use tributary_process::outln;
use tributary_wire::Micros;

use super::super::show::{plain, text};
use super::super::{Failure, Remote};

/// Who signs what, until when, and what to do.
pub(super) async fn status(remote: &Remote) -> Result<(), Failure> {
    let answer = remote.get("/signing").await?;
    if remote.json() {
        remote.show(&answer);
        return Ok(());
    }
    let roles: &[Value] = answer["roles"].as_array().map(Vec::as_slice).unwrap_or_default();
    if roles.is_empty() {
        outln!("This hub has no signed repository yet, so devices install nothing from it.");
        outln!("Make one: cloud-hub keys init --out DIR --line NAME");
        return Ok(());
    }
    let rows: Vec<Value> = roles.iter().map(row).collect();
    let columns = [
        ("role", "role"),
        ("version", "version"),
        ("needs", "signatures"),
        ("expires", "expires"),
        ("state", "state"),
        ("held by", "holders"),
    ];
    remote.show_list(&rows, &columns);
    for role in roles.iter().filter(|role| role["next"] != "") {
        outln!("{}: {}", text(&role["role"]), text(&role["next"]));
    }
    Ok(())
}

/// The day is enough to plan with, and leaves room for the names of holders.
fn day(time: Micros) -> String {
    time.to_string().chars().take(10).collect()
}

fn row(role: &Value) -> Value {
    let keys: &[Value] = role["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let holder = |key: &Value| match key["holder"].as_str() {
        None | Some("") => format!("{:.8}", key["id"].as_str().unwrap_or_default()),
        Some(holder) => plain(holder, |_| ' '),
    };
    json!({
        "role": role["role"],
        "version": role["version"],
        "signatures": format!("{} of {}", text(&role["threshold"]), keys.len()),
        "expires": role["expires"].as_i64().map(|expires| day(Micros(expires))),
        "state": if role["version"].is_null() && role["role"] != "assignments" { json!("none yet") } else { role["standing"].clone() },
        "holders": keys.iter().map(holder).collect::<Vec<_>>().join(", "),
    })
}
