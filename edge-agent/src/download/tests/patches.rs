//! Releases by patches, over a real socket, with everything that can be wrong with a patch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use tokio::task::JoinHandle;
use tributary_identity::tls::Clients;
use tributary_release::delta::{Format, PatchEntry, PatchIndex, index_path, make};
use tributary_release::digest;
use tributary_wire::{ReleaseRef, Sha256, VersionNumber};

use super::server::{Accident, Server};
use super::{Device, mirrors};
use crate::download::{DownloadConfig, Origins};
use crate::identity::Web;
use crate::identity::tests::hub::authority;
use crate::link::FileStreams;

#[derive(Default)]
struct Shelf {
    files: BTreeMap<String, Vec<u8>>,
    /// The next answer of this path breaks off after so many bytes.
    cut: Option<(String, usize)>,
    /// So many answers are errors.
    broken: usize,
    asked: Vec<(String, usize)>,
}

/// A repository with several files.
struct Repository {
    shelf: Arc<Mutex<Shelf>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let mut shelf = shelf.lock().unwrap();
    shelf.asked.push((path.clone(), start));
    if shelf.broken > 0 {
        shelf.broken -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(file) = shelf.files.get(&path).cloned() else { return StatusCode::NOT_FOUND.into_response() };
    let rest = Bytes::from(file[start..].to_vec());
    let length = rest.len().to_string();
    let body = match shelf.cut.take_if(|(cut, _)| *cut == path) {
        Some((_, after)) => {
            let broken = stream::once(async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(stream::iter([Ok(rest.slice(..after))]).chain(broken))
        }
        None => Body::from(rest),
    };
    let tag = format!("\"{}\"", digest(&file));
    let headers = [(header::CONTENT_LENGTH, length), (header::ETAG, tag)];
    match start {
        0 => (headers, body).into_response(),
        _ => {
            let range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
            (StatusCode::PARTIAL_CONTENT, headers, [(header::CONTENT_RANGE, range)], body).into_response()
        }
    }
}

impl Repository {
    /// Offers these ways to a package: from where, and the file.
    async fn start(to: &Sha256, ways: &[(Option<Sha256>, Vec<u8>)]) -> Self {
        let mut shelf = Shelf::default();
        let mut index = PatchIndex::default();
        for (from, file) in ways {
            let format = Format::Aligned.name().to_owned();
            let entry = PatchEntry { from: *from, format, length: file.len() as u64, sha256: digest(file) };
            shelf.files.insert(entry.path(to), file.clone());
            index.patches.push(entry);
        }
        shelf.files.insert(index_path(to), index.encode());
        let shelf = Arc::new(Mutex::new(shelf));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shelf.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shelf, address, task }
    }

    fn origins(&self, device: &Device) -> Origins {
        let config =
            DownloadConfig { insecure_plain_mirrors: vec![format!("http://{}/", self.address)], ..mirrors(&[]) };
        device.origins(config, Web::Nowhere, FileStreams::default())
    }

    /// The paths of patches that were asked for, and from where on.
    fn asked(&self) -> Vec<(String, usize)> {
        let asked = self.shelf.lock().unwrap().asked.clone();
        asked.into_iter().filter(|(path, _)| !path.ends_with("index.json")).collect()
    }
}

/// What the device holds: nearly the package that it is to fetch.
fn old(device: &Device) -> Vec<u8> {
    let mut old = device.file.clone();
    old.iter_mut().step_by(1_000).for_each(|byte| *byte ^= 1);
    old
}

fn hold(device: &Device, bytes: &[u8]) -> Sha256 {
    let sha256 = digest(bytes);
    let release = ReleaseRef { version: VersionNumber(2), length: bytes.len() as u64, sha256 };
    let mut partial = device.files().partial(&release).unwrap();
    partial.write(bytes).unwrap();
    partial.finish().unwrap();
    sha256
}

/// How many files lie in the device's folder of packages.
fn files(device: &Device) -> usize {
    std::fs::read_dir(device.folder.path().join("packages")).unwrap().count()
}

#[tokio::test]
async fn the_cheapest_way_is_taken_and_nothing_stays_of_it() {
    let device = Device::new();
    let from = hold(&device, &old(&device));
    let patch = make(Format::Aligned, Some(&old(&device)), &device.file).unwrap();
    let whole = make(Format::Aligned, None, &device.file).unwrap();
    let to = device.release.sha256;
    let repository = Repository::start(&to, &[(None, whole.clone()), (Some(from), patch)]).await;
    let origins = repository.origins(&device);
    assert!(origins.by_patch(&device.files(), &device.release).await.unwrap());
    assert!(device.is_here());
    let arrived = origins.status().view().arrived;
    assert_eq!((arrived.len(), arrived[0].way, arrived[0].of), (1, "patch", device.release.length));
    assert!(arrived[0].bytes < arrived[0].of && arrived[0].from.len() == 1, "{arrived:?}");
    assert_eq!(repository.asked(), [(format!("patches/{to}/{from}.aligned"), 0)]);
    assert_eq!(files(&device), 2, "both packages");
    // A device that holds nothing takes it compressed.
    let bare = Device::new();
    assert!(whole.len() < bare.file.len());
    assert!(repository.origins(&bare).by_patch(&bare.files(), &bare.release).await.unwrap());
    assert_eq!(repository.asked()[1], (format!("patches/{to}/full.aligned"), 0));
    assert!(bare.is_here());
    // Of one who offers no patches nothing is asked.
    let bare = Device::new();
    let nothing = Repository::start(&from, &[]).await;
    assert!(!nothing.origins(&bare).by_patch(&bare.files(), &bare.release).await.unwrap());
    assert_eq!(nothing.asked(), []);
}

#[tokio::test]
async fn a_lost_index_is_asked_for_again_and_whoever_has_none_speaks_for_nobody_else() {
    let (device, authority) = (Device::new(), authority());
    let from = hold(&device, &old(&device));
    let patch = make(Format::Aligned, Some(&old(&device)), &device.file).unwrap();
    let repository = Repository::start(&device.release.sha256, &[(Some(from), patch)]).await;
    // The hub itself made no patches; it is asked first.
    let hub = Server::secure(&device.file, &[Accident::Missing], &authority, Clients::Required).await;
    let web = Web::Secure(device.identity(&authority, hub.address.port()));
    let mirrored =
        DownloadConfig { insecure_plain_mirrors: vec![format!("http://{}/", repository.address)], ..mirrors(&[]) };
    let origins = device.origins(mirrored, web, FileStreams::default());
    repository.shelf.lock().unwrap().broken = 1;
    let error = origins.by_patch(&device.files(), &device.release).await.unwrap_err();
    assert!(crate::words::in_words(&error).contains("503"), "{error:?}");
    assert!(origins.by_patch(&device.files(), &device.release).await.unwrap());
    assert!(device.is_here() && hub.paths().len() >= 2);

    // An index that never comes holds nobody up for ever.
    let bare = Device::new();
    repository.shelf.lock().unwrap().broken = 3;
    let origins = repository.origins(&bare);
    for _ in 1..3 {
        origins.by_patch(&bare.files(), &bare.release).await.unwrap_err();
    }
    assert!(!origins.by_patch(&bare.files(), &bare.release).await.unwrap());
}

#[tokio::test]
async fn a_patch_that_is_wrong_in_any_way_is_followed_by_another_and_at_last_by_none() {
    let device = Device::new();
    let (from, to) = (hold(&device, &old(&device)), device.release.sha256);
    let good = make(Format::Aligned, Some(&old(&device)), &device.file).unwrap();
    // Where the blocks begin, behind the header.
    let header = good[..78].to_vec();
    let mut spoiled = good.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    let elsewhere = make(Format::Aligned, Some(&old(&device)), b"another package").unwrap();
    let other_base = make(Format::Aligned, Some(b"another base"), &device.file).unwrap();
    let bomb: Vec<u8> = {
        // Blocks of zeros of half a megabyte, each of 21 bytes.
        let block = [&[0][..], &(512u32 << 10).to_le_bytes(), &[0; 12], &[0; 4]].concat();
        [&header[..], &block.repeat(4)].concat()
    };
    let cut = good[..good.len() / 2].to_vec();
    for (name, wrong) in [
        ("spoiled", spoiled),
        ("elsewhere", elsewhere),
        ("base", other_base),
        ("bomb", bomb),
        ("cut", cut),
        ("no patch", b"hello".to_vec()),
    ] {
        let repository = Repository::start(&to, &[(Some(from), wrong.clone())]).await;
        let origins = repository.origins(&device);
        for _ in 0..2 {
            assert!(!origins.by_patch(&device.files(), &device.release).await.unwrap(), "{name}");
        }
        assert_eq!(repository.asked().len(), 1, "{name}: not taken a second time");
        assert!(!device.files().has(&to), "{name}");
        // Beside a good one it costs its own bytes and no more. The shorter one comes first.
        let longer = [good.clone(), Vec::new()].concat();
        let both = Repository::start(&to, &[(Some(from), wrong)]).await;
        {
            let entry = |file: &[u8]| PatchEntry {
                from: None,
                format: Format::Aligned.name().to_owned(),
                length: file.len() as u64,
                sha256: digest(file),
            };
            let mut shelf = both.shelf.lock().unwrap();
            let mut index = PatchIndex::decode(&shelf.files[&index_path(&to)]).unwrap();
            // It needs the old package although the index says otherwise: refused in its turn.
            index.patches.push(entry(&longer));
            shelf.files.insert(entry(&longer).path(&to), longer);
            let encoded = index.encode();
            shelf.files.insert(index_path(&to), encoded);
        }
        assert!(!both.origins(&device).by_patch(&device.files(), &device.release).await.unwrap(), "{name}");
        assert_eq!(both.asked().len(), 2, "{name}");
    }
    assert_eq!(files(&device), 3, "the old package, and what the plain download begins with");
}

#[tokio::test]
async fn a_package_damaged_on_disk_is_no_base() {
    let device = Device::new();
    let from = hold(&device, &old(&device));
    let patch = make(Format::Aligned, Some(&old(&device)), &device.file).unwrap();
    let mut damaged = old(&device);
    damaged[7] ^= 1;
    std::fs::write(device.files().path(&from), damaged).unwrap();
    let repository = Repository::start(&device.release.sha256, &[(Some(from), patch)]).await;
    let origins = repository.origins(&device);
    assert!(!origins.by_patch(&device.files(), &device.release).await.unwrap());
    assert!(!device.files().has(&device.release.sha256));
}

#[tokio::test]
async fn a_patch_that_breaks_off_goes_on_after_a_restart() {
    let device = Device::new();
    let (from, to) = (hold(&device, &old(&device)), device.release.sha256);
    let patch = make(Format::Aligned, Some(&old(&device)), &device.file).unwrap();
    let repository = Repository::start(&to, &[(Some(from), patch)]).await;
    let path = format!("patches/{to}/{from}.aligned");
    repository.shelf.lock().unwrap().cut = Some((path.clone(), 100));
    let origins = repository.origins(&device);
    origins.by_patch(&device.files(), &device.release).await.expect_err("it broke off");
    // Another process: what lies on disk, tidied up as at every start.
    let wanted = [from, to];
    device.files().collect(&wanted).unwrap();
    let origins = repository.origins(&device);
    assert!(origins.by_patch(&device.files(), &device.release).await.unwrap());
    assert_eq!(repository.asked(), [(path.clone(), 0), (path, 100)]);
    assert!(device.is_here());
}
