//! Namespaces of one's own for a test: user, network and mounts. They need no root: the test starts itself in there.

use std::process::Command;

use crate::tools;

/// Set for the run inside.
const INSIDE: &str = "TRIBUTARY_INSIDE_NAMESPACE";

/// Runs the test of this thread again in namespaces of its own, with these programs at hand, and says whether this *is*
/// that run. What fails in there fails here; a kernel that gives none is told loudly, and in CI a failure.
pub fn is_inside(test: &str, programs: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        must(test, "ip", &["link", "set", "lo", "up"]);
        return true;
    }
    if ["unshare", "ip"].iter().chain(programs).any(|name| tools::program(test, name).is_none()) {
        return false;
    }
    // A user of its own, so that it is root there; with its network and its mounts.
    let inside = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-Urnm", program]).args(arguments).env(INSIDE, "1");
        command.output().unwrap()
    };
    let tried = inside("sh", &["-c", "mount -t tmpfs none /mnt && PATH=$PATH:/usr/sbin:/sbin ip link set lo up"]);
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        tools::lacks(test, &format!("this kernel gives no namespaces: {why}"));
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let done = inside(own.to_str().unwrap(), &[&name, "--exact", "--nocapture"]);
    let (told, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && told.contains("1 passed"), "{told}{errors}");
    false
}

/// Runs a story to its end.
pub fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(story);
}

/// Runs a program of the system that must succeed.
pub fn must(test: &str, program: &str, arguments: &[&str]) {
    let path = tools::program(test, program).unwrap();
    let done = Command::new(path).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
