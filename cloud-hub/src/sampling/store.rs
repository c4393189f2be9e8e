//! Policies in the catalog: the ones that hold, and every change that there was.

use std::collections::BTreeMap;

use cloud_hub_core::selector::Selector;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use tributary_wire::{GroupName, Micros, SamplingPolicy};

use super::{MAX_POLICIES, Policy, PolicyError};
use crate::audit;

/// A policy that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its name.
    pub name: GroupName,
    /// The change that made it what it is.
    pub number: i64,
    /// Whom it is for.
    pub selector: Selector,
    /// What it says.
    pub policy: Policy,
    /// Since when.
    pub changed: Micros,
}

/// One change of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Counts up over all policies.
    pub number: i64,
    /// Whom it was for.
    pub selector: String,
    /// What it said; none: it was taken back.
    pub policy: Option<Policy>,
    /// When.
    pub changed: Micros,
}

fn unreadable(error: impl ToString) -> PolicyError {
    PolicyError::Unreadable(error.to_string())
}

/// All policies that hold, the one that wins over another before it.
#[derive(Debug, Clone, Default)]
pub struct Policies(Vec<Stored>);

impl Policies {
    /// As they are now.
    pub async fn read(catalog: &mut SqliteConnection) -> Result<Self, PolicyError> {
        let query = "select name, number, selector, policy_json, changed from sampling_policies order by name";
        let rows: Vec<(String, i64, String, String, i64)> = sqlx::query_as(query).fetch_all(catalog).await?;
        let read = |(name, number, selector, policy, changed): (String, i64, String, String, i64)| {
            Ok(Stored {
                name: GroupName::new(&name).map_err(unreadable)?,
                number,
                selector: selector.parse().map_err(unreadable)?,
                policy: serde_json::from_str(&policy).map_err(unreadable)?,
                changed: Micros(changed),
            })
        };
        let mut policies = rows.into_iter().map(read).collect::<Result<Vec<Stored>, PolicyError>>()?;
        policies.sort_by_key(|policy| std::cmp::Reverse(policy.selector.labels()));
        Ok(Self(policies))
    }

    /// All of them.
    pub fn all(&self) -> &[Stored] {
        &self.0
    }

    /// The one that a device with these labels keeps to.
    pub fn of(&self, labels: &BTreeMap<String, String>) -> Option<&Stored> {
        self.0.iter().find(|policy| policy.selector.matches(labels))
    }

    /// As [`Policies::of`], as it travels.
    pub fn wire_of(&self, labels: &BTreeMap<String, String>) -> Result<Option<SamplingPolicy>, PolicyError> {
        self.of(labels).map(|it| it.policy.wire(it.number as u64).map_err(PolicyError::from)).transpose()
    }

    /// The same with a policy put in, or in the place of the one of its name: what would hold if it were set.
    #[must_use]
    pub fn with(&self, stored: Stored) -> Self {
        let mut policies: Vec<Stored> = self.0.iter().filter(|it| it.name != stored.name).cloned().collect();
        policies.push(stored);
        policies.sort_by(|a, b| (b.selector.labels(), &a.name).cmp(&(a.selector.labels(), &b.name)));
        Self(policies)
    }
}

/// One policy.
pub async fn get(catalog: &mut SqliteConnection, name: &GroupName) -> Result<Stored, PolicyError> {
    let policies = Policies::read(catalog).await?;
    policies.0.into_iter().find(|it| it.name == *name).ok_or_else(|| PolicyError::NotFound(name.clone()))
}

/// Sets a policy; one that says the same already stays as it is. `expected` is its newest change, 0: none.
pub async fn put(
    catalog: &mut SqliteConnection,
    name: &GroupName,
    (selector, policy): (&Selector, &Policy),
    expected: Option<i64>,
    now: Micros,
) -> Result<(Stored, bool), PolicyError> {
    policy.wire(0)?;
    let policies = Policies::read(&mut *catalog).await?;
    let before = policies.0.iter().find(|it| it.name == *name);
    check(name, before, expected)?;
    if let Some(same) = before.filter(|it| it.selector == *selector && it.policy == *policy) {
        return Ok((same.clone(), false));
    }
    if before.is_none() && policies.0.len() >= MAX_POLICIES {
        return Err(PolicyError::TooMany(name.clone()));
    }
    let text = serde_json::to_string(policy).map_err(unreadable)?;
    let number = change(&mut *catalog, name, &selector.to_string(), Some(&text), now).await?;
    sqlx::query(
        "insert into sampling_policies (name, number, selector, policy_json, changed) values ($1, $2, $3, $4, $5)
         on conflict (name) do update set number = excluded.number, selector = excluded.selector,
         policy_json = excluded.policy_json, changed = excluded.changed",
    )
    .bind(name.as_str())
    .bind(number)
    .bind(selector.to_string())
    .bind(&text)
    .bind(now.0)
    .execute(&mut *catalog)
    .await?;
    let stored =
        Stored { name: name.clone(), number, selector: selector.clone(), policy: policy.clone(), changed: now };
    let (from, to) = (before.map_or(Value::Null, told), told(&stored));
    let change = audit::Change { action: "sampling.set", subject: name.as_str(), from, to };
    audit::record(catalog, change, now).await?;
    Ok((stored, true))
}

/// Takes a policy back; what it was.
pub async fn clear(
    catalog: &mut SqliteConnection,
    name: &GroupName,
    expected: Option<i64>,
    now: Micros,
) -> Result<Stored, PolicyError> {
    let before = get(&mut *catalog, name).await?;
    check(name, Some(&before), expected)?;
    change(&mut *catalog, name, &before.selector.to_string(), None, now).await?;
    let query = "delete from sampling_policies where name = $1";
    sqlx::query(query).bind(name.as_str()).execute(&mut *catalog).await?;
    let change =
        audit::Change { action: "sampling.clear", subject: name.as_str(), from: told(&before), to: Value::Null };
    audit::record(catalog, change, now).await?;
    Ok(before)
}

fn check(name: &GroupName, before: Option<&Stored>, expected: Option<i64>) -> Result<(), PolicyError> {
    let found = before.map_or(0, |before| before.number);
    match expected {
        Some(expected) if expected != found => Err(PolicyError::Changed { name: name.clone(), found, expected }),
        _ => Ok(()),
    }
}

fn told(stored: &Stored) -> Value {
    json!({"number": stored.number, "selector": stored.selector.to_string(), "policy": stored.policy})
}

async fn change(
    catalog: &mut SqliteConnection,
    name: &GroupName,
    selector: &str,
    policy: Option<&str>,
    now: Micros,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "insert into sampling_changes (number, name, selector, policy_json, changed)
         values ((select coalesce(max(number), 0) + 1 from sampling_changes), $1, $2, $3, $4) returning number",
    )
    .bind(name.as_str())
    .bind(selector)
    .bind(policy)
    .bind(now.0)
    .fetch_one(catalog)
    .await
}

/// Everything that a policy ever was, newest first.
pub async fn history(
    catalog: &mut SqliteConnection,
    name: &GroupName,
    before: i64,
    limit: u32,
) -> Result<Vec<Change>, PolicyError> {
    let query = "select number, selector, policy_json, changed from sampling_changes
                 where name = $1 and number < $2 order by number desc limit $3";
    let rows: Vec<(i64, String, Option<String>, i64)> =
        sqlx::query_as(query).bind(name.as_str()).bind(before).bind(i64::from(limit)).fetch_all(catalog).await?;
    let read = |(number, selector, policy, changed): (i64, String, Option<String>, i64)| {
        let policy = policy.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable)?;
        Ok(Change { number, selector, policy, changed: Micros(changed) })
    };
    rows.into_iter().map(read).collect()
}
