//! A device as far as keys go: the chain that edge-agent uses, from the root that it was given at its enrolment.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tributary_process::http::Client;
use tributary_release::chain::{Chain, ChainError, ChainLimits, Fetched, MetadataFiles, Source};
use tributary_release::{ASSIGNMENT_KEYS, VerifyingKeys};

use crate::support::TestHub;

struct Hub(Client);

impl Hub {
    fn get(&self, path: String) -> Fetched<'_> {
        Box::pin(async move {
            let path = format!("/api/v1/repository/{path}");
            let answer = self.0.send(Method::GET, &path, "", Bytes::new()).await?;
            match answer.status {
                StatusCode::OK => Ok(Some(answer.body.to_vec())),
                StatusCode::NOT_FOUND => Ok(None),
                status => Err(format!("{path}: {status}").into()),
            }
        })
    }
}

impl Source for Hub {
    fn metadata<'a>(&'a self, name: &'a str, _: u64) -> Fetched<'a> {
        self.get(format!("metadata/{}", name.replace('/', "%2F")))
    }

    fn target<'a>(&'a self, path: &'a str, _: u64) -> Fetched<'a> {
        self.get(format!("targets/{path}"))
    }
}

#[derive(Default)]
struct Files(Mutex<BTreeMap<String, Vec<u8>>>);

impl MetadataFiles for Files {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn store(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        self.0.lock().unwrap().extend(files.iter().cloned());
        Ok(())
    }
}

pub struct Device {
    chain: Chain,
}

impl Device {
    /// Believes the first root of the hub, and from then on only what follows from it.
    pub async fn enrolled(hub: &TestHub) -> Self {
        let root = hub.send(Method::GET, "/repository/metadata/1.root.json", "", "").await;
        let source = Arc::new(Hub(hub.client()));
        let chain = Chain::open(&root.body, source, Arc::<Files>::default(), ChainLimits::default());
        Self { chain: chain.unwrap() }
    }

    /// Refreshes; the keys of assignments that it then believes are those that the hub signs with.
    pub async fn believes(&mut self, hub: &TestHub) {
        let now = hub.hub.now();
        self.chain.refresh(now).await.unwrap();
        let keys = self.chain.small_target(ASSIGNMENT_KEYS, None, now).await.unwrap();
        let keys = VerifyingKeys::from_json(std::str::from_utf8(&keys).unwrap(), "keys".as_ref()).unwrap();
        assert_eq!(keys.ids(), [hub.hub.keys.assignment().id()]);
    }

    /// Whether it could install this.
    pub async fn lists(&mut self, hub: &TestHub, path: &str) -> bool {
        match self.chain.target(path, hub.hub.now()).await {
            Ok(_) => true,
            Err(ChainError::NotListed { .. }) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }
}
