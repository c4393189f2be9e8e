//! The authority that signs this hub's and its devices' certificates: made at the first start, or given by files.

use std::path::Path;

use anyhow::Context as _;
use cloud_hub_gateway::ResetKey;
use sha2::{Digest as _, Sha256};
use tributary_identity::{Authority, Certificate};
use tributary_process::durable;
use tributary_wire::Micros;

use super::config::IdentityConfig;

/// Every device has to enrol again when the authority ends, so it lives as long as devices do: ten years.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(3_650 * 86_400);

/// The authority, and all whose certificates are believed: it comes first.
pub(super) struct Opened {
    pub authority: Authority,
    pub believed: Vec<Certificate>,
    /// Stays the same as long as the authority does.
    pub reset: ResetKey,
}

/// Reads the authority, or makes one if there is none. `issued` is how many certificates stand in the catalog: once
/// there are any, a lost file is an error, because a new authority would lock every device out.
///
/// The key is written first. A start that was cut off between the two files leaves a key without a certificate: nobody
/// has believed it yet, and the next start begins anew.
pub(super) fn open(config: &IdentityConfig, folder: &Path, issued: i64, now: Micros) -> anyhow::Result<Opened> {
    let own = (folder.join("authority.pem"), folder.join("authority.key"));
    let given = config.authority.clone().zip(config.authority_key.clone());
    let external = given.is_some();
    let (certificate, key) = given.unwrap_or(own);
    if !external && !certificate.exists() {
        anyhow::ensure!(
            issued == 0,
            "{} is missing, but devices hold certificates of it ({issued} were issued): restore authority.pem and \
             authority.key from a backup, or every device would have to enrol again",
            certificate.display()
        );
        let (made, secret) = Authority::create("tributary authority", now, LIFETIME)?;
        durable::write_private(&key, secret.as_bytes()).with_context(|| format!("write {}", key.display()))?;
        durable::write(&certificate, made.as_bytes()).with_context(|| format!("write {}", certificate.display()))?;
        tracing::info!(certificate = %certificate.display(), "made a certificate authority; keep a copy of both files");
    }
    let text = std::fs::read_to_string(&certificate)
        .with_context(|| format!("read the authority {}", certificate.display()))?;
    let believed =
        Certificate::all_from_pem(&text).with_context(|| format!("read the authority {}", certificate.display()))?;
    let authority = Authority::open(&certificate, &key)
        .with_context(|| format!("open the authority of {} and {}", certificate.display(), key.display()))?;
    if let Some(other) = believed.iter().find(|other| !other.is_authority()) {
        anyhow::bail!("{} holds {:?}, which is not an authority", certificate.display(), other.common_name());
    }
    let secret = std::fs::read(&key).with_context(|| format!("read {}", key.display()))?;
    let reset = Sha256::new().chain_update("tributary quic reset\n").chain_update(&secret).finalize();
    Ok(Opened { authority, believed, reset: ResetKey::new(reset.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path, issued: i64) -> Result<Opened, String> {
        open(&IdentityConfig::default(), folder, issued, crate::catalog::now()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path(), 0).unwrap().authority.certificate().fingerprint();
        assert_eq!(opened(folder.path(), 7).unwrap().authority.certificate().fingerprint(), first);
        let reset = || opened(folder.path(), 7).unwrap().reset;
        assert_eq!(reset(), reset(), "devices learn of a restart by it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("authority.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            std::fs::set_permissions(folder.path().join("authority.key"), PermissionsExt::from_mode(0o640)).unwrap();
            assert!(opened(folder.path(), 7).err().unwrap().contains("mode 640"));
        }
    }

    #[test]
    fn a_first_start_that_was_cut_off_begins_anew_and_a_lost_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        opened(folder.path(), 0).unwrap();
        // As it is after a cut between the two files.
        std::fs::remove_file(folder.path().join("authority.pem")).unwrap();
        assert!(opened(folder.path(), 1).err().unwrap().contains("restore authority.pem"));
        opened(folder.path(), 0).unwrap();
        std::fs::remove_file(folder.path().join("authority.key")).unwrap();
        assert!(opened(folder.path(), 0).err().unwrap().contains("authority.key"));
    }

    #[test]
    fn an_authority_made_elsewhere_is_taken_by_its_files() {
        let (elsewhere, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        opened(elsewhere.path(), 0).unwrap();
        let mut config = IdentityConfig {
            authority: Some(elsewhere.path().join("authority.pem")),
            authority_key: Some(elsewhere.path().join("authority.key")),
            ..IdentityConfig::default()
        };
        let taken = open(&config, folder.path(), 3, Micros(0)).unwrap().authority.certificate().fingerprint();
        assert_eq!(taken, opened(elsewhere.path(), 0).unwrap().authority.certificate().fingerprint());
        config.authority = Some(elsewhere.path().join("nowhere.pem"));
        assert!(format!("{:#}", open(&config, folder.path(), 3, Micros(0)).err().unwrap()).contains("nowhere.pem"));
    }
}
