//! Which devices may be asked for what. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tributary_wire::{DeviceId, GroupName, Order};

/// Allowed where no rule fits: to look does no harm.
pub const DEFAULT: [OrderName; 2] = [OrderName::Logs, OrderName::Diagnostics];

/// A kind of command, as settings name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderName {
    /// Sending the last lines of the log.
    Logs,
    /// Sending a bundle for whoever looks for a fault.
    Diagnostics,
    /// Starting the agent again.
    Restart,
    /// Making a new key and having it certified.
    RotateKey,
}

impl OrderName {
    /// The kind of an order.
    pub fn of(order: &Order) -> Self {
        match order {
            Order::Logs { .. } => Self::Logs,
            Order::Diagnostics => Self::Diagnostics,
            Order::Restart => Self::Restart,
            Order::RotateKey => Self::RotateKey,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Diagnostics => "diagnostics",
            Self::Restart => "restart",
            Self::RotateKey => "rotate-key",
        }
    }
}

/// What devices of a group, or with some labels, may be asked for. A rule with neither fits every device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only devices of this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Only devices that have all of these labels. Those count that were given at the hub: a device does not choose
    /// its rule by what it reports of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What they may be asked for; nothing else.
    pub allow: Vec<OrderName>,
}

/// Where a device belongs, as the hub knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its group.
    pub group: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Rule {
    fn fits(&self, place: &Place) -> bool {
        let group = self.group.as_ref().is_none_or(|group| place.group.as_deref() == Some(group.as_str()));
        group && self.labels.iter().all(|(key, value)| place.labels.get(key) == Some(value))
    }
}

/// The settings do not allow a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{order} is not allowed for device {device}: {rule} allows {allows}")]
pub struct Refusal {
    order: &'static str,
    device: DeviceId,
    rule: String,
    allows: String,
}

/// Whether a device may be asked for something: the first rule that fits it decides.
pub fn allows(rules: &[Rule], device: &DeviceId, place: &Place, order: &Order) -> Result<(), Refusal> {
    let found = rules.iter().enumerate().find(|(_, rule)| rule.fits(place));
    let allow = found.map_or(&DEFAULT[..], |(_, rule)| &rule.allow);
    if allow.contains(&OrderName::of(order)) {
        return Ok(());
    }
    let rule = match found {
        None => "no rule of commands.rules fits it, and the default".to_owned(),
        Some((index, rule)) => {
            let group = rule.group.iter().map(|group| format!("group = {group}"));
            let labels = rule.labels.iter().map(|(key, value)| format!("{key} = {value}"));
            let of: Vec<String> = group.chain(labels).collect();
            let of = if of.is_empty() { "every device".to_owned() } else { of.join(", ") };
            format!("commands.rules[{index}] ({of})")
        }
    };
    let names: Vec<&str> = allow.iter().map(|name| name.name()).collect();
    let allows = if names.is_empty() { "nothing".to_owned() } else { format!("only {}", names.join(", ")) };
    Err(Refusal { order: order.name(), device: device.clone(), rule, allows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        #[derive(Deserialize)]
        struct Rules {
            rules: Vec<Rule>,
        }
        toml::from_str::<Rules>(text).unwrap().rules
    }

    fn place(group: Option<&str>, labels: &[(&str, &str)]) -> Place {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Place { group: group.map(str::to_owned), labels }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules(
            "[[rules]]\ngroup = \"lab\"\nlabels = { site = \"lyon\" }\nallow = [\"restart\", \"logs\"]\n\
             [[rules]]\ngroup = \"lab\"\nallow = []\n[[rules]]\nlabels = { open = \"yes\" }\nallow = [\"rotate-key\"]\n",
        );
        let device = DeviceId::new("edge-1").unwrap();
        let logs = Order::Logs { lines: 1 };
        for (place, order, refusal) in [
            (place(None, &[]), &logs, ""),
            (place(None, &[]), &Order::Diagnostics, ""),
            (
                place(None, &[]),
                &Order::Restart,
                "no rule of commands.rules fits it, and the default allows only logs, diagnostics",
            ),
            (place(Some("lab"), &[("site", "lyon")]), &Order::Restart, ""),
            (
                place(Some("lab"), &[("site", "lyon")]),
                &Order::Diagnostics,
                "commands.rules[0] (group = lab, site = lyon) allows only restart, logs",
            ),
            (place(Some("lab"), &[("site", "nice")]), &logs, "commands.rules[1] (group = lab) allows nothing"),
            (place(None, &[("open", "yes")]), &Order::RotateKey, ""),
            (place(Some("lab"), &[("open", "yes")]), &Order::RotateKey, "commands.rules[1]"),
        ] {
            let found =
                allows(&rules, &device, &place, order).map_or_else(|refusal| refusal.to_string(), |()| String::new());
            assert!(found.contains(refusal) && found.is_empty() == refusal.is_empty(), "{place:?} {order}: {found}");
        }
        assert!(allows(&[], &device, &place(None, &[]), &logs).is_ok());
    }
}
