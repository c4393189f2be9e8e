//! What a repository gives a device may be anything.

use serde_json::Value;

use super::*;

/// What a device comes to believe of a repository in which this file has other bytes.
async fn believes(files: &BTreeMap<String, Vec<u8>>, root: &[u8], name: &str, bytes: Vec<u8>) -> Option<Target> {
    let repository = Arc::new(MemoryRepository::default());
    files.iter().for_each(|(name, bytes)| repository.put(name, bytes.clone()));
    repository.put(name, bytes);
    let mut device = Device::new(root.to_vec(), &repository);
    device.fetch(PACKAGE).await.ok()
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

#[test]
fn any_bytes_in_place_of_a_file_are_refused_or_change_nothing_that_is_believed() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (forge, repository, mut device) = runtime.block_on(world());
    let rightful = runtime.block_on(device.fetch(PACKAGE)).unwrap();
    let names = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.models%2Fcard-fraud.json", "2.root.json"];
    let root = forge.root_file(&forge.root.keys);
    let keys = forge.root.keys.clone();
    let next = Forge { root_version: 2, ..forge }.root_file(&keys);
    let mut files: BTreeMap<String, Vec<u8>> =
        names[..4].iter().map(|name| ((*name).to_owned(), repository.get(name).unwrap())).collect();
    files.insert(names[4].to_owned(), next);
    let whole = believes(&files, &root, names[0], files[names[0]].clone());
    assert_eq!(runtime.block_on(whole).as_ref(), Some(&rightful));
    bolero::check!().with_type::<(u8, Vec<(u16, u8)>, u16, Vec<u8>)>().for_each(|(which, changes, place, own)| {
        let name = names[usize::from(*which) % names.len()];
        let mut changed = files[name].clone();
        for (at, byte) in changes {
            let at = usize::from(*at) % changed.len();
            changed[at] = *byte;
        }
        let by = match own.first() {
            None => Value::Null,
            Some(0) => Value::from(u64::MAX),
            Some(1) => Value::Array(Vec::new()),
            Some(_) => Value::from(String::from_utf8_lossy(own)),
        };
        let mut value: Value = serde_json::from_slice(&files[name]).unwrap();
        replace(&mut value, &mut (usize::from(*place) % 60), &by);
        for bytes in [own.clone(), changed, serde_json::to_vec(&value).unwrap()] {
            let found = runtime.block_on(believes(&files, &root, name, bytes));
            assert!(found.is_none_or(|found| found == rightful), "{name}");
        }
    });
}
