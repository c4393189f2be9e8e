//! How near a signed file is to the size beyond which devices refuse it. Pure.

/// Room that is left when somebody should hear of it, and when it is urgent: in hundredths of what devices take.
const SOON: u64 = 80;
const URGENT: u64 = 95;

/// The severity of the alert that a size deserves.
pub fn severity(bytes: u64, most: u64) -> Option<&'static str> {
    let hundredths = bytes.saturating_mul(100) / most.max(1);
    match hundredths {
        URGENT.. => Some("critical"),
        SOON.. => Some("warning"),
        _ => None,
    }
}

/// What a person should do about a role that is so near; `by_hub`: the hub signs it by itself.
pub fn advice(role: &str, by_hub: bool, bytes: u64, most: u64) -> String {
    let what = match (role, role.strip_prefix("models/")) {
        (_, Some(line)) if by_hub => {
            format!("take back releases that no device needs: cloud-hub model withdraw {line} VERSION --reason WHY")
        }
        (_, Some(line)) => format!(
            "sign it without releases that no device needs: cloud-hub keys draft {line} --withdraw PATH --out DIR"
        ),
        ("targets", _) => {
            "sign it without lines that are not used: cloud-hub keys draft targets --drop ROLE --out DIR".to_owned()
        }
        ("snapshot", _) => "it lists every line that there ever was; add no more lines".to_owned(),
        ("root", _) => "sign it with fewer keys: cloud-hub keys draft root --remove ROLE=KEY --out DIR".to_owned(),
        ("timestamp", _) => {
            "sign root with fewer keys for it: cloud-hub keys draft root --remove timestamp=KEY --out DIR".to_owned()
        }
        (other, _) => format!(
            "sign it without files that no device needs: cloud-hub keys draft {other} --withdraw PATH --out DIR"
        ),
    };
    format!("it has {bytes} of the {most} bytes that devices take; {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_hears_at_four_fifths_and_what_helps_depends_on_the_role() {
        let at = |bytes| severity(bytes, 1000);
        assert_eq!(
            [0, 799, 800, 949, 950, 1000].map(at),
            [None, None, Some("warning"), Some("warning"), Some("critical"), Some("critical")]
        );
        assert_eq!(severity(u64::MAX, 0), Some("critical"));
        for (role, by_hub, words) in [
            ("models/returns", true, "model withdraw returns"),
            ("models/returns", false, "keys draft returns --withdraw"),
            ("nodes", false, "keys draft nodes --withdraw"),
            ("targets", false, "--drop"),
            ("snapshot", true, "no more lines"),
        ] {
            let said = advice(role, by_hub, 90, 100);
            assert!(said.contains(words) && said.contains("90 of the 100 bytes"), "{role}: {said}");
        }
    }
}
