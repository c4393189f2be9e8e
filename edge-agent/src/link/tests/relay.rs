//! A network in between that can be told what to let through.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A firewall for UDP: what comes to its port goes to the hub's, as long as it is open.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) async fn to(hub: SocketAddr) -> Self {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (address, open) = (outside.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let passes = open.clone();
        let task = tokio::spawn(async move {
            let mut known: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = outside.recv_from(&mut buffer).await {
                if !passes.load(Ordering::Relaxed) {
                    continue;
                }
                let inside = match known.get(&client) {
                    Some(inside) => inside.clone(),
                    None => {
                        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                        inside.connect(hub).await.unwrap();
                        tokio::spawn(back(inside.clone(), outside.clone(), client, passes.clone()));
                        known.insert(client, inside.clone());
                        inside
                    }
                };
                let _ = inside.send(&buffer[..length]).await;
            }
        });
        Self { address, open, task }
    }

    pub(super) fn lets_through(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

async fn back(inside: Arc<UdpSocket>, outside: Arc<UdpSocket>, client: SocketAddr, passes: Arc<AtomicBool>) {
    let mut buffer = [0; 2048];
    while let Ok(length) = inside.recv(&mut buffer).await {
        if passes.load(Ordering::Relaxed) {
            let _ = outside.send_to(&buffer[..length], client).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
