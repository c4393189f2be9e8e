//! Whether this device can run a package at all, decided from what the signed metadata says, before anything of it is
//! downloaded.

use tributary_release::{PackageCustom, is_enough};

/// What this device offers. Only what does not change while it runs: memory that happens to be free now is no reason to
/// give a release up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Version of the agent, such as `0.1.0`.
    pub agent: String,
    /// The engines that are built in.
    pub engines: Vec<EngineCapability>,
    /// Memory of the machine, or of the group that the agent's process belongs to, in bytes; `None`: not known.
    pub memory_bytes: Option<u64>,
    /// What the agent itself takes of it, without any package: as measured at its start.
    pub agent_bytes: u64,
    /// What one package may take, as set by whoever runs the device.
    pub package_memory: Option<u64>,
    /// Version of the language of feature views.
    pub view_language: u32,
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineCapability {
    /// Its name, such as `tract`.
    pub name: String,
    /// The ONNX operators that it runs.
    pub operators: Vec<String>,
}

/// Everything that a package needs and this device lacks, in words; empty: it fits. `beside` is what the packages that stay
/// in memory with it declare to need.
///
/// Memory is an estimate, from what packages declare and not from what they take: nothing of a package is here yet when
/// this is asked, and a release must not be given up because of what happens to be free at the moment.
pub fn check(needs: &PackageCustom, has: &Capabilities, beside: u64) -> Vec<String> {
    let requires = &needs.requires;
    let mut lacks = Vec::new();
    if !is_enough(&requires.agent, &has.agent) {
        lacks.push(format!("it needs agent {}, this is {}", requires.agent, has.agent));
    }
    lacks.extend(engines(&requires.engines, &requires.operators, has));
    let need = mebibytes(requires.memory_bytes);
    if let Some(limit) = has.package_memory.filter(|limit| *limit < requires.memory_bytes) {
        lacks.push(format!("it needs {need} of memory, limits.package_memory allows {}", mebibytes(limit)));
    }
    let taken = has.agent_bytes.saturating_add(beside);
    if let Some(all) = has.memory_bytes.filter(|all| all.saturating_sub(taken) < requires.memory_bytes) {
        lacks.push(format!(
            "it needs {need} of memory, the machine has {}, of which the agent takes {} and other packages {}",
            mebibytes(all),
            mebibytes(has.agent_bytes),
            mebibytes(beside)
        ));
    }
    if requires.view_language > has.view_language {
        let view = &needs.view;
        lacks.push(format!(
            "its feature view {} {} is written in version {} of the language, this agent reads up to {}",
            view.name, view.version, requires.view_language, has.view_language
        ));
    }
    lacks
}

/// One engine must be among those named (if any are) and run every operator.
fn engines(named: &[String], operators: &[String], has: &Capabilities) -> Option<String> {
    let all = || has.engines.iter();
    let allowed: Vec<_> = all().filter(|engine| named.is_empty() || named.contains(&engine.name)).collect();
    if allowed.is_empty() {
        let found: Vec<_> = all().map(|engine| engine.name.as_str()).collect();
        return Some(format!("it needs one of the engines {}; there is {}", list(named), list(&found)));
    }
    let missing = |engine: &EngineCapability| {
        operators.iter().filter(|operator| !engine.operators.contains(operator)).cloned().collect::<Vec<_>>()
    };
    let best = allowed.into_iter().map(|engine| (missing(engine), &engine.name)).min_by_key(|(lack, _)| lack.len())?;
    let (lack, engine) = best;
    (!lack.is_empty()).then(|| format!("engine {engine} lacks the operators {}", list(&lack)))
}

fn list(names: &[impl AsRef<str>]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use tributary_release::{Requirements, ViewRef};
    use tributary_wire::{LineName, Micros, VersionNumber};

    use super::*;

    fn needs() -> PackageCustom {
        PackageCustom {
            line: LineName::new("card-fraud").unwrap(),
            version: VersionNumber(2),
            published: Micros(1),
            view: ViewRef { name: "card-risk".into(), version: 3 },
            requires: Requirements {
                agent: "0.2.0".into(),
                operators: vec!["Gemm".into(), "Relu".into()],
                memory_bytes: 32 << 20,
                ..Requirements::default()
            },
        }
    }

    fn has() -> Capabilities {
        let engine = |name: &str, operators: &[&str]| EngineCapability {
            name: name.into(),
            operators: operators.iter().map(ToString::to_string).collect(),
        };
        Capabilities {
            agent: "0.2.0".into(),
            engines: vec![engine("tract", &["Gemm", "Relu", "Add"]), engine("other", &[])],
            memory_bytes: Some(64 << 20),
            agent_bytes: 12 << 20,
            package_memory: None,
            view_language: 1,
        }
    }

    #[test]
    fn what_fits_gives_no_reason() {
        assert_eq!(check(&needs(), &has(), 20 << 20), Vec::<String>::new());
        let unknown = Capabilities { memory_bytes: None, ..has() };
        assert_eq!(check(&needs(), &unknown, 1 << 40), Vec::<String>::new());
    }

    #[test]
    fn each_lack_is_told_with_what_is_needed_and_what_there_is() {
        let reasons = |change: &dyn Fn(&mut PackageCustom, &mut Capabilities)| {
            let (mut needs, mut has) = (needs(), has());
            change(&mut needs, &mut has);
            check(&needs, &has, 0)
        };
        let only = |found: Vec<String>, expected: &str| assert_eq!(found, [expected]);
        only(reasons(&|_, has| has.agent = "0.1.9".into()), "it needs agent 0.2.0, this is 0.1.9");
        only(reasons(&|_, has| has.agent = "0.2.0-rc1".into()), "it needs agent 0.2.0, this is 0.2.0-rc1");
        only(reasons(&|needs, _| needs.requires.agent = "v9".into()), "it needs agent v9, this is 0.2.0");
        only(reasons(&|_, has| has.engines[0].operators.truncate(1)), "engine tract lacks the operators Relu");
        only(
            reasons(&|needs, _| needs.requires.engines = vec!["wgpu".into()]),
            "it needs one of the engines wgpu; there is tract, other",
        );
        only(
            reasons(&|_, has| has.package_memory = Some(16 << 20)),
            "it needs 32.0 MiB of memory, limits.package_memory allows 16.0 MiB",
        );
        only(
            reasons(&|_, has| has.memory_bytes = Some(8 << 20)),
            "it needs 32.0 MiB of memory, the machine has 8.0 MiB, of which the agent takes 12.0 MiB and other packages 0.0 MiB",
        );
        only(
            check(&needs(), &has(), (20 << 20) + 1),
            "it needs 32.0 MiB of memory, the machine has 64.0 MiB, of which the agent takes 12.0 MiB and other packages 20.0 MiB",
        );
        only(
            reasons(&|needs, _| needs.requires.view_language = 2),
            "its feature view card-risk 3 is written in version 2 of the language, this agent reads up to 1",
        );
        let several = reasons(&|needs, has| {
            needs.requires.view_language = 2;
            has.engines.clear();
        });
        assert_eq!(several.len(), 2, "{several:?}");
    }
}
