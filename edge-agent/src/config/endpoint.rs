//! Where the local API of these settings is.

use tributary_process::http::Endpoint;

use super::Config;

impl Config {
    /// Where whoever has the same settings calls the running agent.
    pub fn endpoint(&self) -> Endpoint {
        match (&self.listen.unix, self.listen.tcp) {
            (Some(path), _) => Endpoint::Unix(self.state_dir.join(path)),
            (None, Some(address)) => Endpoint::Tcp(address.to_string()),
            // `check` refuses neither.
            (None, None) => Endpoint::Unix(self.state_dir.join("agent.sock")),
        }
    }
}
