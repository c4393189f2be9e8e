//! API tokens: their form, and the table of those that were given out.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::json;
use sqlx::{SqliteConnection, SqliteExecutor};
use tributary_wire::Micros;
use utoipa::ToSchema;

use super::Role;
use super::secret::{Secret, random_id, same};
use crate::audit::{self, Change};

const PREFIX: &str = "tributary-api";
/// Longest name of a token.
pub const NAME_BYTES: usize = 64;

/// A whole token, secret included. It is printed once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Which one; no secret.
    pub id: String,
    secret: Secret,
}

/// Not of the form of an API token. The text itself is never repeated: it is a secret, if perhaps another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API token: expected tributary-api.ID.SECRET; was it copied whole?")]
pub struct MalformedToken;

impl FromStr for ApiToken {
    type Err = MalformedToken;
    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let parts: Vec<&str> = text.trim().splitn(4, '.').collect();
        let [PREFIX, id, secret] = parts.as_slice() else { return Err(MalformedToken) };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(MalformedToken);
        }
        Ok(Self { id: (*id).to_owned(), secret: Secret::parse(secret).ok_or(MalformedToken)? })
    }
}

impl ApiToken {
    /// A new one, known to nobody yet.
    pub fn random() -> anyhow::Result<Self> {
        Ok(Self { id: random_id()?, secret: Secret::random()? })
    }

    /// The text form.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}", self.id, self.secret.reveal())
    }
}

/// A token as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// What it is for, as its maker said.
    pub name: String,
    /// What it may do: viewer, operator or admin.
    pub role: String,
    /// When it was made, UTC microseconds.
    pub created: i64,
    /// Id of the token that made it; absent when the hub itself did.
    pub maker: Option<String>,
    /// When it ends, UTC microseconds; absent: never.
    pub expires: Option<i64>,
    /// When it was revoked, UTC microseconds.
    pub revoked: Option<i64>,
    /// When it was last used, UTC microseconds; up to a minute late.
    pub last_used: Option<i64>,
}

const COLUMNS: &str = "id, name, role, created, maker, expires, revoked, last_used";

/// A token that was shown and may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends.
    pub expires: Option<Micros>,
}

/// What is to be given out.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends; `None`: never.
    pub expires: Option<Micros>,
}

/// What a row of the catalog says about a shown token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Usable(Verified),
    /// The secret is right, but: why it does not count any more. Only its owner learns this.
    Ended(String),
    /// There is none with this id, or the secret is wrong; nobody learns which.
    Wrong,
}

/// Looks a shown token up.
pub(super) async fn find(
    catalog: impl SqliteExecutor<'_>,
    token: &ApiToken,
    now: Micros,
) -> Result<Found, sqlx::Error> {
    #[derive(sqlx::FromRow)]
    struct Row {
        name: String,
        role: String,
        digest: Vec<u8>,
        expires: Option<i64>,
        revoked: Option<i64>,
    }
    let query = "select name, role, digest, expires, revoked from api_tokens where id = $1";
    let row: Option<Row> = sqlx::query_as(query).bind(&token.id).fetch_optional(catalog).await?;
    let Some(row) = row else { return Ok(Found::Wrong) };
    if !same(&row.digest, &token.secret.digest().0) {
        return Ok(Found::Wrong);
    }
    if row.revoked.is_some() {
        return Ok(Found::Ended(format!("the token {} was revoked", token.id)));
    }
    if row.expires.is_some_and(|expires| expires <= now.0) {
        return Ok(Found::Ended(format!("the token {} has expired", token.id)));
    }
    let Some(role) = Role::from_name(&row.role) else { return Ok(Found::Wrong) };
    Ok(Found::Usable(Verified { id: token.id.clone(), name: row.name, role, expires: row.expires.map(Micros) }))
}

/// Keeps a new token's hash.
pub async fn add(
    catalog: &mut SqliteConnection,
    token: &ApiToken,
    wish: &Wish,
    maker: Option<&str>,
    now: Micros,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into api_tokens (id, name, role, digest, created, maker, expires) values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&token.id)
    .bind(&wish.name)
    .bind(wish.role.name())
    .bind(&token.secret.digest().0[..])
    .bind(now.0)
    .bind(maker)
    .bind(wish.expires.map(|expires| expires.0))
    .execute(&mut *catalog)
    .await?;
    let to = json!({"name": wish.name, "role": wish.role.name(), "expires": wish.expires.map(|expires| expires.0)});
    let change = Change { action: "access.create", subject: &token.id, from: serde_json::Value::Null, to };
    audit::record(catalog, change, now).await
}

/// One token.
pub async fn get(catalog: impl SqliteExecutor<'_>, id: &str) -> Result<Option<Listed>, sqlx::Error> {
    let query = sqlx::AssertSqlSafe(format!("select {COLUMNS} from api_tokens where id = $1"));
    sqlx::query_as(query).bind(id).fetch_optional(catalog).await
}

/// Tokens by id, from after `after`.
pub async fn list(catalog: impl SqliteExecutor<'_>, after: &str, most: u32) -> Result<Vec<Listed>, sqlx::Error> {
    let query = sqlx::AssertSqlSafe(format!("select {COLUMNS} from api_tokens where id > $1 order by id limit $2"));
    sqlx::query_as(query).bind(after).bind(i64::from(most)).fetch_all(catalog).await
}

/// Whether a token that was checked before was not revoked since.
pub(super) async fn counts(catalog: impl SqliteExecutor<'_>, id: &str) -> Result<bool, sqlx::Error> {
    let query = "select exists (select 1 from api_tokens where id = $1 and revoked is null)";
    sqlx::query_scalar(query).bind(id).fetch_one(catalog).await
}

/// How many admins there would be without this one.
pub async fn admins_without(catalog: impl SqliteExecutor<'_>, id: &str, now: Micros) -> Result<i64, sqlx::Error> {
    let query = "select count(*) from api_tokens
                 where role = 'admin' and id <> $1 and revoked is null and (expires is null or expires > $2)";
    sqlx::query_scalar(query).bind(id).bind(now.0).fetch_one(catalog).await
}

/// Ends a token and its sessions; `false` if it had been revoked before.
pub async fn revoke(catalog: &mut SqliteConnection, token: &Listed, now: Micros) -> Result<bool, sqlx::Error> {
    let query = "update api_tokens set revoked = $2 where id = $1 and revoked is null";
    let done = sqlx::query(query).bind(&token.id).bind(now.0).execute(&mut *catalog).await?.rows_affected() > 0;
    if done {
        sqlx::query("delete from sessions where token = $1").bind(&token.id).execute(&mut *catalog).await?;
        let from = json!({"name": token.name, "role": token.role, "expires": token.expires});
        let change = Change { action: "access.revoke", subject: &token.id, from, to: serde_json::Value::Null };
        audit::record(catalog, change, now).await?;
    }
    Ok(done)
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} ({}, {})", self.id, self.name, self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_stays_out_of_logs() {
        let token = ApiToken::random().unwrap();
        let text = token.reveal();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("\t{text}\n").parse(), Ok(token.clone()), "an editor may have added a line's end");
        let secret = text.rsplit('.').next().unwrap();
        assert!(!format!("{token:?}").contains(secret));
        assert!(!MalformedToken.to_string().contains(secret));
        let cut = &text[..text.len() - 1];
        for wrong in ["", "tributary-api", "a.b.c", cut, &format!("{text}."), &text.replace("api", "enrol")] {
            assert_eq!(wrong.parse::<ApiToken>(), Err(MalformedToken), "{wrong}");
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(token) = text.parse::<ApiToken>() {
                assert_eq!(token.reveal(), text.trim());
            }
        });
    }
}
