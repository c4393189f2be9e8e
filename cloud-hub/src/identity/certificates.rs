//! Certificates of devices in the catalog.

use std::collections::BTreeMap;

use sqlx::{FromRow, SqliteConnection, SqlitePool};
use tributary_identity::{Certificate, Serial};
use tributary_wire::{DeviceId, Micros};

use super::known::{Entry, Known};

/// Why an older certificate was revoked when a device connected with a newer one.
pub(super) const SUPERSEDED: &str = "superseded: the device connected with a newer one";

/// A certificate as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Row {
    /// Its number.
    pub serial: String,
    /// Whose it is.
    pub device: String,
    /// Its bytes.
    pub der: Vec<u8>,
    /// `enrolled` or `renewed`.
    pub how: String,
    /// The token that it was enrolled with.
    pub token: Option<String>,
    /// Valid from this instant, UTC microseconds.
    pub not_before: i64,
    /// Valid to this instant.
    pub not_after: i64,
    /// When it was issued.
    pub issued: i64,
    /// When its device first connected with it.
    pub used: Option<i64>,
    /// When it was revoked.
    pub revoked: Option<i64>,
    /// Why it was revoked.
    pub reason: Option<String>,
}

impl Row {
    /// The certificate itself.
    pub(super) fn certificate(&self) -> Result<Certificate, sqlx::Error> {
        Certificate::from_der(&self.der)
            .map_err(|error| sqlx::Error::ColumnDecode { index: "der".into(), source: Box::new(error) })
    }
}

/// How a certificate came about.
#[derive(Debug, Clone, Copy)]
pub(super) enum How<'a> {
    /// With this token.
    Enrolled(&'a str),
    /// With an older certificate.
    Renewed,
}

/// Writes down a certificate that was issued.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    certificate: &Certificate,
    how: How<'_>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let (how, token) = match how {
        How::Enrolled(token) => ("enrolled", Some(token)),
        How::Renewed => ("renewed", None),
    };
    sqlx::query(
        "insert into certificates (serial, device, der, how, token, not_before, not_after, issued)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(certificate.serial().as_str())
    .bind(device.as_str())
    .bind(certificate.der().as_ref())
    .bind(how)
    .bind(token)
    .bind(certificate.not_before().0)
    .bind(certificate.not_after().0)
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The certificates of a device, newest first.
pub(super) async fn of(connection: &mut SqliteConnection, device: &DeviceId) -> Result<Vec<Row>, sqlx::Error> {
    let query = "select * from certificates where device = $1 order by issued desc, serial";
    sqlx::query_as(query).bind(device.as_str()).fetch_all(connection).await
}

/// How many were ever issued.
pub(super) async fn count(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from certificates").fetch_one(pool).await
}

/// Revokes those of a device that are not revoked yet; how many there were.
pub(super) async fn revoke(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    reason: &str,
    now: Micros,
) -> Result<u64, sqlx::Error> {
    let query = "update certificates set revoked = $2, reason = $3 where device = $1 and revoked is null";
    let done = sqlx::query(query).bind(device.as_str()).bind(now.0).bind(reason).execute(connection).await?;
    Ok(done.rows_affected())
}

/// Revokes one.
pub(super) async fn revoke_one(
    connection: &mut SqliteConnection,
    serial: &str,
    reason: &str,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "update certificates set revoked = $2, reason = $3 where serial = $1 and revoked is null";
    sqlx::query(query).bind(serial).bind(now.0).bind(reason).execute(connection).await?;
    Ok(())
}

/// Writes down that a device has connected with a certificate for the first time, which supersedes the older ones (and
/// not one that it has asked for since); how many there were.
pub(crate) async fn first_use(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    serial: &Serial,
    now: Micros,
) -> Result<u64, sqlx::Error> {
    sqlx::query("update certificates set used = $2 where serial = $1 and used is null")
        .bind(serial.as_str())
        .bind(now.0)
        .execute(&mut *connection)
        .await?;
    let query = "update certificates set revoked = $3, reason = $4 where device = $1 and revoked is null
                 and issued < (select issued from certificates where serial = $2)";
    let done = sqlx::query(query)
        .bind(device.as_str())
        .bind(serial.as_str())
        .bind(now.0)
        .bind(SUPERSEDED)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Reads into memory all that can still connect or renew.
pub(super) async fn load(pool: &SqlitePool, oldest: Micros) -> Result<Known, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as("select * from certificates where not_after >= $1 order by issued, serial")
        .bind(oldest.0)
        .fetch_all(pool)
        .await?;
    let known = Known::default();
    for row in rows {
        let certificate = row.certificate()?;
        let device = DeviceId::new(&row.device)
            .map_err(|error| sqlx::Error::ColumnDecode { index: "device".into(), source: Box::new(error) })?;
        let revoked = row.revoked.map(|_| row.reason.unwrap_or_default());
        known.add(
            certificate.serial().clone(),
            Entry { revoked, used: row.used.is_some(), ..Entry::new(device, &certificate) },
        );
    }
    Ok(known)
}

/// Lets a device enrol once more, until then.
pub(super) async fn permit(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    until: Micros,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "insert into enrolment_permits (device, expires, given) values ($1, $2, $3)
                 on conflict (device) do update set expires = excluded.expires, given = excluded.given";
    sqlx::query(query).bind(device.as_str()).bind(until.0).bind(now.0).execute(connection).await?;
    Ok(())
}

/// Until when a device may enrol once more.
pub(super) async fn permitted(
    connection: &mut SqliteConnection,
    device: &DeviceId,
) -> Result<Option<Micros>, sqlx::Error> {
    let query = "select expires from enrolment_permits where device = $1";
    let until: Option<i64> = sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(connection).await?;
    Ok(until.map(Micros))
}

/// Takes that word back; it is good for one enrolment.
pub(super) async fn forbid(connection: &mut SqliteConnection, device: &DeviceId) -> Result<(), sqlx::Error> {
    sqlx::query("delete from enrolment_permits where device = $1").bind(device.as_str()).execute(connection).await?;
    Ok(())
}

/// Adds a device that enrols. One that is there already keeps what people have set: its group, and its labels where
/// the token has others.
pub(super) async fn add_device(
    connection: &mut SqliteConnection,
    device: &DeviceId,
    group: Option<&str>,
    labels: &BTreeMap<String, String>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    let query = "select labels from devices where id = $1";
    let before: Option<String> =
        sqlx::query_scalar(query).bind(device.as_str()).fetch_optional(&mut *connection).await?;
    let mut merged = labels.clone();
    let before = before.and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(&text).ok());
    merged.extend(before.unwrap_or_default());
    sqlx::query(
        "insert into devices (id, first_seen, last_seen, labels, group_name) values ($1, $2, $2, $3, $4)
         on conflict (id) do update set labels = excluded.labels,
             group_name = coalesce(devices.group_name, excluded.group_name), last_seen = excluded.last_seen",
    )
    .bind(device.as_str())
    .bind(now.0)
    .bind(serde_json::json!(merged).to_string())
    .bind(group)
    .execute(connection)
    .await?;
    Ok(())
}
