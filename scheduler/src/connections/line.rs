//! A connection whose handshake, if it needs one, is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// One to a client or a worker.
#[derive(Debug)]
pub enum Line {
    /// Without encryption.
    Plain(TcpStream),
    /// With it.
    Secured(Box<TlsStream<TcpStream>>),
}

/// What the other end of a [`Line`] has shown; with every request that comes on it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Its own certificate first, if it has shown any.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

impl Connected for Line {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        match self {
            Line::Plain(_) => Shown::default(),
            Line::Secured(stream) => {
                let shown = stream.get_ref().1.peer_certificates();
                Shown { certificates: shown.map(Arc::from) }
            }
        }
    }
}

/// Does the same on either kind.
macro_rules! on_either {
    ($line:expr, $stream:ident => $call:expr) => {
        match $line.get_mut() {
            Line::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Line::Secured(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, stream => stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Line::Plain(stream) => stream.is_write_vectored(),
            Line::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => stream.poll_shutdown(context))
    }
}
