//! A device in another language, with an MQTT client that is not ours, at a real hub.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tributary_wire::{
    Ack, Batch, BatchBody, BatchHeaderV1, BodyEncoding, ClockState, Column, Field, FieldType, Incarnation, Micros,
    Sensitivity, SequenceNumber, Stamp, StreamName,
};

use crate::process::Hub;
use crate::tools;

const SCRIPT: &str = include_str!("python_client.py");
const DAY: Micros = Micros(1_767_571_200_000_000);

/// Two readings of a sensor.
fn batch(stream: &StreamName) -> Vec<u8> {
    let field = |name: &str, kind, unit: &str| Field {
        name: name.to_owned(),
        kind,
        unit: unit.to_owned(),
        nullable: false,
        sensitivity: Sensitivity::Keep,
    };
    let schema = vec![
        field("event_id", FieldType::Text, ""),
        field("event_time", FieldType::Time, ""),
        field("temperature", FieldType::Double, "Cel"),
    ];
    let columns = vec![
        Column::Text(vec![Some("reading-1".into()), Some("reading-2".into())]),
        Column::Time(vec![Some(DAY), Some(DAY)]),
        Column::Double(vec![Some(20.5), Some(21.0)]),
    ];
    let body = BatchBody::Records { schema, columns }.encode();
    let header = BatchHeaderV1 {
        incarnation: Incarnation(1),
        stream: stream.clone(),
        sequence: SequenceNumber(1),
        rows: 2,
        encoding: BodyEncoding::Plain,
        body_bytes: body.len() as u32,
        body_crc: 0,
        stamp: Stamp { boot: 1, monotonic: 1, wall: DAY, clock: ClockState::Synchronised },
    };
    Batch::new(header, body).encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_enrols_publishes_and_is_acknowledged() {
    let modules = ["paho.mqtt.client", "cryptography"];
    let Some(python) = tools::python_with("a client in Python", &modules) else { return };
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path()).await;
    let stream = StreamName::new("readings").unwrap();
    let asked = json!({
        "url": format!("https://{}", hub.address("https")),
        "mqtt": hub.address("mqtt_tls"),
        "token": hub.token(1),
        "authority": hub.authority(),
        "folder": hub.beside("python"),
        "device": "python-1",
        "other": "python-2",
        "batch": tools::base64(&batch(&stream)),
    });
    let told = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let told = told.await.unwrap();
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}\nthe end of the hub's log:\n{}", hub.process.log());
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["connect"], "Success");
    assert_eq!(told["subscribe"], "Granted QoS 1");
    assert_eq!(told["own"], "Success");
    assert_eq!(told["other"], "Not authorized");

    let Ack::V1(ack) = Ack::decode(&tools::from_base64(told["ack"].as_str().unwrap())).unwrap();
    let of = ack.streams.iter().find(|of| of.stream == stream).expect("the stream is acknowledged");
    assert_eq!((of.through, of.quarantined.as_slice()), (SequenceNumber(1), &[][..]));
    let counts = tributary_demo::recount::event_ids(&hub.lake(), stream.as_str()).unwrap();
    assert_eq!((counts.len(), counts["reading-1"], counts["reading-2"]), (2, 1, 1));
}
