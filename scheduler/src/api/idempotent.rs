//! Requests that change something: done once for each key, answered alike each time.

use gotgan_core::digest::Digest;
use gotgan_core::ids::{IdempotencyKey, UserName};
use gotgan_store::AnsweredRequest;
use prost::Message;
use tonic::Status;

use super::{Services, error};
use crate::auth::{Principal, hex};
use crate::clock;
use crate::flow::round::RoundDraft;

/// A request's key, with a digest of its body.
#[derive(Debug, Clone)]
pub struct Keyed {
    /// Who asks.
    pub owner: UserName,
    /// Under which key.
    pub key: IdempotencyKey,
    /// Of the kind of request and its body.
    pub digest: Digest,
}

/// Checks the key of a request whose body is `message`.
///
/// # Errors
/// INVALID_ARGUMENT for a key that breaks its rule; `prefix` is the path before the field.
pub fn keyed(
    principal: &Principal,
    key: &str,
    kind: &str,
    message: &impl Message,
    prefix: &str,
) -> Result<Keyed, Status> {
    let field = format!("{prefix}idempotency_key");
    let key = IdempotencyKey::new(key).map_err(|bad| error::bad_name(&field, &bad))?;
    if key.is_of_task() {
        let message = "begins like the keys of an array's tasks; choose another";
        return Err(error::invalid(&field, "NOT_ALLOWED", message));
    }
    let digest = Digest::of(&[kind.as_bytes(), &[0], &message.encode_to_vec()]);
    Ok(Keyed { owner: principal.subject.clone(), key, digest })
}

/// Does `change` once for the key: a repetition gets the first answer again.
///
/// # Errors
/// What `change` refuses with (nothing is remembered then), ALREADY_EXISTS for another body under the same key.
pub async fn once<T: Message + Default + Clone + 'static>(
    services: &Services,
    keyed: Keyed,
    change: impl FnOnce(&mut RoundDraft<'_>) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    once_hiding(services, keyed, T::clone, change).await
}

/// Like [`once`], but what is remembered of the answer passes through `stored` first, so that a secret in the
/// answer is not kept.
pub async fn once_hiding<T: Message + Default + Clone + 'static>(
    services: &Services,
    keyed: Keyed,
    stored: impl FnOnce(&T) -> T + Send + 'static,
    change: impl FnOnce(&mut RoundDraft<'_>) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let found = services.store.answered(&keyed.owner, &keyed.key).await;
    if let Some(answer) = found.map_err(|e| error::store(&e))? {
        return again(&keyed, &answer);
    }
    let written = services.writer.write(move |round| {
        if let Some(answer) = round.recent.answer(&keyed.owner, &keyed.key) {
            return again(&keyed, answer);
        }
        let value = change(round)?;
        let answer = hex::encode(&stored(&value).encode_to_vec());
        let Keyed { owner, key, digest } = keyed;
        round.remember(AnsweredRequest { owner, key, digest, answer, at: clock::now() });
        Ok(value)
    });
    written.await.map_err(|e| error::flow(&e))?
}

fn again<T: Message + Default>(keyed: &Keyed, answer: &AnsweredRequest) -> Result<T, Status> {
    if answer.digest != keyed.digest {
        let message = "this key was used before for another request; choose a new one".to_owned();
        return Err(error::key_reused("idempotency_key", message));
    }
    let bytes = hex::decode(&answer.answer);
    let decoded = bytes.and_then(|bytes| T::decode(bytes.as_slice()).ok());
    decoded.ok_or_else(|| Status::internal("the answer remembered for this key cannot be read"))
}
