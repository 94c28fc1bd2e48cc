//! Load that goes on while the test does something.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::client::Connection;
use super::fleet::Fleet;
use super::{SOON, eventually};

/// Clients that send one request after the other until they are stopped.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<u16>>>,
}

impl Load {
    pub(crate) fn start(fleet: &Fleet, clients: usize) -> Self {
        let gateway = fleet.gateway.address();
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut connection = Connection::open(gateway).await;
                let mut statuses = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = connection.get().await;
                    statuses.push(answer.status.as_u16());
                    // A listener that is replaced lets its clients go.
                    if answer.header("connection") == "close" {
                        connection = Connection::open(gateway).await;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                statuses
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            is_over,
            answered,
            clients,
        }
    }

    /// Waits for so many answers more.
    pub(crate) async fn goes_on(&self, count: usize) {
        let answered: &AtomicUsize = &self.answered;
        let before = answered.load(Ordering::Relaxed);
        eventually("requests to be answered", SOON, async || {
            let now = answered.load(Ordering::Relaxed);
            (now >= before + count)
                .then_some(())
                .ok_or(format!("{now}"))
        })
        .await;
    }

    /// The statuses of all answers; every request got one.
    pub(crate) async fn stop(self) -> Vec<u16> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut statuses = Vec::new();
        for client in self.clients {
            statuses.extend(client.await.unwrap());
        }
        statuses
    }
}
