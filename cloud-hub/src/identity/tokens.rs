//! Enrolment tokens in the catalog.

use std::collections::BTreeMap;

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde_json::{Value, json};
use sqlx::{FromRow, SqliteConnection, SqlitePool};
use tributary_identity::EnrolmentToken;
use tributary_wire::{GroupName, Micros, Sha256};

use super::decide::Kept;
use super::{Identity, to_the_end};
use crate::access::{Caller, Who};
use crate::audit::{self, Change};

/// An enrolment token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// The group that its devices begin in.
    pub group: Option<String>,
    /// The labels that its devices begin with.
    pub labels: BTreeMap<String, String>,
    /// How many devices it is for.
    pub uses_allowed: i64,
    /// How many have used it.
    pub uses_made: i64,
    /// Until when it may be used.
    pub expires: Micros,
    /// When it was made.
    pub created: Micros,
    /// By whom.
    pub created_by: String,
    /// When it was revoked.
    pub revoked: Option<Micros>,
}

/// What a token is to be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The group that its devices begin in.
    pub group: Option<GroupName>,
    /// The labels that its devices begin with.
    pub labels: BTreeMap<String, String>,
    /// How many devices it is for.
    pub uses: u32,
    /// Until when it may be used.
    pub expires: Micros,
}

#[derive(FromRow)]
struct Row {
    id: String,
    digest: Vec<u8>,
    group_name: Option<String>,
    labels_json: String,
    uses_allowed: i64,
    uses_made: i64,
    expires: i64,
    created: i64,
    created_by: String,
    revoked: Option<i64>,
}

impl From<Row> for Token {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            group: row.group_name,
            labels: serde_json::from_str(&row.labels_json).unwrap_or_default(),
            uses_allowed: row.uses_allowed,
            uses_made: row.uses_made,
            expires: Micros(row.expires),
            created: Micros(row.created),
            created_by: row.created_by,
            revoked: row.revoked.map(Micros),
        }
    }
}

impl Token {
    fn told(&self) -> Value {
        json!({
            "group": self.group, "labels": self.labels, "uses_allowed": self.uses_allowed,
            "expires": self.expires.0, "revoked": self.revoked.map(|at| at.0),
        })
    }
}

impl Identity {
    /// Makes a token. Its text, with the secret, is in the answer and nowhere else.
    pub async fn create_token(&self, wanted: Wanted, now: Micros) -> anyhow::Result<(Token, EnrolmentToken)> {
        let mut random = [0; 40];
        OsRng.try_fill_bytes(&mut random)?;
        let (name, secret) = random.split_at(8);
        let digits = b"abcdefghijkmnpqrstuvwxyz23456789";
        let id: String = name.iter().map(|byte| char::from(digits[usize::from(*byte) % digits.len()])).collect();
        let secret = EnrolmentToken::new(&id, secret.try_into()?, self.authority().certificate().fingerprint())?;
        let token = Token {
            id,
            group: wanted.group.map(|group| group.to_string()),
            labels: wanted.labels,
            uses_allowed: wanted.uses.into(),
            uses_made: 0,
            expires: wanted.expires,
            created: now,
            created_by: maker(&Caller::current().who),
            revoked: None,
        };
        let mut transaction = self.catalog().write().await?;
        sqlx::query(
            "insert into enrolment_tokens (id, digest, group_name, labels_json, uses_allowed, expires, created, created_by)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&token.id)
        .bind(secret.digest().0.as_slice())
        .bind(&token.group)
        .bind(json!(token.labels).to_string())
        .bind(token.uses_allowed)
        .bind(token.expires.0)
        .bind(token.created.0)
        .bind(&token.created_by)
        .execute(&mut *transaction)
        .await?;
        let change =
            Change { action: "enrolment-token.create", subject: &token.id, from: Value::Null, to: token.told() };
        audit::record(&mut transaction, change, now).await?;
        transaction.commit().await?;
        Ok((token, secret))
    }

    /// Tokens after an id, in the order of their ids.
    pub async fn tokens(&self, after: &str, limit: u32) -> Result<Vec<Token>, sqlx::Error> {
        let query = "select * from enrolment_tokens where id > $1 order by id limit $2";
        let rows: Vec<Row> =
            sqlx::query_as(query).bind(after).bind(i64::from(limit)).fetch_all(self.catalog().reader()).await?;
        Ok(rows.into_iter().map(Token::from).collect())
    }

    /// Takes a token back; devices that have used it keep their certificates. `None`: there is none of this id.
    pub async fn revoke_token(self: &std::sync::Arc<Self>, id: &str, now: Micros) -> anyhow::Result<Option<Token>> {
        let (identity, id) = (self.clone(), id.to_owned());
        to_the_end(async move {
            let mut transaction = identity.catalog().write().await?;
            let row: Option<Row> = sqlx::query_as("select * from enrolment_tokens where id = $1")
                .bind(&id)
                .fetch_optional(&mut *transaction)
                .await?;
            let Some(before) = row.map(Token::from) else { return Ok(None) };
            if before.revoked.is_some() {
                return Ok(Some(before));
            }
            sqlx::query("update enrolment_tokens set revoked = $2 where id = $1")
                .bind(&id)
                .bind(now.0)
                .execute(&mut *transaction)
                .await?;
            let after = Token { revoked: Some(now), ..before.clone() };
            let change =
                Change { action: "enrolment-token.revoke", subject: &id, from: before.told(), to: after.told() };
            audit::record(&mut transaction, change, now).await?;
            transaction.commit().await?;
            Ok(Some(after))
        })
        .await
    }
}

/// Whoever made something, for people.
fn maker(who: &Who) -> String {
    match who {
        Who::Nobody => "nobody".to_owned(),
        Who::Device(device) => format!("device {device}"),
        Who::Token { id, .. } => format!("token {id}"),
        Who::Hub => "hub".to_owned(),
    }
}

/// The part of a token that decisions need, and the group and labels that its devices begin with.
pub(super) struct Found {
    pub kept: Kept,
    pub group: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// Looks a token up, on whichever connection.
pub(super) async fn find(connection: &mut SqliteConnection, id: &str) -> Result<Option<Found>, sqlx::Error> {
    let query = "select * from enrolment_tokens where id = $1";
    let row: Option<Row> = sqlx::query_as(query).bind(id).fetch_optional(connection).await?;
    row.map(|row| {
        let digest = row.digest.as_slice().try_into().map_err(|error| sqlx::Error::ColumnDecode {
            index: "digest".into(),
            source: Box::<dyn std::error::Error + Send + Sync>::from(format!("{error}")),
        })?;
        let kept = Kept {
            digest: Sha256(digest),
            uses_allowed: row.uses_allowed,
            uses_made: row.uses_made,
            expires: Micros(row.expires),
            revoked: row.revoked.is_some(),
        };
        let token = Token::from(row);
        Ok(Found { kept, group: token.group, labels: token.labels })
    })
    .transpose()
}

/// As [`find`], without a transaction.
pub(super) async fn look(pool: &SqlitePool, id: &str) -> Result<Option<Found>, sqlx::Error> {
    find(&mut *pool.acquire().await?, id).await
}

/// Uses a token once; whether there was a use left. One statement, so that of two devices that race one wins.
pub(super) async fn take_use(connection: &mut SqliteConnection, id: &str) -> Result<bool, sqlx::Error> {
    let query = "update enrolment_tokens set uses_made = uses_made + 1
                 where id = $1 and uses_made < uses_allowed and revoked is null";
    Ok(sqlx::query(query).bind(id).execute(connection).await?.rows_affected() == 1)
}
