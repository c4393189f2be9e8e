//! The guide for people: its commands are run as they stand there.

use std::path::Path;
use std::process::Command;

use super::PROGRAM;
use crate::devices::{Device, batch};
use crate::support::TestHub;

fn run(script: &str, folder: &Path, hub: Option<&TestHub>) -> String {
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let mut shell = Command::new("sh");
    shell.current_dir(folder).args(["-e", "-c", script]);
    shell.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
    shell.env_remove("CLOUD_HUB_CA").env_remove("CLOUD_HUB_TOKEN");
    if let Some(hub) = hub {
        shell.env("CLOUD_HUB_URL", hub.url()).env("CLOUD_HUB_TOKEN_FILE", hub.token_file());
    }
    let output = shell.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{script}\n{said}");
    said
}

/// The shell scripts of a part of the guide.
fn scripts(part: &str) -> impl Iterator<Item = &str> {
    part.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_guide_works() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hub/backup.md")).unwrap();
    let (made, rest) = guide.split_once("<!-- restore -->").unwrap();
    let (restore, drill) = rest.split_once("<!-- drill -->").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    std::fs::create_dir(place.join("backups")).unwrap();
    let hub = TestHub::start_in(folder, |config| {
        config.data_dir = place.join("hub-data");
        config.backup.folder = place.join("backups");
    })
    .await;
    let mut device = Device::connected(&hub, "edge-1").await;
    device.publish("batch", batch(1, &[1, 2])).await;
    device.acknowledged(1).await;
    // The hub makes its first one by itself, in the same folder.
    hub.until("/backups", |page| page["items"].as_array().is_some_and(|items| !items.is_empty())).await;
    let mut commands = 0;
    for script in scripts(made) {
        tokio::task::block_in_place(|| run(script, &place, Some(&hub)));
        commands += script.matches("cloud-hub ").count();
    }
    let _folder = hub.stop().await;
    let mut scripts_of_restore = scripts(restore);
    run(scripts_of_restore.next().unwrap(), &place, None);
    // The new hub's folder, as the settings of this test name it.
    let hub =
        TestHub::start_bare(tempfile::tempdir().unwrap(), |config| config.data_dir = place.join("new-data")).await;
    for script in scripts_of_restore {
        let said = tokio::task::block_in_place(|| run(script, &place, Some(&hub)));
        assert!(said.contains("backup_time") || said.contains("state"), "{said}");
    }
    hub.stop().await;
    for script in scripts(drill) {
        run(script, &place, None);
        commands += script.matches("cloud-hub ").count();
    }
    assert!(commands >= 9, "{commands}");
    assert!(!place.join("drill").exists());
}
