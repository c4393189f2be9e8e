//! What people send as signed metadata may be anything.

use serde_json::Value;

use super::tests::{key, line, line_content, root, targets};
use super::*;

/// A file, and the one that lists who may sign it.
struct Valid {
    role: RoleName,
    bytes: Vec<u8>,
    delegator: Vec<u8>,
}

fn valid() -> [Valid; 3] {
    let root = sign(&build_root(&root(1, &[1, 2, 3])).unwrap(), &[key(1), key(2)]).unwrap();
    let top = sign(&build_targets(&RoleName::Targets, &targets(1)).unwrap(), &[key(5)]).unwrap();
    let of_line = sign_delegated(&line(), &line_content(1), &[key(9)]).unwrap();
    [
        Valid { role: RoleName::Root, bytes: root.clone(), delegator: root.clone() },
        Valid { role: RoleName::Targets, bytes: top.clone(), delegator: root },
        Valid { role: line(), bytes: of_line, delegator: top },
    ]
}

/// Puts another value in place of the one with this number, counted through the whole file.
fn replace(value: &mut Value, place: &mut usize, by: &Value) {
    if *place == 0 {
        *value = by.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, place, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, place, by)),
        _ => {}
    }
}

/// Everything that is done with a file before its signatures count, and what counts is what was signed.
fn look(Valid { role, bytes: signed, delegator }: &Valid, bytes: &[u8]) {
    let _ = header(bytes);
    let (root, targets) = (read_root(bytes).ok(), read_targets(bytes).ok());
    let _ = describe(Some(signed), bytes);
    let _ = describe(None, bytes);
    let _ = progress(delegator, role, bytes);
    let _ = listed(bytes, role);
    if let Ok(both) = merge(signed, bytes) {
        verify(delegator, role, &both).unwrap();
    }
    if verify(delegator, role, bytes).is_ok() {
        assert!(
            root.is_some_and(|found| Some(found) == read_root(signed).ok())
                || targets.is_some_and(|found| Some(found) == read_targets(signed).ok())
        );
    }
}

#[test]
fn the_valid_ones_are_taken() {
    for Valid { role, bytes, delegator } in valid() {
        verify(&delegator, &role, &bytes).unwrap();
    }
}

#[test]
fn json_that_is_no_object_is_refused() {
    for bytes in [&b"\"signed\""[..], b"7", b"[]", b"null", b"{}", b"{\"signed\":\"root\"}"] {
        assert!(header(bytes).is_err());
        for file in valid() {
            look(&file, bytes);
        }
    }
}

#[test]
fn any_bytes_are_metadata_or_refused_and_nothing_counts_but_what_was_signed() {
    let valid = valid();
    bolero::check!().with_type::<(Vec<(u16, u8)>, u16, Vec<u8>)>().for_each(|(changes, place, own)| {
        let by: Value = serde_json::from_slice(own).unwrap_or_else(|_| match own.first() {
            None => Value::Null,
            Some(0) => Value::from(u64::MAX),
            Some(1) => Value::from(-1),
            Some(2) => Value::Array(Vec::new()),
            Some(3) => Value::Object(serde_json::Map::new()),
            Some(_) => Value::from(String::from_utf8_lossy(own)),
        });
        for file in &valid {
            look(file, own);
            let mut changed = file.bytes.clone();
            for (at, byte) in changes {
                let at = usize::from(*at) % changed.len();
                changed[at] = *byte;
            }
            look(file, &changed);
            let mut value: Value = serde_json::from_slice(&file.bytes).unwrap();
            replace(&mut value, &mut (usize::from(*place) % 200), &by);
            look(file, &serde_json::to_vec(&value).unwrap());
        }
    });
}
