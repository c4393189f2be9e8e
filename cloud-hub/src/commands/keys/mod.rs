//! `keys`: who may sign what in the hub's repository. Making, signing and looking at files needs no hub.

mod apply;
mod draft;
mod files;
mod init;
mod sign;
mod status;

use std::path::PathBuf;

use clap::Subcommand;
use tributary_process::config::HumanDuration;

use super::{Failure, Global, Remote};

/// Who may sign what in the repository that devices believe
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cloud-hub keys init --out my-keys --line card-fraud    a small fleet
  cloud-hub keys status                                  what expires when
  cloud-hub keys line returns --keys my-keys             one more line
  cloud-hub keys draft root --out carry                  and where the keys are:
  cloud-hub keys sign carry/2.root.json --key root-1.key
  cloud-hub keys apply carry/2.root.json

deploy/hub/keys.md tells how to rotate keys, and what to do when one leaks.")]
pub enum Keys {
    /// Make all keys of a new repository, and give the hub its first root and targets
    Init(init::Init),
    /// Make one key: FILE for its holder alone, FILE.pub to be passed on
    New {
        /// File of the new secret key
        file: PathBuf,
        /// Who will hold it, as others will read it; the file's name when left out
        #[arg(long, value_name = "NAME")]
        holder: Option<String>,
    },
    /// Write the next version of a file that people sign, unsigned
    Draft(draft::Draft),
    /// Say what a file changes, sign it, and say who still has to; needs no hub
    Sign {
        /// The file; the versions before it and above it are looked for beside it
        file: PathBuf,
        /// A secret key to sign with; may be given several times
        #[arg(long = "key", value_name = "FILE", required_unless_present = "with")]
        keys: Vec<PathBuf>,
        /// Take over the signatures of another copy of the file
        #[arg(long, value_name = "FILE")]
        with: Vec<PathBuf>,
    },
    /// Say what a file changes and who has signed it; needs no hub
    Show {
        /// The file
        file: PathBuf,
    },
    /// Give signed files to the hub: all of them are taken, or none
    Apply {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Content that the files name, such as an image for sensor nodes
        #[arg(long = "content", value_name = "FILE")]
        contents: Vec<PathBuf>,
        /// What the files no longer name is to go
        #[arg(long)]
        withdraw: bool,
    },
    /// Who signs what, what expires when, and what to do next
    Status,
    /// Add a model line in one step, with the targets key at hand
    Line {
        /// The line
        name: String,
        /// The folder with targets.key
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// A person signs its releases, with this key (FILE.pub); else the hub does
        #[arg(long, value_name = "FILE")]
        attended: Option<PathBuf>,
        /// How long the targets are good then
        #[arg(long, default_value = "365d", value_name = "TIME")]
        life: HumanDuration,
    },
}

impl Keys {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::New { file, holder } => files::new_key(&file, holder, global.json),
            Self::Sign { file, keys, with } => sign::sign(&file, &keys, &with, global.json),
            Self::Show { file } => sign::show(&file, global.json),
            Self::Init(init) => init.run(&Remote::new(global)?).await,
            Self::Draft(draft) => draft.run(&Remote::new(global)?).await,
            Self::Apply { files, contents, withdraw } => {
                apply::apply(&Remote::new(global)?, &files, &contents, withdraw).await
            }
            Self::Status => status::status(&Remote::new(global)?).await,
            Self::Line { name, keys, attended, life } => {
                draft::line(&Remote::new(global)?, &name, &keys, attended.as_deref(), life).await
            }
        }
    }
}
