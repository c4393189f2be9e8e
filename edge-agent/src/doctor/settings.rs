//! Settings: whether they can be read, and what in them is for trying things out alone.

use tributary_features::View;
use tributary_process::checkup::{Finding, count};
use tributary_process::config::Sources;

use crate::config::Config;
use crate::words::in_words;

const SECTION: &str = "Settings";

/// The settings, if they can be used, and what is to be said about them.
pub(super) fn load(sources: &Sources) -> (Option<Config>, Vec<Finding>) {
    let from = describe(sources);
    let loaded = sources.load::<Config>().map_err(|error| in_words(&error));
    let checked = loaded.and_then(|config| config.check().map(|()| config).map_err(|error| in_words(&error)));
    match checked {
        Ok(config) => {
            let mut findings = vec![Finding::ok(SECTION, "settings", format!("{from}; every key is known"))];
            findings.extend(judge(&config));
            (Some(config), findings)
        }
        Err(problem) => {
            let advice = "correct it; `edge-agent config` prints every key with its default";
            (None, vec![Finding::fail(SECTION, "settings", problem).advise(advice)])
        }
    }
}

fn describe(sources: &Sources) -> String {
    let mut parts = Vec::new();
    parts.extend(sources.file.as_ref().map(|path| path.display().to_string()));
    let counts = [(sources.environment.len(), "variable", "variables"), (sources.flags.len(), "flag", "flags")];
    for (number, one, more) in counts.into_iter().filter(|(number, ..)| *number > 0) {
        parts.push(count(number as u64, one, more));
    }
    if parts.is_empty() { "defaults alone".to_owned() } else { parts.join(", ") }
}

fn judge(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(path) = &config.view {
        let name = path.display();
        findings.push(match std::fs::read_to_string(path).map(|text| View::from_toml(&text)) {
            Ok(Ok(view)) => {
                let found =
                    format!("{name}: {} version {}, {} features", view.name(), view.version(), view.features().len());
                Finding::ok(SECTION, "feature view", found)
            }
            Ok(Err(error)) => Finding::fail(SECTION, "feature view", format!("{name}: {}", in_words(&error)))
                .advise("correct the file: the agent does not start with it"),
            Err(error) => Finding::fail(SECTION, "feature view", format!("{name}: {error}"))
                .advise("put the file there, or take `view` out of the settings"),
        });
    }
    let plain = [
        ("hub.insecure_plain_mqtt", config.hub.insecure_plain_mqtt.is_some()),
        ("hub.insecure_plain_http", config.hub.insecure_plain_http.is_some()),
        ("download.insecure_plain_mirrors", !config.download.insecure_plain_mirrors.is_empty()),
    ];
    let plain: Vec<&str> = plain.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect();
    if !plain.is_empty() {
        let found = format!("{}: without encryption, and without proof of who speaks", plain.join(", "));
        findings.push(
            Finding::warn(SECTION, "unsafe settings", found).advise("for development only; enrol the device instead"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use tributary_process::checkup::Mark;

    use super::*;

    fn marks(file: &str) -> Vec<(String, Mark)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        let (_, findings) = load(&Sources { file: Some(path), ..Sources::default() });
        findings.iter().map(|finding| (finding.found().to_owned(), finding.mark())).collect()
    }

    #[test]
    fn what_is_wrong_with_settings_is_named() {
        assert_eq!(marks("")[0].1, Mark::Ok);
        for (file, words) in
            [("devise = 'x'", "devise"), ("[listen]\ntcp = '0.0.0.0:1'", "0.0.0.0:1"), ("[link", "not valid TOML")]
        {
            let found = marks(file);
            assert!(found.len() == 1 && found[0].1 == Mark::Fail && found[0].0.contains(words), "{found:?}");
        }
        let found = marks("view = '/nowhere/view.toml'\n[hub]\ninsecure_plain_mqtt = '127.0.0.1:1883'");
        assert_eq!(found.iter().map(|(_, mark)| *mark).collect::<Vec<_>>(), [Mark::Ok, Mark::Fail, Mark::Warn]);
        let missing = load(&Sources { file: Some("/nowhere/agent.toml".into()), ..Sources::default() });
        assert!(missing.0.is_none() && missing.1[0].mark() == Mark::Fail);
    }
}
