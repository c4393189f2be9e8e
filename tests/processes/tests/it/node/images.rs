//! Models and firmware on their way through a real agent into the slots of an emulated machine.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};
use tributary_release::{SigningKey, VerifyingKeys, sign_node_image};
use tributary_signal::{Model, ModelPayload};
use tributary_wire::link::{BlobKind, IMAGE_HEAD, NodeName};

use super::{Agent, Bench, NODE, VIEW};

/// The key of emulated nodes, which is no secret; `firmware/simulation` has it too.
pub fn key() -> SigningKey {
    SigningKey::generate(*b"anybody may sign for an emulator")
}

/// A file with its public half, for the agent.
pub fn keys_file(folder: &Path) -> PathBuf {
    let path = folder.join("image-keys.json");
    VerifyingKeys::new([key().verifying_key()]).save(&path).unwrap();
    path
}

pub fn image(kind: BlobKind, version: u32, payload: &[u8]) -> Vec<u8> {
    sign_node_image(kind, NodeName::new("mps2").unwrap(), version, version, payload, &key())
}

impl Agent {
    /// Gives the agent an image for the node; its status code and answer.
    pub async fn bring(&self, image: &[u8]) -> (u16, Value) {
        let path = format!("/v1/nodes/{NODE}/image");
        let answer =
            self.local.send(Method::POST, &path, "application/octet-stream", image.to_vec().into()).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }
}

/// The model that the firmware was built with, with another threshold and one case.
fn model(threshold: u32) -> Vec<u8> {
    let mut model = std::fs::read(super::firmware("boards/mps2/model.bin").get_program()).unwrap();
    model[6..10].copy_from_slice(&threshold.to_le_bytes());
    let inputs: [u16; 12] = std::array::from_fn(|at| 2000 + 31 * at as u16);
    let score = Model::read(&model, 12).unwrap().score(&inputs);
    let mut payload = (model.len() as u16).to_le_bytes().to_vec();
    payload.extend(model);
    payload.extend(inputs.iter().flat_map(|input| input.to_le_bytes()));
    payload.extend(score.to_le_bytes());
    assert!(ModelPayload::read(&payload, 12).unwrap().passes());
    payload
}

/// A program that hangs at its first instruction, whatever happens.
fn hanging() -> Vec<u8> {
    let mut words = vec![0x2010_0000_u32];
    words.extend([0x0001_0041; 15]);
    words.push(0xe7fe_e7fe);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_and_firmware_reach_an_emulated_node_are_tried_and_what_does_not_pass_goes_back() {
    let Some(Bench { mut agent, tap, program, _emulator, folder }) = Bench::start(VIEW, None).await else { return };
    let _folder = folder;
    let version = |node: &Value, kind: &str, version: u32, state: &str| {
        node[kind]["version"] == version && node[kind]["state"] == state
    };
    agent.until("the factory's firmware runs", |node| version(node, "image", 1, "confirmed")).await;

    // What nobody signed, and what is for other nodes, goes no further than the agent.
    let mut changed = image(BlobKind::Model, 2, &model(4321));
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(agent.bring(&changed).await.0, 422);
    let other = sign_node_image(BlobKind::Model, NodeName::new("fan").unwrap(), 2, 1, &model(4321), &key());
    let (status, answer) = agent.bring(&other).await;
    assert!(status == 422 && answer["detail"].to_string().contains("fan"), "{answer}");

    let node = agent.until("both are counted", |node| node["images_failed"] == 2).await;
    assert!(node["brought"].as_str().unwrap().contains("refused by the agent"), "{node}");

    // A model, over a line on which one byte in four hundred is changed.
    tap.spoil(400);
    let (status, answer) = agent.bring(&image(BlobKind::Model, 2, &model(4321))).await;
    assert_eq!((status, answer), (202, json!({ "node": NODE, "kind": "model", "version": 2 })));
    let node = agent.until("the model is confirmed", |node| version(node, "model", 2, "confirmed")).await;
    tap.spoil(0);
    assert_eq!((&node["model"]["rollback"], &node["starts"]), (&json!(2), &json!(2)), "{node}");
    agent.until("it says the new threshold", |node| node["threshold"] == 4321).await;

    // The one before it is signed as well, but older than what the node has confirmed.
    assert_eq!(agent.bring(&image(BlobKind::Model, 1, &model(1234))).await.0, 202);
    let node = agent.until("the older one is refused", |node| node["images_failed"] == 3).await;
    let told = (&node["model"]["version"], &node["brought"]);
    assert_eq!(told, (&json!(2), &json!("model 1 was refused: it is older than what the node has had")), "{node}");

    // The same program as version 2; the agent is killed while it is on its way.
    let built = std::fs::read(program.with_extension("img")).unwrap();
    let firmware = image(BlobKind::Firmware, 2, &built[IMAGE_HEAD..]);
    assert_eq!(agent.bring(&firmware).await.0, 202);
    agent.until("half of it is sent", |node| node["bringing"]["sent"].as_u64() > Some(firmware.len() as u64 / 2)).await;
    agent.kill();
    agent.start();
    agent.until("the firmware is confirmed", |node| version(node, "image", 2, "confirmed")).await;
    let node = agent.until("the agent knows", |node| node["brought"].is_string()).await;
    assert!(node["brought"].as_str().unwrap().starts_with("firmware 2 runs"), "{node}");
    assert!(version(&node, "model", 2, "confirmed"), "the model stays: {node}");

    // One that hangs: the watchdog ends its trial, and version 2 runs again.
    assert_eq!(agent.bring(&image(BlobKind::Firmware, 3, &hanging())).await.0, 202);
    agent.until("the old firmware is back", |node| version(node, "image", 2, "reverted")).await;
    let node = agent.until("the agent gives up", |node| node["images_failed"].as_u64() > Some(0)).await;
    assert!(node["brought"].as_str().unwrap().contains("did not pass"), "{node}");
    let accepted = node["accepted"].as_u64().unwrap();
    agent.until("it measures", |node| node["accepted"].as_u64() > Some(accepted + 3)).await;
    let state = agent.folder.join("state/nodes").join(NODE);
    assert!(!state.join("model.img").exists() && !state.join("firmware.img").exists(), "something is kept for ever");
}
