//! Sessions of browsers: a cookie that stands for a token which was shown once.

use serde_json::json;
use sqlx::{SqliteConnection, SqliteExecutor};
use tributary_wire::{Micros, Sha256};

use super::Role;
use super::secret::Secret;
use super::tokens::Verified;
use crate::audit::{self, Change};

/// Name of the cookie. The prefix binds it to this very host, to HTTPS and to the whole of it.
pub const COOKIE: &str = "__Host-tributary";
/// Its name on a development machine's plain listener, where a browser refuses the prefix.
pub const PLAIN_COOKIE: &str = "tributary";
/// Live sessions of one token; a further one ends the oldest.
const PER_TOKEN: i64 = 100;

/// A session that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its key in the catalog.
    pub digest: Sha256,
    /// The token that it began with.
    pub token: Verified,
    /// When it began.
    pub created: Micros,
    /// When it ends at the latest.
    pub expires: Micros,
    /// When it was last used, as the catalog knows it.
    pub used: Micros,
}

/// The value of the cookie in a `Cookie` header, if it is there exactly once: two of them would mean that somebody else
/// has set one.
pub fn cookie<'a>(headers: impl Iterator<Item = &'a str>, name: &str) -> Option<Secret> {
    let pairs = headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Secret::parse(value),
        _ => None,
    }
}

/// The `Set-Cookie` header that begins (or, without a secret, ends) a session in a browser.
pub fn set_cookie(secret: Option<&Secret>, seconds: u64, secure: bool) -> String {
    let (name, secure) = if secure { (COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let (value, age) = secret.map_or((String::new(), 0), |secret| (secret.reveal(), seconds));
    format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

/// What a page must send back with every change, so that no other site's page can make the browser do it.
pub fn csrf(secret: &Secret) -> Secret {
    secret.derive("csrf")
}

/// Keeps a new session's hash; `false` if its token does not count any more.
pub async fn begin(
    catalog: &mut SqliteConnection,
    secret: &Secret,
    token: &Verified,
    expires: Micros,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    // The token may have been revoked since it was checked; then there must be no session that outlives it.
    let query = sqlx::query(
        "insert into sessions (digest, token, created, expires, used)
         select $1, id, $3, $4, $3 from api_tokens where id = $2 and revoked is null",
    )
    .bind(&secret.digest().0[..])
    .bind(&token.id)
    .bind(now.0)
    .bind(expires.0);
    if query.execute(&mut *catalog).await?.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "delete from sessions where token = $1 and digest not in
         (select digest from sessions where token = $1 order by created desc limit $2)",
    )
    .bind(&token.id)
    .bind(PER_TOKEN)
    .execute(&mut *catalog)
    .await?;
    let to = json!({"token": token.id, "role": token.role.name(), "expires": expires.0});
    let subject = subject(&secret.digest());
    let change = Change { action: "session.begin", subject: &subject, from: serde_json::Value::Null, to };
    audit::record(catalog, change, now).await?;
    Ok(true)
}

/// Looks a session up; its token must count still.
pub async fn find(
    catalog: impl SqliteExecutor<'_>,
    secret: &Secret,
    now: Micros,
) -> Result<Option<Session>, sqlx::Error> {
    #[derive(sqlx::FromRow)]
    struct Row {
        id: String,
        name: String,
        role: String,
        token_expires: Option<i64>,
        created: i64,
        expires: i64,
        used: i64,
    }
    let digest = secret.digest();
    let row: Option<Row> = sqlx::query_as(
        "select t.id, t.name, t.role, t.expires as token_expires, s.created, s.expires, s.used
         from sessions s join api_tokens t on t.id = s.token
         where s.digest = $1 and s.expires > $2 and t.revoked is null and (t.expires is null or t.expires > $2)",
    )
    .bind(&digest.0[..])
    .bind(now.0)
    .fetch_optional(catalog)
    .await?;
    Ok(row.and_then(|row| {
        let expires = row.token_expires.map(Micros);
        let token = Verified { id: row.id, name: row.name, role: Role::from_name(&row.role)?, expires };
        let (created, expires, used) = (Micros(row.created), Micros(row.expires), Micros(row.used));
        Some(Session { digest, token, created, expires, used })
    }))
}

/// Ends one.
pub async fn end(catalog: &mut SqliteConnection, session: &Session, now: Micros) -> Result<(), sqlx::Error> {
    let query = sqlx::query("delete from sessions where digest = $1").bind(&session.digest.0[..]);
    if query.execute(&mut *catalog).await?.rows_affected() == 0 {
        return Ok(());
    }
    let from = json!({"token": session.token.id});
    let subject = subject(&session.digest);
    let change = Change { action: "session.end", subject: &subject, from, to: serde_json::Value::Null };
    audit::record(catalog, change, now).await
}

/// Clears away those that have ended by themselves.
pub(super) async fn clear(catalog: &mut SqliteConnection, idle_since: Micros, now: Micros) -> Result<(), sqlx::Error> {
    let query = "delete from sessions where expires <= $1 or used <= $2";
    sqlx::query(query).bind(now.0).bind(idle_since.0).execute(catalog).await.map(|_| ())
}

/// The first digits of the hash tell sessions apart in the log; the cookie does not follow from them.
fn subject(digest: &Sha256) -> String {
    digest.to_string().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_once_or_not_at_all() {
        let secret = Secret::random().unwrap();
        let value = secret.reveal();
        let of = |headers: &[String]| cookie(headers.iter().map(String::as_str), COOKIE);
        assert_eq!(of(&[format!("{COOKIE}={value}")]), Some(secret.clone()));
        assert_eq!(of(&[format!("a=b; {COOKIE}={value}; c=d")]), Some(secret.clone()));
        assert_eq!(of(&["a=b".to_owned(), format!("{COOKIE}={value}")]), Some(secret));
        for wrong in [
            String::new(),
            format!("x{COOKIE}={value}"),
            format!("{COOKIE}={value}; {COOKIE}={value}"),
            format!("{COOKIE}=\"{value}\""),
            format!("{COOKIE}={}", &value[1..]),
        ] {
            assert_eq!(of(std::slice::from_ref(&wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn cookies_are_kept_from_scripts_other_sites_and_plain_connections() {
        let secret = Secret::random().unwrap();
        let set = set_cookie(Some(&secret), 3_600, true);
        let expected = "; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(set, format!("__Host-tributary={}{expected}", secret.reveal()));
        assert_eq!(set_cookie(None, 3_600, false), "tributary=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn any_header_is_read_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = cookie(std::iter::once(&*String::from_utf8_lossy(bytes)), COOKIE);
        });
    }
}
