//! Further hubs and mirrors: what they give, whom a device believes there, and what it shows them.

use tributary_identity::tls::Clients;

use super::server::{Accident, Server};
use super::*;
use crate::config::Hub;
use crate::download::MirrorError;
use crate::download::origin::Origin;
use crate::identity::Folder;
use crate::identity::tests::hub::authority;

/// To everybody, as a web server that knows nothing of devices.
const ANYBODY: Clients = Clients::Optional { grace: Duration::ZERO };

/// Nobody listens there.
const CLOSED: u16 = 1;

#[tokio::test]
async fn a_further_hub_that_cannot_be_asked_is_named() {
    let (device, authority) = (Device::new(), authority());
    let config = || DownloadConfig { hubs: vec!["hub2:8443".into()], ..DownloadConfig::default() };
    let failures = |web| device.origins(config(), web, FileStreams::default()).status().view().failures;
    let said = failures(Web::Nowhere);
    assert!(said["https://hub2:8443"].contains("not asked") && said["https://hub2:8443"].contains("enrol"), "{said:?}");
    assert_eq!(failures(Web::Secure(device.identity(&authority, 1))), Default::default());
}

#[tokio::test]
async fn quic_that_breaks_off_is_followed_by_https_and_that_by_a_mirror() {
    let (device, authority) = (Device::new(), authority());
    let quic = Server::quic(&device.file, &[Accident::Cut(90_000)], &authority).await;
    let https = Server::secure(&device.file, &[Accident::Cut(90_000)], &authority, Clients::Required).await;
    let copy = Server::secure(&device.file, &[], &authority, ANYBODY).await;
    let identity = device.identity(&authority, https.address.port());
    let (streams, _connection) = FileStreams::dialled(identity.current().mqtt.clone(), quic.address).await;
    let mirrors = vec![format!("https://{}/copy", copy.address)];
    let config = DownloadConfig { mirrors, ..DownloadConfig::default() };
    let origins = device.origins(config, Web::Secure(identity), streams);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    let starts = (quic.starts(), https.starts(), copy.starts());
    assert_eq!((&starts.0[..], starts.1.len(), starts.2.len()), (&[0][..], 1, 1), "{starts:?}");
    assert!(starts.1[0] <= 90_000 && starts.1[0] <= starts.2[0], "{starts:?}");
    assert_eq!(origins.status().view().failures.len(), 2);
}

#[tokio::test]
async fn a_further_hub_gives_the_rest_of_what_the_first_one_began() {
    let (device, authority) = (Device::new(), authority());
    let accidents = [Accident::Cut(60_000), Accident::Missing];
    let first = Server::secure(&device.file, &accidents, &authority, Clients::Required).await;
    let further = Server::secure(&device.file, &[], &authority, Clients::Required).await;
    let mirror = Server::plain(&device.file, &[]).await;
    let config = DownloadConfig { hubs: vec![further.address.to_string()], ..mirrors(&[&mirror]) };
    let identity = device.identity(&authority, first.address.port());
    let origins = device.origins(config, Web::Secure(identity), FileStreams::default());
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    let starts = further.starts();
    assert!(starts.len() == 1 && starts[0] > 0 && starts[0] <= 60_000, "{starts:?}");
    assert!(further.paths()[0].starts_with("/api/v1/repository/targets/models/fraud/"), "{:?}", further.paths());
    assert_eq!((first.starts(), mirror.starts()), (vec![0], vec![]), "mirrors are asked last");
    let mut gave = origins.status().view().arrived.remove(0).from;
    gave.sort();
    let mut expected = [&first, &further].map(|hub| format!("https://{}", hub.address));
    expected.sort();
    assert_eq!(gave, expected);
    // Metadata comes from it as well.
    let found = origins.small("metadata/timestamp.json", 300_000).await.unwrap();
    assert_eq!((found, further.starts().len()), (Some(device.file.clone()), 2));
}

#[tokio::test]
async fn a_further_hub_gets_a_device_without_a_clock_in_and_does_not_set_its_time() {
    let (device, authority) = (Device::new(), authority());
    let hub = Server::secure(&device.file, &[], &authority, Clients::Required).await;
    drop(device.identity(&authority, CLOSED));
    // Woken up before the hub's certificate begins.
    let time = || Time::of(DeviceClock::with_system(Micros(0), || Micros(0)));
    let identity = |overrides| Identity::open(Folder::of(device.folder.path()), &overrides, time()).unwrap().unwrap();
    let asked = identity(Hub::default());
    let before = asked.time().floor();
    let config = DownloadConfig { hubs: vec![hub.address.to_string()], ..DownloadConfig::default() };
    device.fetch(&device.origins(config, Web::Secure(asked.clone()), FileStreams::default())).await.unwrap();
    assert!(device.is_here());
    assert_eq!((hub.starts().len(), asked.time().floor()), (1, before));
    // Its own hub does set it.
    let asked = identity(Hub { https: Some(hub.address.to_string()), ..Hub::default() });
    device.files().remove(&device.release.sha256).unwrap();
    let origins = device.origins(DownloadConfig::default(), Web::Secure(asked.clone()), FileStreams::default());
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here() && asked.time().floor() > before);
}

#[tokio::test]
async fn a_mirror_of_an_authority_from_a_file_is_believed_by_that_file_alone() {
    let (device, authority, another) = (Device::new(), authority(), authority());
    let mirror = Server::secure(&device.file, &[], &another, ANYBODY).await;
    let pem = device.folder.path().join("mirrors.pem");
    std::fs::write(&pem, another.certificate().to_pem()).unwrap();
    let identity = device.identity(&authority, CLOSED);
    let config = |file: Option<&std::path::Path>| DownloadConfig {
        mirrors: vec![format!("https://{}/copy", mirror.address)],
        mirror_authorities: file.map(std::path::Path::to_owned),
        ..DownloadConfig::default()
    };
    // The hub's authorities do not know it.
    let secure = || Web::Secure(identity.clone());
    let error = device.fetch(&device.origins(config(None), secure(), FileStreams::default())).await.unwrap_err();
    assert!(mirror.starts().is_empty(), "{error:?}");
    // With the file they do, on an enrolled device and on one that is not.
    for (asked, web) in [secure(), Web::Nowhere].into_iter().enumerate() {
        device.fetch(&device.origins(config(Some(&pem)), web, FileStreams::default())).await.unwrap();
        assert!(device.is_here());
        assert_eq!(mirror.starts(), vec![0; asked + 1]);
        device.files().remove(&device.release.sha256).unwrap();
    }
    assert!(mirror.paths().iter().all(|path| path.starts_with("/copy/targets/models/fraud/")));
    // Instead of the hub's, not beside them.
    let of_hub = Server::secure(&device.file, &[], &authority, ANYBODY).await;
    let other = DownloadConfig { mirrors: vec![format!("https://{}/copy", of_hub.address)], ..config(Some(&pem)) };
    device.fetch(&device.origins(other, secure(), FileStreams::default())).await.unwrap_err();
    assert!(of_hub.starts().is_empty());
}

#[tokio::test]
async fn a_mirror_is_shown_no_certificate() {
    let (device, authority) = (Device::new(), authority());
    let curious = Server::secure(&device.file, &[], &authority, Clients::Required).await;
    let mirrors = vec![format!("https://{}/copy", curious.address)];
    let pem = device.folder.path().join("mirrors.pem");
    std::fs::write(&pem, authority.certificate().to_pem()).unwrap();
    for mirror_authorities in [None, Some(pem)] {
        let config = DownloadConfig { mirrors: mirrors.clone(), mirror_authorities, ..DownloadConfig::default() };
        let web = Web::Secure(device.identity(&authority, CLOSED));
        device.fetch(&device.origins(config, web, FileStreams::default())).await.unwrap_err();
    }
    assert!(curious.starts().is_empty(), "it asks for a certificate that it never gets");
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let device = Device::new();
    let told = |content: Option<&str>| {
        let pem = device.folder.path().join("mirrors.pem");
        if let Some(content) = content {
            std::fs::write(&pem, content).unwrap();
        }
        let config = DownloadConfig {
            mirrors: vec!["https://mirror.example/repository".into()],
            mirror_authorities: content.map(|_| pem),
            ..DownloadConfig::default()
        };
        Origin::all(&config, &Web::Nowhere, FileStreams::default(), &device.time).unwrap_err()
    };
    assert!(matches!(told(None), MirrorError::NoAuthorities));
    let error = told(Some("not a certificate")).to_string();
    assert!(error.contains("download.mirror_authorities") && error.contains("mirrors.pem"), "{error}");
}
