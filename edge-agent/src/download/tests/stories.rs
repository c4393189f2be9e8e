//! What goes wrong, and how a download gets through all the same.

use tributary_identity::tls::Clients;

use super::server::{Accident, Server};
use super::*;
use crate::download::{Budget, OriginError};
use crate::identity::tests::hub::authority;

const PATH: &str = "targets/models/fraud/";

/// What is durable of a download when a process ends is every whole piece that came before.
#[tokio::test]
async fn after_a_kill_in_the_middle_it_goes_on_from_disk_over_https_and_quic() {
    let authority = authority();
    for over_quic in [false, true] {
        let device = Device::new();
        let accidents = [Accident::Cut(60_000), Accident::Cut(50_000), Accident::Missing];
        let hub = match over_quic {
            true => Server::quic(&device.file, &accidents[..2], &authority).await,
            false => Server::secure(&device.file, &accidents[..2], &authority, Clients::Required).await,
        };
        let identity = device.identity(&authority, if over_quic { 1 } else { hub.address.port() });
        let config = || DownloadConfig { quic: over_quic, ..DownloadConfig::default() };
        let (mut attempts, mut before) = (0, 0);
        // Each attempt is another process; each answer but the last breaks off.
        while !device.is_here() {
            let (streams, _connection) = match over_quic {
                true => FileStreams::dialled(identity.current().mqtt.clone(), hub.address).await,
                false => (FileStreams::default(), Box::new(()) as Box<dyn Send>),
            };
            let web = if over_quic { Web::Nowhere } else { Web::Secure(identity.clone()) };
            let fetched = device.fetch(&device.origins(config(), web, streams)).await;
            let starts = hub.starts();
            assert_eq!(starts.len(), attempts + 1);
            assert!(starts[attempts] >= before && starts[attempts] <= 60_000 + 50_000 * attempts as u64, "{starts:?}");
            before = starts[attempts];
            attempts += 1;
            assert!(attempts < 50, "{fetched:?}");
        }
        assert!(attempts > 3 && before > 200_000, "{:?}", hub.starts());
        assert!(hub.paths()[0].contains(PATH), "{:?}", hub.paths());
    }
}

#[tokio::test]
async fn when_one_breaks_off_the_next_goes_on_and_is_asked_first_from_then_on() {
    let device = Device::new();
    let broken = Server::plain(&device.file, &[Accident::Cut(70_000)]).await;
    let sound = Server::plain(&device.file, &[]).await;
    let origins = device.mirrors(&[&broken, &sound]);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    assert_eq!((broken.starts(), sound.starts()), (vec![0], vec![70_000]));
    assert!(sound.paths()[0].starts_with("/copy/targets/models/fraud/"));
    let failures = origins.status().view().failures;
    assert!(failures.keys().eq([broken.url().trim_end_matches('/')]), "{failures:?}");
    device.files().remove(&device.release.sha256).unwrap();
    device.fetch(&origins).await.unwrap();
    assert_eq!((broken.starts().len(), sound.starts()), (1, vec![70_000, 0]));
}

#[tokio::test]
async fn wrong_bytes_never_come_into_place_and_the_liar_is_asked_last() {
    let device = Device::new();
    let liar = Server::plain(&device.file, &[Accident::Spoiled]).await;
    let sound = Server::plain(&device.file, &[]).await;
    let origins = device.mirrors(&[&liar, &sound]);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    assert_eq!((liar.starts(), sound.starts()), (vec![0], vec![0]));
    assert!(origins.status().view().failures.values().all(|why| why.contains("not those released")));
    // Where all lie, nothing comes into place, and the error says so.
    let device = Device::new();
    let liars = [Server::plain(&device.file, &[Accident::Spoiled]).await, Server::plain(&[7; 300_000], &[]).await];
    let error = device.fetch(&device.mirrors(&[&liars[0], &liars[1]])).await.unwrap_err();
    assert!(
        matches!(&error, DownloadError::Failed { source, .. } if matches!(**source, OriginError::Another { .. }))
            || matches!(&error, DownloadError::File(error) if error.is_damage()),
        "{error:?}"
    );
    assert!(!device.is_here());
}

#[tokio::test]
async fn a_part_that_was_spoiled_and_continued_by_an_honest_one_is_fetched_anew() {
    let device = Device::new();
    let mut wrong = device.file.clone();
    wrong[5] ^= 1;
    let first = Server::plain(&wrong, &[Accident::Cut(50_000), Accident::Missing]).await;
    let sound = Server::plain(&device.file, &[]).await;
    // The wrong file's own tag would give it away; a plain web server has other tags.
    first.forget_tag();
    device.fetch(&device.mirrors(&[&first, &sound])).await.unwrap();
    assert!(device.is_here());
    assert_eq!(sound.starts(), [50_000, 0]);
}

#[tokio::test]
async fn a_trickle_is_left_for_one_that_gives() {
    let authority = authority();
    let device = Device::new();
    let slow = Server::plain(&device.file, &[Accident::Trickle]).await;
    let sound = Server::plain(&device.file, &[]).await;
    let origins = device.mirrors(&[&slow, &sound]);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    let why = origins.status().view().failures.into_values().next().unwrap();
    assert!(why.contains("bytes a second"), "{why}");
    // Over QUIC too.
    let device = Device::new();
    let slow = Server::quic(&device.file, &[Accident::Trickle], &authority).await;
    let identity = device.identity(&authority, 1);
    let (streams, _connection) = FileStreams::dialled(identity.current().mqtt.clone(), slow.address).await;
    let origins = device.origins(mirrors(&[&sound]), Web::Nowhere, streams);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here() && slow.starts() == [0]);
}

/// A large file over a link that breaks again and again comes in one go, as long as every piece is worth something.
#[tokio::test]
async fn one_that_gives_a_good_part_each_time_is_asked_again_at_once() {
    let device = Device::new();
    let breaks = Server::plain(&device.file, &[Accident::Cut(70_000)]).await;
    device.fetch(&device.mirrors(&[&breaks])).await.unwrap();
    assert!(device.is_here());
    assert_eq!(breaks.starts(), [0, 70_000, 140_000, 210_000, 280_000]);
    // One that gives too little, and one that lies, are left.
    for accident in [Accident::Cut(60_000), Accident::Longer, Accident::Trickle] {
        let device = Device::new();
        let wrong = Server::plain(&device.file, &[accident]).await;
        device.fetch(&device.mirrors(&[&wrong])).await.unwrap_err();
        assert_eq!(wrong.starts(), [0], "{accident:?}");
    }
}

#[tokio::test]
async fn one_that_begins_where_nobody_asked_is_left_before_any_of_it_counts() {
    let authority = authority();
    for start in [1, 300_000, u64::MAX] {
        let device = Device::new();
        let wrong = Server::quic(&device.file, &[Accident::Begins(start)], &authority).await;
        let sound = Server::plain(&device.file, &[]).await;
        let identity = device.identity(&authority, 1);
        let (streams, _connection) = FileStreams::dialled(identity.current().mqtt.clone(), wrong.address).await;
        let origins = device.origins(mirrors(&[&sound]), Web::Nowhere, streams);
        device.fetch(&origins).await.unwrap();
        assert_eq!((wrong.starts(), sound.starts()), (vec![0], vec![0]));
        let why = origins.status().view().failures.into_values().next().unwrap();
        assert!(why.contains(&format!("begins at byte {start}, expected 0")), "{why}");
    }
}

#[tokio::test]
async fn one_that_ignores_ranges_loses_nothing_of_what_is_here() {
    let device = Device::new();
    let accidents = [Accident::Cut(60_000), Accident::IgnoresRanges];
    let server = Server::plain(&device.file, &accidents).await;
    let origins = device.mirrors(&[&server]);
    let error = device.fetch(&origins).await.unwrap_err();
    assert!(matches!(error, DownloadError::Failed { .. }), "{error:?}");
    assert_eq!(device.files().partial(&device.release).unwrap().written(), 60_000);
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here());
    assert_eq!(server.starts(), [0, 60_000]);
}

#[tokio::test]
async fn too_much_or_another_file_is_not_taken() {
    let (authority, device) = (authority(), Device::new());
    let wrong = [Accident::Longer, Accident::Another, Accident::Endless];
    for accident in wrong {
        let server = Server::plain(&device.file, &[accident]).await;
        let error = device.fetch(&device.mirrors(&[&server])).await.unwrap_err();
        let DownloadError::Failed { source, .. } = &error else { panic!("{accident:?}: {error:?}") };
        assert!(matches!(**source, OriginError::Length { .. } | OriginError::Another { .. }), "{source:?}");
        assert_eq!(device.files().partial(&device.release).unwrap().written(), 0, "{accident:?}");
    }
    let server = Server::quic(&device.file, &[Accident::Endless], &authority).await;
    let identity = device.identity(&authority, 1);
    let (streams, _connection) = FileStreams::dialled(identity.current().mqtt.clone(), server.address).await;
    let error = device.fetch(&device.origins(DownloadConfig::default(), Web::Nowhere, streams)).await.unwrap_err();
    assert!(error.to_string().contains("quic"), "{error}");
}

#[tokio::test]
async fn a_file_that_became_another_is_not_glued_to_what_is_here() {
    let (device, authority) = (Device::new(), authority());
    let accidents = [Accident::Cut(60_000), Accident::Another, Accident::IgnoresRanges];
    let hub = Server::secure(&device.file, &accidents, &authority, Clients::Required).await;
    let web = Web::Secure(device.identity(&authority, hub.address.port()));
    let origins = device.origins(DownloadConfig::default(), web, FileStreams::default());
    device.fetch(&origins).await.unwrap_err();
    let error = device.fetch(&origins).await.unwrap_err();
    assert!(format!("{error:?}").contains("Another"), "{error:?}");
    device.fetch(&origins).await.unwrap();
    assert!(device.is_here() && hub.starts()[1] > 0);
}

#[tokio::test]
async fn outside_its_hours_a_package_waits_and_says_so_and_metadata_does_not() {
    let device = Device::new();
    let server = Server::plain(&device.file, &[]).await;
    // After any build of this program: time is never before that.
    let noon = "2040-01-01T11:59:59.95Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    device.clock.1.store(noon, Ordering::Relaxed);
    let budget = Budget { hours: vec!["12:00-13:00".into()], ..Budget::default() };
    let origins =
        device.origins(DownloadConfig { budget, ..mirrors(&[&server]) }, Web::Nowhere, FileStreams::default());
    let (fetching, status) = (device.fetch(&origins), origins.status());
    let watching = async {
        loop {
            let under_way = status.view().under_way;
            if under_way.first().and_then(|first| first.waits_for.as_ref()).is_some_and(|what| what.contains("12:00")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.starts().len(), 0);
        assert_eq!(origins.small("metadata/timestamp.json", 300_000).await.unwrap(), Some(device.file.clone()));
        device.clock.1.store(noon + 1_000_000, Ordering::Relaxed);
    };
    let (fetched, ()) = tokio::join!(fetching, watching);
    fetched.unwrap();
    assert!(device.is_here() && origins.status().view().under_way.is_empty());
}

#[tokio::test]
async fn the_hours_begin_on_a_device_that_has_no_clock_but_its_uptime() {
    let mut device = Device::new();
    let server = Server::plain(&device.file, &[]).await;
    device.clock.1.store(0, Ordering::Relaxed);
    let signed = "2040-01-01T11:59:59.8Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    device.time = Time::of(DeviceClock::over(Micros(signed), device.clock.clone()));
    let budget = Budget { hours: vec!["12:00-13:00".into()], ..Budget::default() };
    let config = DownloadConfig { budget, ..mirrors(&[&server]) };
    device.fetch(&device.origins(config, Web::Nowhere, FileStreams::default())).await.unwrap();
    assert!(device.is_here() && device.time.now() >= Micros(signed + 200_000));
}

#[tokio::test]
async fn metadata_has_a_limit_is_missing_only_where_a_hub_says_so_and_comes_from_the_next() {
    let (device, authority) = (Device::new(), authority());
    let hub = Server::secure(b"{}", &[Accident::Missing], &authority, Clients::Required).await;
    let (empty, full) = (Server::plain(b"{}", &[Accident::Missing]).await, Server::plain(b"{}", &[]).await);
    let origins = device.mirrors(&[&empty, &full]);
    assert_eq!(origins.small("metadata/3.models%2Ffraud.json", 100).await.unwrap(), Some(b"{}".to_vec()));
    assert_eq!(full.paths(), ["/copy/metadata/3.models%252Ffraud.json"], "as the file is called");
    let error = origins.small("metadata/timestamp.json", 1).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(error, None, "one said that it is not there, the other's was too long");
    let error = device.mirrors(&[&full]).small("metadata/timestamp.json", 1).await.unwrap_err();
    assert!(crate::words::in_words(&error).contains("2 bytes, expected 1"), "{error:?}");
    let web = Web::Secure(device.identity(&authority, hub.address.port()));
    let origins = device.origins(mirrors(&[&full]), web, FileStreams::default());
    assert_eq!(origins.small("metadata/9.root.json", 100).await.unwrap(), None);
    assert_eq!(hub.paths(), ["/api/v1/repository/metadata/9.root.json"]);
    assert!(matches!(device.mirrors(&[]).small("metadata/timestamp.json", 1).await, Err(DownloadError::NoHub)));
}

#[tokio::test]
async fn metadata_that_trickles_is_given_up_and_comes_from_the_next() {
    let device = Device::new();
    let slow = Server::plain(&device.file, &[Accident::Trickle]).await;
    let sound = Server::plain(b"{}", &[]).await;
    let config =
        DownloadConfig { metadata_patience: HumanDuration(Duration::from_secs(5)), ..mirrors(&[&slow, &sound]) };
    let origins = device.origins(config, Web::Nowhere, FileStreams::default());
    // Fast enough byte by byte, but a whole file of it would take hours.
    assert_eq!(origins.small("metadata/timestamp.json", 1 << 20).await.unwrap(), Some(b"{}".to_vec()));
    let why = origins.status().view().failures.into_values().next().unwrap();
    assert!(why.contains("longer than 5 s"), "{why}");
}
