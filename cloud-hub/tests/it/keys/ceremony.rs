//! Two machines, files carried between them, and everything that is refused.

use std::fs;

use hyper::{Method, StatusCode};

use super::Machine;
use crate::support::TestHub;

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_make_rotate_and_revoke_and_what_is_not_signed_enough_is_refused() {
    let hub = TestHub::without_repository().await;
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (online, custodian) = (Machine::online(near.path(), &hub), Machine::offline(far.path()));
    for name in ["one", "two", "three"] {
        custodian.does(&format!("keys new {name}.key --holder {name}")).await;
        fs::rename(far.path().join(format!("{name}.key.pub")), near.path().join(format!("{name}.key.pub"))).unwrap();
    }
    custodian.refuses("keys new one.key", 1, "never overwritten").await;
    let roots = "--root-key one.key.pub --root-key two.key.pub --root-key three.key.pub";
    online.refuses(&format!("keys init --out a {roots} --threshold 4"), 1, "4 signatures of 3 keys").await;
    let said = online.does(&format!("keys init --out carry {roots} --line card-fraud")).await;
    assert!(said.contains("targets.key") && said.contains("2 more, from"), "{said}");
    let carried = |name: &str| (near.path().join("carry").join(name), far.path().join(name));
    let carry = |name: &str| {
        let (near, far) = carried(name);
        fs::copy(near, far).unwrap();
    };
    carry("1.root.json");
    online.refuses("keys apply carry/1.root.json carry/1.targets.json", 5, "needs 2 of the signatures").await;
    let said = custodian.does("keys sign 1.root.json --key one.key").await;
    assert!(said.contains("root is signed by 2 of") || said.contains("root: is signed by 2 of"), "{said}");
    assert!(said.contains("1 more, from") && said.contains("(two)") && said.contains("(three)"), "{said}");
    custodian.does("keys new stranger.key").await;
    custodian.refuses("keys sign 1.root.json --key stranger.key", 1, "may not sign root").await;
    // Two copies, signed at the same time.
    carry("1.root.json");
    custodian.does("keys sign 1.root.json --key one.key").await;
    fs::rename(far.path().join("1.root.json"), far.path().join("first.json")).unwrap();
    carry("1.root.json");
    custodian.does("keys sign 1.root.json --key three.key").await;
    let said = custodian.does("keys sign 1.root.json --with first.json").await;
    assert!(said.contains("It is complete"), "{said}");
    let signed = fs::read_to_string(far.path().join("1.root.json")).unwrap();
    fs::write(near.path().join("carry/1.root.json"), &signed).unwrap();
    online.does("keys apply carry/1.root.json carry/1.targets.json").await;
    online.refuses("keys apply carry/1.root.json", 5, "version 1, expected 2").await;
    online.refuses("keys init --out again", 2, "repository already").await;

    // Damaged and foreign files.
    let later = signed.replacen("2027-", "2037-", 1).replacen("\"version\":1", "\"version\":2", 1);
    fs::write(far.path().join("forged.json"), later).unwrap();
    let said = custodian.does("keys show forged.json").await;
    assert!(said.contains("signature of key") && said.contains("is wrong"), "{said}");
    fs::write(far.path().join("half.json"), &signed[..signed.len() / 2]).unwrap();
    custodian.refuses("keys show half.json", 1, "half.json: not signed metadata").await;
    custodian.refuses("keys sign 1.root.json --key 1.root.json", 1, "key file 1.root.json").await;
    custodian.refuses("keys sign none.json --key one.key", 1, "could not read none.json").await;
    online.refuses("keys draft root --add root=carry/1.root.json --out b", 1, "expected a file that").await;
    online.refuses("keys draft root --add root --out b", 2, "NAME=VALUE").await;
    online.refuses("keys draft root --file a=b --out b", 2, "--file").await;
    online.refuses("keys draft nodes --line x --out b", 2, "--line").await;
    online.refuses("keys draft unknown --out b", 2, "do not delegate to models/unknown").await;

    for role in ["targets", "root"] {
        online.refuses(&format!("keys draft {role} --life 0s --out old"), 2, "expected from 1m to 36500d").await;
        online.refuses(&format!("keys draft {role} --life 99999d --out old"), 2, "good for 99999d").await;
    }
    online.refuses("keys draft root --threshold root=4 --out old", 1, "4 signatures of 3 keys").await;
    online.refuses("keys draft targets --threshold agent=2 --out old", 1, "2 signatures of 1 key:").await;
    online.does("keys draft targets --out old").await;
    // Carried for longer than it was good for.
    let drafted = fs::read_to_string(near.path().join("old/2.targets.json")).unwrap();
    let (before, rest) = drafted.split_once("\"expires\":\"").unwrap();
    let old = format!("{before}\"expires\":\"2020{}", &rest[4..]);
    fs::write(near.path().join("old/2.targets.json"), old).unwrap();
    online.does("keys sign old/2.targets.json --key carry/targets.key").await;
    let said = custodian.tries(&format!("keys show {}/old/2.targets.json", near.path().display())).await.1;
    assert!(said.contains("It has expired") && said.contains("complete"), "{said}");
    online.refuses("keys apply old/2.targets.json", 5, "targets 2 expired at").await;
    online.refuses("keys draft targets --out old", 1, "is there already").await;

    // Another custodian: the old list and the new one have to agree.
    online.does("keys new four.key --holder four").await;
    online.does("keys draft root --add root=four.key.pub --remove root=one --out next").await;
    for name in ["1.root.json", "2.root.json"] {
        fs::copy(near.path().join("next").join(name), far.path().join(name)).unwrap();
    }
    online.does("keys sign next/2.root.json --key four.key").await;
    online.refuses("keys apply next/2.root.json", 5, "root 1 lists and has 0").await;
    let said = custodian.does("keys sign 2.root.json --key two.key").await;
    assert!(said.contains("(four) may sign from now on") && said.contains("(one) may no longer sign"), "{said}");
    custodian.does("keys sign 2.root.json --key three.key").await;
    fs::copy(far.path().join("2.root.json"), near.path().join("two.json")).unwrap();
    online.does("keys apply two.json").await;

    // The targets key leaked: without new targets the root is refused.
    online.does("keys new new.key").await;
    online.does("keys draft root --replace targets=new.key.pub --out leak").await;
    online.does("keys draft targets --replace targets=new.key.pub --out leak").await;
    fs::copy(near.path().join("leak/3.root.json"), far.path().join("3.root.json")).unwrap();
    custodian.does("keys sign 3.root.json --key two.key --key three.key").await;
    fs::copy(far.path().join("3.root.json"), near.path().join("leak/3.root.json")).unwrap();
    online.refuses("keys apply leak/3.root.json", 5, "sign targets anew").await;
    online.refuses("keys sign leak/2.targets.json --key carry/targets.key", 1, "may not sign targets").await;
    online.does("keys sign leak/2.targets.json --key new.key").await;
    online.does("keys apply leak/3.root.json leak/2.targets.json").await;
    online.refuses("keys line returns --keys carry", 1, "is not the targets key that root 3 lists").await;
    let said = online.does("keys status").await;
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(said.contains("2 of 3") && said.contains("models/card-fraud") && said.contains("four"), "{said}");
    let (_, entries) = hub.get("/audit?action=metadata.apply").await;
    assert_eq!(entries["items"].as_array().unwrap().len(), 5);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_sensor_nodes_is_drafted_signed_sent_with_its_content_and_withdrawn() {
    let hub = TestHub::without_repository().await;
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::online(folder.path(), &hub);
    machine.does("keys init --out keys").await;
    fs::write(folder.path().join("press.img"), "image").unwrap();
    machine.does("keys draft nodes --file nodes/press/v3.img=press.img --out one").await;
    machine.refuses("keys draft nodes --file agent/x=press.img --out two", 1, "does not belong").await;
    machine.refuses("keys draft nodes --file nodes/press/v4.img=none --out two", 1, "could not read none").await;
    machine.does("keys sign one/1.nodes.json --key keys/targets.key").await;
    machine.refuses("keys apply one/1.nodes.json", 5, "send that first").await;
    machine.does("keys apply one/1.nodes.json --content press.img").await;
    let hash = tributary_release::digest(b"image");
    let served = hub.send(Method::GET, &format!("/repository/targets/nodes/press/{hash}.v3.img"), "", "").await;
    assert_eq!((served.status, &served.body[..]), (StatusCode::OK, &b"image"[..]));
    let said = machine.does("keys draft nodes --withdraw nodes/press/v3.img --out two").await;
    assert!(said.contains("v3.img: gone"), "{said}");
    machine.does("keys sign two/2.nodes.json --key keys/targets.key").await;
    machine.refuses("keys apply two/2.nodes.json", 5, "no longer names nodes/press/v3.img").await;
    machine.does("keys apply two/2.nodes.json --withdraw").await;
    hub.stop().await;
}
