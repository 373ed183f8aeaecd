//! Tokens, join tokens, answers and settings.

use std::sync::Arc;

use gotgan_core::ids::{Epoch, IdempotencyKey};
use gotgan_core::job::Digest;
use gotgan_store::{AnsweredRequest, JoinTokenRecord, Round, StoreError, TokenRecord};

use crate::harness::Place;
use crate::things::{Leader, at, node_name, path, user};

fn token(id: &str) -> TokenRecord {
    TokenRecord {
        id: id.to_owned(),
        secret_sha256: "ab".repeat(32),
        subject: user("minji"),
        role: "member".to_owned(),
        projects: vec![path("public/nup/a"), path("private")],
        created: at(1),
        expires: Some(at(100)),
        revoked: None,
    }
}

pub async fn tokens_are_made_changed_and_read_back(place: Arc<Place>) {
    let leader = Leader::at(&place).await;
    let store = &leader.store;
    let (first, mut second) = (token("t1"), token("t2"));
    second.expires = None;
    second.projects = Vec::new();
    let round = Round { tokens: vec![first.clone(), second.clone()], ..Round::default() };
    store.commit(leader.epoch, at(2), &round).await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), [first.clone(), second.clone()]);
    second.revoked = Some(at(3));
    let round = Round { tokens: vec![token("t2"), second.clone()], ..Round::default() };
    store.commit(leader.epoch, at(3), &round).await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), [first, second]);
}

pub async fn a_join_token_is_used_once(place: Arc<Place>) {
    let leader = Leader::at(&place).await;
    let store = &leader.store;
    let free = JoinTokenRecord {
        secret_sha256: "cd".repeat(32),
        node: Some(node_name("n1")),
        expires: at(50),
        used: None,
    };
    let used = |seconds, node| JoinTokenRecord {
        used: Some((at(seconds), node_name(node))),
        ..free.clone()
    };
    let commit = |token: JoinTokenRecord| {
        let round = Round { join_tokens: vec![token], ..Round::default() };
        async move { store.commit(leader.epoch, at(2), &round).await }
    };
    commit(free.clone()).await.unwrap();
    let other = JoinTokenRecord { secret_sha256: "ef".repeat(32), ..free.clone() };
    commit(other.clone()).await.unwrap();
    let stored = async |token: &JoinTokenRecord| store.join_token(&token.secret_sha256).await;
    assert_eq!(stored(&free).await.unwrap().as_ref(), Some(&free));
    assert_eq!(store.join_token("nobody's").await.unwrap(), None);
    commit(used(3, "n1")).await.unwrap();
    commit(used(3, "n1")).await.unwrap();
    assert!(matches!(commit(used(4, "n2")).await, Err(StoreError::Conflict(_))));
    assert!(matches!(commit(free.clone()).await, Err(StoreError::Conflict(_))));
    assert_eq!(stored(&free).await.unwrap(), Some(used(3, "n1")));
    assert_eq!(stored(&other).await.unwrap(), Some(other));
}

pub async fn an_answer_is_remembered_under_its_key(place: Arc<Place>) {
    let leader = Leader::at(&place).await;
    let store = &leader.store;
    let key = IdempotencyKey::new("k").unwrap();
    let answered = AnsweredRequest {
        owner: user("minji"),
        key: key.clone(),
        digest: Digest("00".into()),
        answer: "{\"a\": \"\\u0000'\"}".to_owned(),
        at: at(4),
    };
    let round = Round { answered: vec![answered.clone()], ..Round::default() };
    store.commit(leader.epoch, at(2), &round).await.unwrap();
    assert_eq!(store.answered(&user("minji"), &key).await.unwrap(), Some(answered));
    assert_eq!(store.answered(&user("jun"), &key).await.unwrap(), None);
    let again = store.commit(leader.epoch, at(2), &round).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))));
}

pub async fn the_first_value_of_a_setting_stays(place: Arc<Place>) {
    let (one, two) = (place.open().await, place.open().await);
    assert_eq!(one.setting_or_insert("ca", "first").await.unwrap(), "first");
    assert_eq!(two.setting_or_insert("ca", "second").await.unwrap(), "first");
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = Arc::clone(if number % 2 == 0 { &one } else { &two });
        tries.spawn(
            async move { store.setting_or_insert("key", &number.to_string()).await.unwrap() },
        );
    }
    let values = tries.join_all().await;
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
}

pub async fn a_setting_that_is_kept_replaces_the_one_before_and_is_there_after_a_restart(
    place: Arc<Place>,
) {
    let leader = Leader::at(&place).await;
    assert_eq!(leader.store.setting("estimates").await.unwrap(), None);
    for value in ["first", "second"] {
        leader.store.keep_setting(leader.epoch, "estimates", value).await.unwrap();
    }
    let again = place.open().await;
    assert_eq!(again.setting("estimates").await.unwrap().as_deref(), Some("second"));
    let overtaken = Epoch(leader.epoch.0 + 1);
    let refused = leader.store.keep_setting(overtaken, "estimates", "third").await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })));
}
