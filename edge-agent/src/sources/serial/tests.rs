use std::pin::Pin;
use std::sync::Arc;

use edge_agent_core::node::{Delivered, End};
use tributary_release::{SigningKey, VerifyingKeys, sign_node_image};
use tributary_wire::link::{BlobKind, BlobProblem, NodeName};

use super::*;

fn key() -> SigningKey {
    SigningKey::generate([4; 32])
}

fn image(version: u32) -> Vec<u8> {
    sign_node_image(BlobKind::Model, NodeName::new("pump").unwrap(), version, version, b"weights", &key())
}

/// What a repository whose chain holds gives, or why it does not hold.
struct Repository(Result<Vec<u8>, String>);

impl ImageSource for Repository {
    fn fetch<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
        Box::pin(async move { self.0.clone() })
    }
}

fn serial(folder: &Path, given: Result<Vec<u8>, String>) -> Serial {
    let keys = folder.join("nodes.key.pub");
    VerifyingKeys::new([key().verifying_key()]).save(&keys).unwrap();
    let config = SerialConfig { node: "pump-1".into(), image_keys: Some(keys), ..SerialConfig::default() };
    let serial = Serial::new(config, folder).with_images(Arc::new(Repository(given)));
    serial.status_mut().kind = Some("pump".into());
    serial
}

#[tokio::test]
async fn an_image_that_does_not_hold_is_counted_and_shown_and_a_good_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let serial = serial(folder.path(), Err("the signature of nodes does not hold".into()));
    let mut changed = image(2);
    *changed.last_mut().unwrap() ^= 1;
    assert!(matches!(serial.bring(&changed).await, Err(ImageError::Image(_))));
    let status = serial.status();
    assert_eq!(status.images_failed, 1);
    let trouble = status.trouble().unwrap();
    assert!(trouble.contains("pump-1: an image was refused by the agent: "), "{trouble}");
    assert_eq!(status.report().trouble, Some(trouble), "the hub is told");

    // The repository gives none: that is no trouble of the node, but the number of failures says it.
    assert!(matches!(serial.update(2).await, Err(ImageError::Repository { .. })));
    let status = serial.status();
    assert_eq!((status.images_failed, status.trouble()), (2, None));
    assert!(status.brought.as_ref().unwrap().contains("the signature of nodes does not hold"), "{status:?}");

    assert_eq!(serial.bring(&image(2)).await.unwrap(), (BlobKind::Model, 2));
    assert_eq!(serial.status().images_failed, 2);
}

#[tokio::test]
async fn that_nobody_could_look_at_an_image_is_not_counted_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = SerialConfig { node: "pump-1".into(), ..SerialConfig::default() };
    let serial = Serial::new(config, folder.path());
    assert!(matches!(serial.bring(&image(2)).await, Err(ImageError::NoKeys)));
    assert!(matches!(serial.update(2).await, Err(ImageError::NoRepository)));
    assert_eq!((serial.status().images_failed, serial.status().brought), (0, None));
}

#[tokio::test]
async fn what_the_repository_gives_of_another_version_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let serial = serial(folder.path(), Ok(image(3)));
    assert!(matches!(serial.update(2).await, Err(ImageError::Version { expected: 2, found: 3 })));
    assert_eq!(serial.status().images_failed, 1);
    assert!(serial.status().trouble().is_some_and(|trouble| trouble.contains("version 3")));
}

#[test]
fn an_older_version_that_the_node_refuses_is_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let serial = serial(folder.path(), Err("none".into()));
    let mut status = serial.status_mut();
    let ended = |end| Delivered { kind: BlobKind::Model, version: 1, end };
    status.delivered(&ended(End::Refused(BlobProblem::Older)));
    assert_eq!(status.images_failed, 1);
    let trouble = status.trouble().unwrap();
    assert_eq!(trouble, format!("node pump-1: model 1 was refused: {}", BlobProblem::Older));
    status.delivered(&ended(End::Confirmed));
    assert_eq!((status.images_failed, status.trouble()), (1, None));
}
