//! The wallet over HTTP: the adapter for a service that speaks [`contract`](super::contract).
//!
//! One method is one exchange, sent once. A result is used only if the reply as a whole agrees with what was
//! asked (as many results, the same ids, the same order); whatever cannot be read so is a
//! [`CallError`](super::remote::CallError), and the entries stay unknown. Nothing is ever guessed.
//!
//! Deliberately absent: retries, redirects, proxies from the environment, compression, HTTP/2. How many calls run
//! at once is decided by the caller; only the idle connections kept for them are bounded here.
//!
//! | file | |
//! |---|---|
//! | `setup` | the settings, checked, become a client |
//! | `body` | batches and ids become request bodies |
//! | `exchange` | one request and its reply, within a deadline and a bound on bytes |
//! | `answers` | the body of a 200 becomes answers |
//! | `refusal` | every other status code becomes a `CallError` |
//! | `trace` | the W3C trace context of a call |

mod answers;
mod body;
mod exchange;
mod refusal;
mod setup;
#[cfg(test)]
mod tests;
mod trace;

use std::sync::Arc;
use std::time::Duration;

pub use setup::{HttpOptions, HttpSetupError};

use self::exchange::{Call, Endpoint};
use super::TransferBatch;
use super::contract::Ids;
use super::remote::{Answer, CallError, OnRecord, RemoteWallet, Reply};
use crate::domain::TransferKind;

/// How long the wallet may take to say who it is; asked at start, and never while somebody waits for money.
const IDENTITY_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct HttpWallet {
    endpoint: Arc<Endpoint>,
}

impl HttpWallet {
    /// Connects to nothing yet: the first call does.
    pub fn new(options: &HttpOptions) -> Result<HttpWallet, HttpSetupError> {
        Ok(HttpWallet { endpoint: Arc::new(setup::endpoint(options)?) })
    }
}

impl std::fmt::Debug for HttpWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpWallet").field("base", &self.endpoint.base).finish_non_exhaustive()
    }
}

impl RemoteWallet for HttpWallet {
    fn identity(&self) -> Reply<String> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let reply = endpoint.call(Call::Identity, Vec::new(), 1, IDENTITY_DEADLINE).await?;
            answers::identity(&reply)
        })
    }

    fn transfer(&self, batch: Arc<TransferBatch>, deadline: Duration) -> Reply<Vec<Answer>> {
        assert!(
            batch.iter().all(|transfer| transfer.kind != TransferKind::Burn),
            "a burn is a call of its own"
        );
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            let body =
                body::transfers(&batch, exchange::deadline_told(deadline)).map_err(CallError::Unknown)?;
            let reply = endpoint.call(Call::Transfer, body, batch.len(), deadline).await?;
            answers::transferred(&reply, &batch)
        })
    }

    fn burn(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Answer>> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let ids = Ids { ids };
            let reply = endpoint.call(Call::Burn, body::ids(&ids), ids.ids.len(), deadline).await?;
            answers::burned(&reply, &ids.ids)
        })
    }

    fn lookup(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Option<OnRecord>>> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let ids = Ids { ids };
            let reply = endpoint.call(Call::Lookup, body::ids(&ids), ids.ids.len(), deadline).await?;
            answers::on_record(&reply, &ids.ids)
        })
    }
}
