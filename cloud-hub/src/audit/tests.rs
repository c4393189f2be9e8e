use serde_json::json;
use sqlx::SqliteConnection;
use tributary_wire::{DeviceId, Micros, Sha256};

use super::{Change, Claim, Finding, Noted, Verdict, Verifier, entry, export, record, store};
use crate::access::{Caller, Role, Who};
use crate::catalog::Catalog;

async fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(&folder.path().join("catalog.db")).await.unwrap();
    (folder, catalog)
}

fn caller() -> Caller {
    let who = Who::Token { id: "01j".to_owned(), role: Role::Operator };
    Caller { who, from: Some("192.0.2.7:4000".parse().unwrap()), certificate: None }
}

async fn write(catalog: &Catalog, count: usize) {
    for n in 0..count {
        let mut transaction = catalog.write().await.unwrap();
        let subject = format!("edge-{n}");
        let change = Change {
            action: "device.set",
            subject: &subject,
            from: json!(null),
            to: json!({"share": 0.1 + n as f64, "labels": {"b": "é\n", "a": n}}),
        };
        caller().scope(record(&mut transaction, change, Micros(1_000 + n as i64))).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

async fn verify(connection: &mut SqliteConnection, claim: Option<Claim>) -> Verdict {
    super::verify::stored(connection, claim).await.unwrap()
}

async fn tampered(count: usize, sql: &'static str) -> Verdict {
    let (_folder, catalog) = catalog().await;
    write(&catalog, count).await;
    let mut transaction = catalog.write().await.unwrap();
    for trigger in ["audit_never_changed", "audit_never_removed", "audit_in_order"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("drop trigger {trigger}"))).execute(&mut *transaction).await.unwrap();
    }
    sqlx::raw_sql(sql).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    verify(&mut catalog.reader().acquire().await.unwrap(), None).await
}

fn found(verdict: &Verdict) -> (u64, &str) {
    let Finding { number, kind, .. } = verdict.finding.as_ref().expect("something is wrong");
    assert!(!verdict.whole);
    (*number, kind)
}

#[tokio::test]
async fn an_entry_says_who_did_what_and_from_where() {
    let (_folder, catalog) = catalog().await;
    let mut transaction = catalog.write().await.unwrap();
    let change = |subject| Change { action: "a.b", subject, from: json!({"x": 1}), to: json!(null) };
    record(&mut transaction, change("one"), Micros(1)).await.unwrap();
    let device = Caller { who: Who::Device(DeviceId::new("edge-1").unwrap()), ..Caller::default() };
    device.scope(record(&mut transaction, change("two"), Micros(2))).await.unwrap();
    let noted = caller().scope(async { Noted::new("c.d", "three", json!(null), json!(3)) }).await;
    noted.record(&mut transaction, Micros(3)).await.unwrap();
    Caller::default().scope(super::record_own(&mut transaction, change("four"), Micros(4))).await.unwrap();
    Caller::default().scope(record(&mut transaction, change("five"), Micros(5))).await.unwrap();
    transaction.commit().await.unwrap();
    let all = entries(&catalog).await;
    let who: Vec<_> = all.iter().map(|e| (&*e.draft.who, &*e.draft.role, &*e.draft.origin)).collect();
    let nobody = ("nobody", "", "");
    assert_eq!(
        who,
        [
            ("hub", "", ""),
            ("device:edge-1", "", ""),
            ("token:01j", "operator", "192.0.2.7:4000"),
            ("hub", "", ""),
            nobody
        ]
    );
    assert_eq!((&*all[0].draft.from, &*all[0].draft.to), (r#"{"x":1}"#, "null"));
    assert_eq!(all.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

/// The encoding is a promise: logs that were exported must verify for ever.
#[test]
fn the_hash_is_the_documented_one() {
    let change = Change { action: "device.set", subject: "edge-1", from: json!(null), to: json!({"group": "canary"}) };
    let entry = entry::Draft::new(&caller(), change, Micros(1_700_000_000_000_000)).after(entry::NOTHING);
    let mut bytes = b"tributary audit entry 1\0".to_vec();
    bytes.extend([0; 32]);
    bytes.extend(1u64.to_be_bytes());
    bytes.extend(1_700_000_000_000_000i64.to_be_bytes());
    let texts = ["token:01j", "operator", "device.set", "edge-1", "null", r#"{"group":"canary"}"#, "192.0.2.7:4000"];
    for text in texts {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    assert_eq!(entry.hash, tributary_release::digest(&bytes));
}

#[tokio::test]
async fn the_catalog_refuses_to_change_or_remove_entries() {
    let (_folder, catalog) = catalog().await;
    write(&catalog, 2).await;
    for sql in [
        "update audit set who = 'nobody' where number = 1",
        "delete from audit where number = 2",
        "insert or replace into audit select 1, 9, who, role, action, subject, from_json, to_json, origin, previous, hash
         from audit where number = 1",
        "insert into audit select 7, 9, who, role, action, subject, from_json, to_json, origin, previous, hash
         from audit where number = 1",
    ] {
        let mut transaction = catalog.write().await.unwrap();
        let refused = sqlx::query(sql).execute(&mut *transaction).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{sql}: {refused}");
    }
    assert!(verify(&mut catalog.reader().acquire().await.unwrap(), None).await.whole);
}

#[tokio::test]
async fn a_change_in_any_column_is_found() {
    for (sql, number, kind) in [
        ("update audit set time = time + 1 where number = 3", 3, "changed"),
        ("update audit set who = 'hub' where number = 3", 3, "changed"),
        ("update audit set role = 'admin' where number = 3", 3, "changed"),
        ("update audit set action = 'device.get' where number = 3", 3, "changed"),
        ("update audit set subject = 'edge-9' where number = 3", 3, "changed"),
        ("update audit set from_json = '{}' where number = 3", 3, "changed"),
        ("update audit set to_json = to_json || ' ' where number = 3", 3, "changed"),
        ("update audit set origin = '' where number = 3", 3, "changed"),
        ("update audit set previous = zeroblob(32) where number = 3", 3, "changed"),
        ("update audit set hash = zeroblob(32) where number = 3", 3, "changed"),
        ("update audit set hash = x'00' where number = 3", 3, "unreadable"),
        ("update audit set time = 'soon' where number = 3", 3, "unreadable"),
        ("update audit set who = x'ff' where number = 3", 3, "unreadable"),
        ("update audit set number = 9 where number = 3", 3, "missing"),
        ("update audit set number = -3 where number = 3", 1, "unreadable"),
        // A byte moved from one field to the next leaves the same bytes in the same order.
        ("update audit set action = 'device.se', subject = 't' || subject where number = 3", 3, "changed"),
    ] {
        let verdict = tampered(5, sql).await;
        assert_eq!(found(&verdict), (number, kind), "{sql}: {verdict:?}");
    }
}

#[tokio::test]
async fn removed_swapped_and_added_entries_are_found() {
    for (sql, number, kind) in [
        ("delete from audit where number = 3", 3, "missing"),
        ("delete from audit where number = 1", 1, "missing"),
        ("delete from audit where number = 3; update audit set number = number - 1 where number > 3", 3, "changed"),
        (
            "update audit set number = 100 where number = 2; update audit set number = 2 where number = 3;
             update audit set number = 3 where number = 100",
            2,
            "changed",
        ),
        (
            "insert into audit select 6, time, who, role, action, subject, from_json, to_json, origin, previous, hash
             from audit where number = 5",
            6,
            "changed",
        ),
    ] {
        let verdict = tampered(5, sql).await;
        assert_eq!(found(&verdict), (number, kind), "{sql}: {verdict:?}");
    }
    let verdict = tampered(5, "delete from audit where number in (2, 3)").await;
    assert_eq!(verdict.finding.unwrap().problem, "2 entries are missing, 2 to 3");
}

#[tokio::test]
async fn an_entry_with_a_new_hash_is_found_by_the_next() {
    let (_folder, catalog) = catalog().await;
    write(&catalog, 5).await;
    let mut all = entries(&catalog).await;
    all[2].draft.who = "hub".to_owned();
    all[2].hash = all[2].expected_hash();
    let mut verifier = Verifier::new(0, None);
    assert!(all.iter().map(|entry| verifier.take(entry)).any(|fine| !fine));
    assert_eq!(found(&verifier.finish()), (3, "replaced"));
    // Everything after it written anew as well: only who remembers a head can tell.
    let remembered = all[3].hash;
    for n in 3..5 {
        all[n].previous = all[n - 1].hash;
        all[n].hash = all[n].expected_hash();
    }
    let of = |claim: Option<Claim>| {
        let mut verifier = Verifier::new(0, claim);
        all.iter().for_each(|entry| _ = verifier.take(entry));
        verifier.finish()
    };
    assert!(of(None).whole);
    assert_eq!(found(&of(Some(Claim { number: Some(4), hash: remembered }))), (4, "rewritten"));
    assert_eq!(found(&of(Some(Claim { number: None, hash: remembered }))), (6, "cut-off"));
}

async fn entries(catalog: &Catalog) -> Vec<entry::Entry> {
    let mut reader = catalog.reader().acquire().await.unwrap();
    let mut all = store::list(&mut reader, &store::Filter::default(), i64::MAX, 1_000).await.unwrap();
    all.reverse();
    all
}

#[tokio::test]
async fn a_cut_end_is_found_by_a_remembered_head_alone() {
    let (_folder, catalog) = catalog().await;
    write(&catalog, 5).await;
    let head = store::head(&mut catalog.reader().acquire().await.unwrap()).await.unwrap();
    let earlier = entries(&catalog).await[1].head();
    let mut transaction = catalog.write().await.unwrap();
    sqlx::raw_sql("drop trigger audit_never_removed; delete from audit where number > 3")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let mut reader = catalog.reader().acquire().await.unwrap();
    assert!(verify(&mut reader, None).await.whole);
    for text in [format!("{}:{}", head.number, head.hash), head.hash.to_string()] {
        let verdict = verify(&mut reader, Some(text.parse().unwrap())).await;
        assert_eq!(found(&verdict), (4, "cut-off"), "{text}: {verdict:?}");
    }
    for claim in [Claim { number: Some(2), hash: earlier.hash }, Claim { number: None, hash: earlier.hash }] {
        assert!(verify(&mut reader, Some(claim)).await.whole, "{claim}");
    }
    let wrong = Claim { number: Some(1), hash: earlier.hash };
    assert_eq!(found(&verify(&mut reader, Some(wrong)).await), (1, "rewritten"));
}

#[tokio::test]
async fn an_empty_log_is_whole_and_an_emptied_one_is_not() {
    let (_folder, catalog) = catalog().await;
    let mut reader = catalog.reader().acquire().await.unwrap();
    let nothing = Claim { number: Some(0), hash: Sha256([0; 32]) };
    assert!(verify(&mut reader, None).await.whole);
    assert!(verify(&mut reader, Some(nothing)).await.whole);
    let remembered = Claim { number: Some(1), hash: tributary_release::digest(b"x") };
    assert_eq!(found(&verify(&mut reader, Some(remembered)).await), (1, "cut-off"));
    for wrong in ["", "x", "1:", ":aa", "-1:00"] {
        assert!(wrong.parse::<Claim>().is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_leave_no_gap() {
    let (_folder, catalog) = catalog().await;
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let catalog = catalog.clone();
            tokio::spawn(async move { write(&catalog, 10).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // A transaction that is given up takes its entry with it.
    let mut transaction = catalog.write().await.unwrap();
    let change = Change { action: "a.b", subject: "c", from: json!(null), to: json!(null) };
    record(&mut transaction, change, Micros(1)).await.unwrap();
    drop(transaction);
    write(&catalog, 1).await;
    let verdict = verify(&mut catalog.reader().acquire().await.unwrap(), None).await;
    assert_eq!((verdict.whole, verdict.first, verdict.last), (true, 1, 81));
}

#[tokio::test]
async fn an_export_verifies_again_and_shows_every_change() {
    let (_folder, catalog) = catalog().await;
    write(&catalog, 5).await;
    let lines: Vec<String> = entries(&catalog).await.iter().map(export::write).collect();
    let check = |after: u64, lines: &[String]| {
        let mut verifier = Verifier::new(after, None);
        for line in lines {
            match export::read(line) {
                Ok(entry) => _ = verifier.take(&entry),
                Err(error) => verifier.unreadable(error),
            }
        }
        verifier.finish()
    };
    assert!(check(0, &lines).whole);
    assert_eq!(found(&check(0, &lines[2..])), (1, "missing"));
    let part = check(2, &lines[2..]);
    assert_eq!((part.whole, part.first, part.last), (true, 3, 5));
    assert_eq!(lines[0].matches('\n').count(), 1);
    for (old, new) in [("edge-2", "edge-3"), ("2.1", "2.10"), ("\"a\":2", "\"a\": 2"), ("\"who\"", "\"wh0\"")] {
        let mut changed = lines.clone();
        assert!(changed[2].contains(old), "{}", changed[2]);
        changed[2] = changed[2].replace(old, new);
        assert_eq!(found(&check(0, &changed)).0, 3, "{old} → {new}");
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_everything_it_offers() {
    let (_folder, catalog) = catalog().await;
    write(&catalog, 5).await;
    let mut transaction = catalog.write().await.unwrap();
    let change = Change { action: "devices.count", subject: "all", from: json!(null), to: json!(5) };
    record(&mut transaction, change, Micros(9_000)).await.unwrap();
    transaction.commit().await.unwrap();
    let mut reader = catalog.reader().acquire().await.unwrap();
    let some = |text: &str| Some(text.to_owned());
    let none = store::Filter::default;
    for (filter, expected) in [
        (none(), vec![6, 5, 4, 3, 2, 1]),
        (store::Filter { who: some("hub"), ..none() }, vec![6]),
        (store::Filter { action: some("device"), ..none() }, vec![5, 4, 3, 2, 1]),
        (store::Filter { action: some("device.set"), ..none() }, vec![5, 4, 3, 2, 1]),
        (store::Filter { action: some("device.s"), ..none() }, vec![]),
        (store::Filter { subject: some("edge-3"), ..none() }, vec![4]),
        (store::Filter { from: Some(1_003), ..none() }, vec![6, 5, 4]),
        (store::Filter { from: Some(1_001), to: Some(1_003), ..none() }, vec![3, 2]),
    ] {
        let found = store::list(&mut reader, &filter, i64::MAX, 100).await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.number).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let page = store::list(&mut reader, &none(), 5, 2).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.number).collect::<Vec<_>>(), [4, 3]);
}
