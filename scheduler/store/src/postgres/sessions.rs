//! Whether the leader's process is still there, by its session with the server: when a process ends, however it ends, the
//! server closes its sessions at once, long before its lease runs out.
//!
//! The leader keeps one session under a name that says its epoch; who stands by looks for that name. That the name is missing
//! means something only to one who saw it by the same session of its own: a server that starts again, or another that
//! takes over, ends the sessions of all.

use gotgan_core::ids::Epoch;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::Mutex;

use crate::{Result, Sight, StoreError};

/// Sessions of the same database and account alone: names of others are hidden.
const IS_THERE: &str = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name = $1)";

/// The session of this process that others see, or by which it sees others.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Option<Session>>);

struct Session {
    connection: PgConnection,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader(Epoch),
    /// Which leader it has seen.
    Standby(Option<Epoch>),
}

impl Sessions {
    /// Sees to it that a session names this process as the leader of that epoch.
    pub(super) async fn show(&self, options: &PgConnectOptions, epoch: Epoch) -> Result<()> {
        let mut place = self.0.lock().await;
        if let Some(session) = place.as_mut().filter(|one| one.role == Role::Leader(epoch))
            && session.connection.ping().await.is_ok()
        {
            return Ok(());
        }
        *place = None;
        let connection = connect(options, &leader_name(epoch)).await?;
        *place = Some(Session { connection, role: Role::Leader(epoch) });
        Ok(())
    }

    /// Looks for the leader of an epoch.
    pub(super) async fn look(&self, options: &PgConnectOptions, epoch: Epoch) -> Result<Sight> {
        let mut place = self.0.lock().await;
        // Out of its place while in use: after a failure, or given up half way, what was seen by it counts no more.
        let (mut connection, seen) = match place.take() {
            Some(Session { connection, role: Role::Standby(seen) }) => (connection, seen),
            _ => (connect(options, "gotgan-standby").await?, None),
        };
        let failed = |source| StoreError::Database { doing: "look for the leader", source };
        let is_there: bool = sqlx::query_scalar(IS_THERE)
            .bind(leader_name(epoch))
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
        let seen_before = seen == Some(epoch);
        let seen = if is_there { Some(epoch) } else { seen };
        *place = Some(Session { connection, role: Role::Standby(seen) });
        Ok(match (is_there, seen_before) {
            (true, _) => Sight::There,
            (false, true) => Sight::Gone,
            (false, false) => Sight::Unknown,
        })
    }
}

async fn connect(options: &PgConnectOptions, name: &str) -> Result<PgConnection> {
    let failed = |source| StoreError::Database { doing: "open a session", source };
    PgConnection::connect_with(&options.clone().application_name(name)).await.map_err(failed)
}

fn leader_name(epoch: Epoch) -> String {
    format!("gotgan-leader-{epoch}")
}
