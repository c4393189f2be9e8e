//! Versions of agents, as packages ask for them.

/// The lowest agent that can serve what the trainer makes today. It is raised, by hand, in the change that makes new
/// packages need something that agents before it lack: another manifest format, an operator, a stage of the view. It does
/// not follow this program's own version: a hub that was upgraded must go on making models for the agents that there are.
pub const LOWEST_AGENT: &str = "0.1.0";

/// A version such as `0.1.0` as numbers to compare; `None` if it is written in any other way.
pub fn required_version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        part.parse().ok().filter(|_| plain)
    });
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// Whether an agent of version `found` is at least the version `needed`. What cannot be read is not enough, and a version
/// with a suffix, such as `0.2.0-rc1`, comes before the one without.
pub fn is_enough(needed: &str, found: &str) -> bool {
    let bare = found.split_once('+').map_or(found, |(bare, _)| bare);
    let (numbers, early) = bare.split_once('-').map_or((bare, false), |(numbers, _)| (numbers, true));
    match (required_version(needed), required_version(numbers)) {
        (Some(needed), Some(found)) => found > needed || (found == needed && !early),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_and_what_is_none_is_not_enough() {
        for (needed, found) in [("0.9.9", "0.10.0"), ("0.1.0", "0.1.0"), ("0.1.0", "0.1.1-rc1"), ("0.1.0", "0.1.0+7")] {
            assert!(is_enough(needed, found), "{needed} {found}");
            assert!(!is_enough(found, "0.0.9"));
        }
        let not =
            [("0.2.0", "0.2.0-rc1"), ("0.2.0-rc1", "0.3.0"), ("v9.0.0", "0.1.0"), ("", "0.1.0"), ("0.1.0", "dev")];
        for (needed, found) in not {
            assert!(!is_enough(needed, found), "{needed} {found}");
        }
        let none = ["v1.0.0", "1.0", "1.0.0.0", "+1.0.0", "01.0.0", "1..0", "1.0.0-rc1", "4294967296.0.0", " 1.0.0"];
        assert!(none.iter().all(|text| required_version(text).is_none()));
    }

    #[test]
    fn every_agent_of_this_source_serves_what_its_trainer_makes() {
        assert!(is_enough(LOWEST_AGENT, env!("CARGO_PKG_VERSION")));
    }
}
