//! Tickets by which those who come back need half a handshake, also from a scheduler that was started again in between.
//!
//! A ticket says who its holder proved to be, sealed with a key that follows from the server's own and from the CA: there is none
//! more to keep, and none outlives what it was given by. Whether the certificate it tells of still counts is looked at with
//! every call. Keys of connections are agreed anew each time, so an old ticket opens nothing that was said.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

use crate::clock;

/// How long one counts, seconds: the longest that TLS 1.3 allows (RFC 8446, section 4.6.1).
const LIFETIME_S: u32 = 7 * 24 * 3_600;
/// Length of the moment at which a ticket was made, in microseconds since 1970.
const MADE_LEN: usize = 8;

/// Makes and reads tickets.
pub(super) struct Tickets {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Tickets {
    /// Those of a server with this key that believes this CA; `None` if the library cannot derive a key.
    pub(super) fn of(server_key: &[u8], ca: &[u8]) -> Option<Self> {
        let secret = Salt::new(HKDF_SHA256, b"gotgan tickets").extract(server_key);
        let info = [ca];
        let derived = secret.expand(&info, &AES_256_GCM).ok()?;
        let key = LessSafeKey::new(UnboundKey::from(derived));
        Some(Self { key, random: SystemRandom::new() })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, clock::now().0)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, clock::now().0)
    }
}

impl Tickets {
    /// The moment, the nonce, and what was sealed under both.
    fn seal(&self, plain: &[u8], now_us: i64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let (made, mut sealed) = (now_us.to_be_bytes(), plain.to_vec());
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, Aad::from(made), &mut sealed).ok()?;
        Some([&made[..], &nonce[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now_us: i64) -> Option<Vec<u8>> {
        let (made, rest) = ticket.split_first_chunk::<MADE_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let age_us = now_us.checked_sub(i64::from_be_bytes(*made))?;
        if age_us > i64::from(LIFETIME_S) * 1_000_000 {
            return None;
        }
        let mut opened = sealed.to_vec();
        let unique = Nonce::assume_unique_for_key(*nonce);
        let length = self.key.open_in_place(unique, Aad::from(*made), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_by_the_same_server_with_the_same_ca_alone_for_a_week() {
        let of = |key: &str, ca: &str| Tickets::of(key.as_bytes(), ca.as_bytes()).unwrap();
        let ticket = of("key", "ca").seal(b"who", 0).unwrap();
        let week_us = i64::from(LIFETIME_S) * 1_000_000;
        assert_eq!(of("key", "ca").open(&ticket, week_us).as_deref(), Some(&b"who"[..]));
        assert_eq!(of("key", "ca").open(&ticket, week_us + 1), None);
        assert_eq!(of("other", "ca").open(&ticket, 0), None);
        assert_eq!(of("key", "other").open(&ticket, 0), None);
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_none() {
        let tickets = Tickets::of(b"key", b"ca").unwrap();
        let ticket = tickets.seal(b"who", 0).unwrap();
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.open(&changed, 0), None, "byte {place}");
            assert_eq!(tickets.open(&ticket[..place], 0), None, "{place} bytes");
        }
    }
}
