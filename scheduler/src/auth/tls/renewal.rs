//! Certificates that are renewed while the server runs: what lies there is looked at again and again, and whoever comes next
//! is met with it. Connections that are there go on.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{ServerIdentity, TlsError};
use crate::clock;

/// Between two looks at the files. They are small, and a certificate that is renewed too late is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Sees to it that handshakes are done with the certificate that lies there.
pub struct Renewal {
    acceptor: watch::Sender<TlsAcceptor>,
    /// The certificate that is shown, in PEM.
    shown: String,
    /// What was wrong at the last look; empty: nothing. It is told once.
    failure: String,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").finish_non_exhaustive()
    }
}

impl Renewal {
    /// Begins with this identity; what handshakes are done with comes beside.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] as [`ServerIdentity::acceptor`].
    pub fn begin(
        identity: &ServerIdentity,
    ) -> Result<(Self, watch::Receiver<TlsAcceptor>), TlsError> {
        let (acceptor, current) = watch::channel(identity.acceptor()?);
        let shown = identity.certificate_pem.clone();
        Ok((Self { acceptor, shown, failure: String::new() }, current))
    }

    /// Handshakes are done with this identity from now on, if its certificate is another one; whether it is.
    ///
    /// # Errors
    /// [`TlsError::Unusable`] as [`ServerIdentity::acceptor`]; then the one before stays.
    pub fn take(&mut self, identity: &ServerIdentity) -> Result<bool, TlsError> {
        if identity.certificate_pem == self.shown {
            return Ok(false);
        }
        self.acceptor.send_replace(identity.acceptor()?);
        self.shown.clone_from(&identity.certificate_pem);
        Ok(true)
    }

    /// Looks for ever. An identity that cannot be used leaves the one before in use.
    pub async fn keep<E>(
        mut self,
        find: impl Fn() -> Result<ServerIdentity, E> + Send + Sync + 'static,
    ) where
        E: Display + Send + 'static,
    {
        let find = Arc::new(find);
        loop {
            clock::sleep(LOOK_EVERY).await;
            let find = Arc::clone(&find);
            // A disk may take its time.
            let Ok(found) = tokio::task::spawn_blocking(move || find()).await else { continue };
            let taken = found.map_err(|error| format!("{error:#}"));
            let taken = taken.and_then(|it| self.take(&it).map_err(|error| error.to_string()));
            self.tell(taken);
        }
    }

    fn tell(&mut self, taken: Result<bool, String>) {
        let failure = taken.as_ref().err().cloned().unwrap_or_default();
        if taken == Ok(true) {
            tracing::info!("new connections are met with a renewed certificate");
        } else if !failure.is_empty() && failure != self.failure {
            tracing::warn!(failure, "the certificate that lies there cannot be used");
        }
        self.failure = failure;
    }
}
