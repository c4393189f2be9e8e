//! `backup`: copies of all that a hub cannot make again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::Connection as _;
use tributary_process::config::ByteSize;
use tributary_process::outln;
use tributary_wire::Micros;

use super::serve::Settings;
use super::{Failure, Global, Remote};
use crate::backup::{self, CreateWish, Made, manifest::Manifest, schedule};
use crate::catalog;

/// Make, check and list backups of a hub
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  cloud-hub backup /mnt/backups --data-dir /var/lib/tributary
  cloud-hub backup hub.backup.tar.zst --config hub.toml --with-lake
  cloud-hub backup verify /mnt/backups/hub-20260131T102030.123Z.backup.tar.zst
  cloud-hub backup list /mnt/backups
  cloud-hub backup start                  ask a running hub to make one where it is

The hub may run meanwhile. The file is a tar in a zstd frame; there are keys inside, so only its owner may read it.
To encrypt it: age --encrypt --recipients-file FILE BACKUP, or gpg --encrypt. To restore one: cloud-hub restore."
)]
pub struct Backup {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    create: Create,
}

#[derive(Debug, Args)]
struct Create {
    /// A folder, or the file to make
    #[arg(value_name = "TO")]
    to: Option<PathBuf>,
    /// Data folder of the hub; that of the settings when left out
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also the lake's files, into the folder `lake` beside the backup: linked on one file system, else copied
    #[arg(long)]
    with_lake: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a whole backup
    Verify {
        /// The backup
        file: PathBuf,
        /// A lake that should have the files which the backup names
        #[arg(long, value_name = "DIR")]
        lake: Option<PathBuf>,
    },
    /// List backups in a folder, or those of a running hub
    List {
        /// The folder; the hub is asked when left out
        folder: Option<PathBuf>,
    },
    /// Ask a running hub to make a backup in its folder (the setting backup.folder)
    Start,
}

impl Backup {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.what {
            None => self.create.run(global).await,
            Some(What::Verify { file, lake }) => verify(&file, lake.as_deref(), global.json),
            Some(What::List { folder: Some(folder) }) => list(&folder, global.json),
            Some(What::List { folder: None }) => {
                let remote = Remote::new(global)?;
                let answer = remote.get("/backups").await?;
                let items = answer["items"].as_array().cloned().unwrap_or_default();
                remote.show_list(
                    &items,
                    &[("made", "made"), ("bytes", "bytes"), ("file", "file"), ("problem", "problem")],
                );
                Ok(())
            }
            Some(What::Start) => {
                let remote = Remote::new(global)?;
                let made = remote.post("/backups", &json!({})).await?;
                remote.done(&made, &format!("made {} on the hub's machine", made["file"].as_str().unwrap_or_default()));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let usage = || Failure::Usage("name a folder or a file to write the backup to".to_owned());
        let to = self.to.ok_or_else(usage)?;
        let (mut config, said) = (self.settings.load()?, self.data_dir.is_none());
        if let Some(data) = self.data_dir {
            config.data_dir = data;
        }
        let data = config.data_dir.clone();
        let path = data.join(backup::manifest::CATALOG);
        if !path.is_file() {
            return Err(anyhow::Error::new(backup::BackupError::NoHub { path: data, missing: "catalog.db" }).into());
        }
        let mut wish = schedule::wish(&config, to, Arc::new(AtomicBool::new(false)));
        // Settings that nobody named are only this program's own.
        wish.settings = wish.settings.filter(|_| said);
        wish.with_lake |= self.with_lake;
        let quiet = global.json;
        wish.tell = Arc::new(move |words| {
            if !quiet {
                eprintln!("{words}");
            }
        });
        let made = create(&path, wish).await?;
        for missing in &made.missing {
            eprintln!("warning: the catalog names {missing}, which is not there: it is not in the backup");
        }
        if let Err(error) = written_down(&path, &made).await {
            eprintln!("warning: the backup could not be written into the audit log: {error:#}");
        }
        if global.json {
            outln!("{:#}", made.summary());
        } else {
            outln!("{} ({})", made.path.display(), ByteSize(made.bytes));
            outside(&made.manifest);
        }
        Ok(())
    }
}

async fn create(path: &Path, wish: CreateWish) -> Result<Made, Failure> {
    let opened = catalog::open_to_read(path).await;
    let mut reader = opened.with_context(|| format!("could not open the catalog {}", path.display()))?;
    let made = backup::create(&mut reader, wish).await.map_err(anyhow::Error::new)?;
    reader.close().await.map_err(anyhow::Error::new)?;
    Ok(made)
}

async fn written_down(path: &Path, made: &Made) -> anyhow::Result<()> {
    let mut connection = catalog::open_to_write(path).await?;
    let mut write = connection.begin_with("begin immediate").await?;
    schedule::record(&mut write, made, catalog::now()).await?;
    write.commit().await?;
    connection.close().await?;
    Ok(())
}

fn outside(manifest: &Manifest) {
    for path in &manifest.outside {
        eprintln!("not in the backup: {path}, which lies outside the data folder; keep a copy of it yourself");
    }
}

fn verify(file: &Path, lake: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let found = backup::verify(file, lake).map_err(anyhow::Error::new)?;
    let Manifest { made, program, migration, audit, lake: counts, members, .. } = &found.manifest;
    if as_json {
        outln!("{:#}", json!(found));
    } else {
        outln!("the backup is whole: {} files, {}", members.len(), ByteSize(found.manifest.bytes()));
        outln!("made      {made} by version {program}, catalog {migration}");
        outln!("audit     {}:{}", audit.number, audit.hash);
        outln!("lake      {} files, {} rows, {}", counts.files, counts.rows, ByteSize(counts.bytes));
        outside(&found.manifest);
    }
    match &found.missing {
        Some(missing) if !missing.is_empty() => {
            let rows: u64 = missing.iter().map(|file| file.rows).sum();
            let (count, first) = (missing.len(), &missing[0].path);
            Err(anyhow::anyhow!("the lake lacks {count} files with {rows} rows, {first} first").into())
        }
        _ => Ok(()),
    }
}

fn list(folder: &Path, as_json: bool) -> Result<(), Failure> {
    let listed = backup::list(folder).map_err(anyhow::Error::new)?;
    if as_json {
        outln!("{:#}", json!(listed));
        return Ok(());
    }
    for backup in listed {
        let what = match (&backup.problem, backup.made) {
            (Some(problem), _) => problem.clone(),
            (None, made) => made.map(|made| Micros(made).to_string()).unwrap_or_default(),
        };
        outln!("{}  {}  {what}", backup.path.display(), ByteSize(backup.bytes));
    }
    Ok(())
}
