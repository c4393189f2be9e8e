use std::io::Cursor;

use super::*;
use crate::archive;

fn outcome(new: &[u8]) -> Outcome {
    Outcome { length: new.len() as u64, sha256: digest(new) }
}

fn applied(old: Option<&[u8]>, patch: &[u8], expected: &Outcome) -> Result<Vec<u8>, DeltaError> {
    let mut out = Vec::new();
    let result = apply(old, patch, &mut out, expected);
    assert!(out.len() as u64 <= expected.length, "never more than was promised");
    result.map(|()| out)
}

fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn weights(count: usize, moved: f32) -> Vec<u8> {
    let wave = |at: usize, by: f32| (at as f32 * by).sin();
    let weight = |at: usize| wave(at, 0.731) * (1.0 + moved * wave(at, 1.937));
    (0..count).flat_map(|at| weight(at).to_le_bytes()).collect()
}

fn package(manifest: &str, graphs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut members = vec![("manifest.json".to_owned(), manifest.as_bytes())];
    members.extend(graphs.iter().map(|(name, bytes)| (format!("graphs/{name}.onnx"), &bytes[..])));
    let mut file = Vec::new();
    archive::write(&members, &mut file).unwrap();
    file
}

/// A package and what a few more epochs made of it, with a longer manifest.
fn retrained() -> (Vec<u8>, Vec<u8>) {
    let graphs = |moved| {
        let graph = [&b"onnx:"[..], &weights(200_000, moved)].concat();
        [("f32", graph), ("int8", noise(9_000, 5))]
    };
    (package("{\"version\": 1}", &graphs(0.0)), package(&"{\"version\": 2}\n".repeat(99), &graphs(1e-3)))
}

#[test]
fn every_format_leads_to_the_package() {
    let (old, new) = retrained();
    let expected = outcome(&new);
    let whole = make(Format::Zstd, None, &new).unwrap();
    assert_eq!(applied(None, &whole, &expected).unwrap(), new);
    assert_eq!(applied(Some(&old), &whole, &expected).unwrap(), new, "an old one does not matter");
    let patch = make(Format::Aligned, Some(&old), &new).unwrap();
    assert_eq!(applied(Some(&old), &patch, &expected).unwrap(), new);
    assert!(patch.len() < new.len() * 6 / 10 && whole.len() > new.len() * 8 / 10, "{} {}", patch.len(), whole.len());
    let same = make(Format::Aligned, Some(&new), &new).unwrap();
    assert!(same.len() < 500, "{}", same.len());
    for format in Format::ALL {
        assert_eq!(Format::named(format.name()), Some(format));
    }
    let apart = make(Format::Aligned, None, &new).unwrap();
    assert_eq!(applied(None, &apart, &expected).unwrap(), new);
    assert!(apart.len() < whole.len(), "{} {}", apart.len(), whole.len());
}

#[test]
fn packages_that_have_nothing_in_common_work_too() {
    let (old, new) = retrained();
    let nothing = Vec::new();
    let no_archive = noise(700_000, 7);
    for (old, new) in [(&old, &nothing), (&nothing, &new), (&no_archive, &new), (&new, &no_archive)] {
        let patch = make(Format::Aligned, Some(old), new).unwrap();
        assert_eq!(&applied(Some(old), &patch, &outcome(new)).unwrap(), new);
        assert!(patch.len() < new.len() + new.len() / 100 + 200);
    }
}

#[test]
fn a_patch_for_another_package_or_from_another_one_is_named() {
    let (old, new) = retrained();
    let patch = make(Format::Aligned, Some(&old), &new).unwrap();
    let said = |old: Option<&[u8]>, patch: &[u8], to: &[u8]| applied(old, patch, &outcome(to)).unwrap_err().to_string();
    let (from, to) = (digest(&old), digest(&new));
    assert_eq!(
        said(Some(&old), &patch, &old),
        format!("the patch leads to package {to} of {} bytes, expected {from}", new.len())
    );
    let mut damaged = old.clone();
    damaged[5_000] ^= 1;
    let found = digest(&damaged);
    assert_eq!(
        said(Some(&damaged), &patch, &new),
        format!("the patch starts from package {from}, the one given has hash {found}")
    );
    assert_eq!(said(None, &patch, &new), format!("the patch needs the old package {from}, none was given"));
    assert_eq!(said(Some(&old), &new, &new), "not a patch: it begins with [6d, 61, 6e, 69]");
    assert_eq!(said(None, b"", &new), "the patch is cut off; 0 bytes of the package were made");
    let with = |place: usize, byte: u8| {
        let mut patch = patch.clone();
        patch[place] = byte;
        patch
    };
    assert_eq!(said(Some(&old), &with(4, 2), &new), "the patch has version 2, this program reads version 1");
    assert_eq!(said(Some(&old), &with(5, 9), &new), "the patch has the unknown format 9");
    let mut longer = patch.clone();
    longer.push(0);
    assert_eq!(said(Some(&old), &longer, &new), "the patch goes on behind the end of the package");
}

#[test]
fn a_cut_patch_is_refused_wherever_it_is_cut() {
    let old = package("old", &[("f32", weights(3_000, 0.0))]);
    let new = package("new", &[("f32", weights(3_000, 1e-3))]);
    for patch in [make(Format::Zstd, None, &new).unwrap(), make(Format::Aligned, Some(&old), &new).unwrap()] {
        for end in (0..patch.len()).step_by(37).chain([patch.len() - 1]) {
            let error = applied(Some(&old), &patch[..end], &outcome(&new)).unwrap_err();
            assert!(matches!(error, DeltaError::CutOff { .. }), "{end}: {error}");
        }
    }
}

#[test]
fn a_changed_byte_never_gives_another_package() {
    let old = package("old", &[("f32", weights(3_000, 0.0))]);
    let new = package("new", &[("f32", weights(3_000, 1e-3))]);
    for patch in [make(Format::Zstd, None, &new).unwrap(), make(Format::Aligned, Some(&old), &new).unwrap()] {
        for place in (0..patch.len()).step_by(53).chain(70..120) {
            let mut patch = patch.clone();
            patch[place] ^= 0x15;
            if let Ok(found) = applied(Some(&old), &patch, &outcome(&new)) {
                assert_eq!(found, new, "byte {place}");
            }
        }
    }
}

#[test]
fn a_bomb_stops_at_the_length_of_the_package() {
    let huge = vec![0; 64 << 20];
    let mut bomb = make(Format::Zstd, None, &huge).unwrap();
    assert!(bomb.len() < 20_000);
    let new = b"small".to_vec();
    let header = header::Header { format: Format::Zstd, from: None, to: digest(&new), length: 5 }.encode();
    bomb[..header.len()].copy_from_slice(&header);
    assert!(matches!(applied(None, &bomb, &outcome(&new)), Err(DeltaError::TooLong { expected: 5 })));
    // A block that claims more than a reader holds.
    let header = header::Header { format: Format::Aligned, from: Some(digest(b"old")), to: digest(&new), length: 5 };
    for (length, problem) in [(600 << 10, "expected 1 to 524288"), (0u32, "expected 1 to"), (400 << 10, "more than")] {
        let mut bomb = header.encode();
        bomb.push(0);
        bomb.extend(length.to_le_bytes());
        bomb.extend([0; 12]);
        bomb.extend([0; 4]);
        let error = applied(Some(b"old"), &bomb, &outcome(&new)).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    // A place far beyond the old package.
    let mut far = header.encode();
    far.push(2);
    far.extend(5u32.to_le_bytes());
    far.extend(u64::MAX.to_le_bytes());
    far.extend(5u32.to_le_bytes());
    far.extend([0; 8]);
    let error = applied(Some(b"old"), &far, &outcome(&new)).unwrap_err().to_string();
    assert!(error.contains("of the old package, which has 3"), "{error}");
}

#[test]
fn a_disk_that_fails_is_not_the_patchs_fault() {
    let new = noise(10_000, 3);
    let patch = make(Format::Zstd, None, &new).unwrap();
    let full = apply(None, &patch[..], Cursor::new(&mut [0u8; 10][..]), &outcome(&new)).unwrap_err();
    assert!(full.is_local(), "{full}");
    assert!(!applied(None, &patch[..99], &outcome(&new)).unwrap_err().is_local());
}

#[test]
fn making_one_can_be_stopped() {
    let (old, new) = retrained();
    for format in Format::ALL {
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            asked < 2
        };
        let stopped = make_while(format, Some(&old), &new, &mut go_on);
        assert!(matches!(stopped, Err(DeltaError::Stopped)));
        assert_eq!(asked, 2);
    }
}

#[test]
fn any_two_files_lead_from_one_to_the_other() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().cloned().for_each(|(old, new)| {
        for format in Format::ALL {
            let patch = make(format, Some(&old), &new).unwrap();
            assert_eq!(applied(Some(&old), &patch, &outcome(&new)).unwrap(), new);
        }
    });
}

#[test]
fn no_bytes_make_it_panic_or_write_too_much() {
    let old = noise(64, 9);
    let expected = Outcome { length: 128, sha256: digest(b"never") };
    bolero::check!().with_type::<(bool, Vec<u8>)>().for_each(|(aligned, content)| {
        let format = if *aligned { Format::Aligned } else { Format::Zstd };
        let header = header::Header { format, from: Some(digest(&old)), to: expected.sha256, length: expected.length };
        let patch = [header.encode(), content.clone()].concat();
        assert!(applied(Some(&old), &patch, &expected).is_err());
        assert!(applied(Some(&old), content, &expected).is_err());
        let _ = PatchIndex::decode(content);
    });
}
