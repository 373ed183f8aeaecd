//! A wire between two programs of one machine that can be slow, deaf in one direction, or cut.
//!
//! It carries bytes and knows nothing of what they mean. A direction that is blocked takes nothing more in and delivers
//! what was sent once it is free again, as a network that loses packets does; what was on its way when the wire is cut is
//! lost. Bytes cannot be reordered below TLS: what arrives in another order than it was sent is what goes over
//! connections of their own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes taken at a time; little, so that a delay is felt by every message.
const CHUNK_BYTES: usize = 16 << 10;

/// How a wire is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// Nothing comes from the one who connected.
    pub blocked_up: bool,
    /// Nothing comes from the one who was connected to.
    pub blocked_down: bool,
    /// Added to whatever passes, in either direction.
    pub delay: Duration,
}

impl Condition {
    /// As wires are.
    pub const SOUND: Self = Self { blocked_up: false, blocked_down: false, delay: Duration::ZERO };
    /// Nothing passes.
    pub const BLOCKED: Self = Self { blocked_up: true, blocked_down: true, delay: Duration::ZERO };
    /// What is asked arrives and is done; no answer comes.
    pub const NO_ANSWERS: Self =
        Self { blocked_up: false, blocked_down: true, delay: Duration::ZERO };
    /// Nothing that is said arrives; what was asked before is answered.
    pub const NOT_HEARD: Self =
        Self { blocked_up: true, blocked_down: false, delay: Duration::ZERO };

    /// Slow both ways.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        Self { delay, ..Self::SOUND }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    condition: Condition,
    /// Counted up by every cut; a connection lives as long as this is what it was.
    cuts: u64,
}

/// Listens at an address of its own and connects whoever comes to its target.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Wire {
    /// To a target of the form `host:port`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (state, seen) = watch::channel(State::default());
        tokio::spawn(serve(listener, target.to_owned(), seen));
        Self { address, state }
    }

    /// Where to connect to, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on it is like this, for connections that are there as well.
    pub fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    /// Ends all its connections. New ones can be made.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

/// Until the wire is dropped.
async fn serve(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    let mut gone = state.clone();
    loop {
        tokio::select! {
            changed = gone.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                tokio::spawn(carry(stream, target.clone(), state.clone()));
            }
        }
    }
}

async fn carry(near: TcpStream, target: String, state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let up = copy(near_in, far_out, state.clone(), |condition| condition.blocked_up);
    let down = copy(far_in, near_out, state.clone(), |condition| condition.blocked_down);
    let mut cut = state;
    // Whatever ends first ends the connection: a half of it is of no use to HTTP/2.
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = cut.wait_for(|state| state.cuts != cuts) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_blocked: impl Fn(&Condition) -> bool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let passing = state.wait_for(|state| !is_blocked(&state.condition)).await;
        let delay = passing.map_err(io::Error::other)?.condition.delay;
        tokio::time::sleep(delay).await;
        to.write_all(&chunk[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline;

    /// Sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, word: &[u8]) {
        stream.write_all(word).await.unwrap();
    }

    async fn hear(stream: &mut TcpStream, word: &[u8]) {
        let mut heard = vec![0; word.len()];
        let read = deadline::within("an answer", stream.read_exact(&mut heard)).await;
        assert_eq!((read.unwrap(), heard.as_slice()), (word.len(), word));
    }

    #[tokio::test]
    async fn what_a_blocked_wire_holds_back_comes_when_it_is_sound_again() {
        for condition in [Condition::BLOCKED, Condition::NO_ANSWERS, Condition::NOT_HEARD] {
            let wire = Wire::to(&echo().await).await;
            let mut stream = TcpStream::connect(wire.address()).await.unwrap();
            say(&mut stream, b"one").await;
            hear(&mut stream, b"one").await;
            wire.set(condition);
            say(&mut stream, b"two").await;
            let mut byte = [0];
            let early = tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut byte));
            let early = early.await;
            assert!(early.is_err(), "something came over a wire that is {condition:?}");
            wire.set(Condition::slow(Duration::from_millis(5)));
            hear(&mut stream, b"two").await;
        }
    }

    #[tokio::test]
    async fn a_cut_ends_the_connections_that_are_there_and_no_others() {
        let wire = Wire::to(&echo().await).await;
        let mut before = TcpStream::connect(wire.address()).await.unwrap();
        say(&mut before, b"one").await;
        hear(&mut before, b"one").await;
        wire.cut();
        let ended = deadline::within("its end", before.read(&mut [0; 8])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        let mut after = TcpStream::connect(wire.address()).await.unwrap();
        say(&mut after, b"two").await;
        hear(&mut after, b"two").await;
    }
}
