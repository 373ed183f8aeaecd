//! Takes connections in, and does the handshakes of a few of them at a time, first come, first served: where a country full of
//! nodes comes at once, half of them are through in half the time, and not all of them at its end. As long as the door is
//! closed none is done: they would only delay what keeps it from being opened.
//!
//! Who is silent holds nobody up: it has its turn once it has said something, and is passed over if it then takes its time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::line::Line;

/// Connections the kernel keeps until they are taken in; it may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 65_535;
/// Connections that are taken in and not through yet. Others wait in the kernel.
const WAITING_MAX: usize = 16_384;
/// Handshakes at a time: more than there are processors, since each waits for its client once.
const HANDSHAKES: usize = 32;
/// How long one has its turn. Whoever is not through by then goes on without one.
const TURN: Duration = Duration::from_millis(250);
/// How long it may take to begin, and to go on after its turn, until it is dropped: it may be garbage.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of the listening socket, as when there are no file descriptors left.
const REST: Duration = Duration::from_millis(50);
/// Lines that are ready and wait for the server to take them.
const READY: usize = 64;

/// A listening socket with as long a queue as the kernel allows, so that nobody has to try twice.
///
/// # Errors
/// What the system says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Decides how many come in at a time: none at first.
#[derive(Debug, Clone)]
pub struct Door {
    turns: Arc<Semaphore>,
    opened: Arc<Once>,
}

impl Default for Door {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(0)), opened: Arc::new(Once::new()) }
    }
}

impl Door {
    /// Opens it, for good.
    pub fn open(&self) {
        self.opened.call_once(|| self.turns.add_permits(HANDSHAKES));
    }
}

/// The connections that come to a socket. It is closed when this is dropped.
pub fn lines(
    listener: TcpListener,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    door: Door,
) -> impl Stream<Item = io::Result<Line>> + Send + 'static {
    let (ready, lines) = mpsc::channel(READY);
    tokio::spawn(accept(listener, Usher { tls, door, ready }));
    ReceiverStream::new(lines).map(Ok)
}

/// Brings one connection in.
#[derive(Clone)]
struct Usher {
    /// By what handshakes are done at the moment.
    tls: Option<watch::Receiver<TlsAcceptor>>,
    door: Door,
    ready: mpsc::Sender<Line>,
}

/// Until nobody takes lines any more.
async fn accept(listener: TcpListener, usher: Usher) {
    let places = Arc::new(Semaphore::new(WAITING_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let accepted = tokio::select! {
            biased;
            () = usher.ready.closed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => drop(tokio::spawn(usher.clone().bring_in(socket, place))),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(REST).await;
            }
        }
    }
}

impl Usher {
    /// Ends early if nobody takes lines any more.
    async fn bring_in(self, socket: TcpStream, _place: OwnedSemaphorePermit) {
        // Messages are small, and somebody waits for each.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended at once");
            return;
        }
        tokio::select! {
            () = self.ready.closed() => {}
            greeted = self.greet(socket) => match greeted {
                Ok(line) => drop(self.ready.send(line).await),
                Err(error) => tracing::debug!(%error, "a handshake failed"),
            },
        }
    }

    async fn greet(&self, socket: TcpStream) -> io::Result<Line> {
        let turn = async || self.door.turns.acquire().await.map_err(io::Error::other);
        let Some(tls) = &self.tls else {
            drop(turn().await?);
            return Ok(Line::Plain(socket));
        };
        timeout(PATIENCE, socket.readable()).await??;
        let turn = turn().await?;
        let tls = tls.borrow().clone();
        let mut handshake = pin!(tls.accept(socket));
        let in_turn = timeout(TURN, &mut handshake).await;
        drop(turn);
        let stream = match in_turn {
            Ok(done) => done?,
            Err(_) => timeout(PATIENCE, handshake).await??,
        };
        Ok(Line::Secured(Box::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn all_who_came_at_once_are_let_in_when_the_door_is_opened() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let names = 0..READY as u8 * 2;
        let mut clients = Vec::new();
        for name in names.clone() {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&[name]).await.unwrap();
            clients.push(client);
        }
        let door = Door::default();
        let mut lines = pin!(lines(listener, None, door.clone()));
        assert!(lines.next().now_or_never().is_none(), "the door is closed");
        door.open();
        let mut let_in = Vec::new();
        for _ in &clients {
            let mut line = lines.next().await.unwrap().unwrap();
            let_in.push(line.read_u8().await.unwrap());
        }
        let_in.sort_unstable();
        assert_eq!(let_in, names.collect::<Vec<_>>());
    }

    #[test]
    fn a_door_is_opened_once() {
        let door = Door::default();
        assert_eq!(door.turns.available_permits(), 0);
        door.open();
        door.open();
        assert_eq!(door.turns.available_permits(), HANDSHAKES);
    }
}
