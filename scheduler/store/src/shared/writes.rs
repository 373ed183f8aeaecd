//! What is written, each as one [`WriteOp`]. Compiled once a database (see the crate's documentation): `super` is
//! the database's module with its connection type and its statements.

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::Epoch;

use super::{Connection, Db, sql};
use crate::decode;
use crate::sheets::Sheet;
use crate::write_op::{WriteOp, refused};
use crate::{Claim, Leadership, Result, StoreError};

pub(super) struct TakeLeadership<'a> {
    pub holder: &'a str,
    pub address: &'a str,
    pub claim: Claim,
}

impl WriteOp<Connection> for TakeLeadership<'_> {
    type Answer = Leadership;
    const DOING: &'static str = "take the leadership";

    async fn run(&self, connection: &mut Connection) -> Result<Leadership> {
        let Claim { over, unless_renewed, until } = self.claim;
        // No leadership has the epoch 0.
        let (epoch, expires) = unless_renewed.unwrap_or_default();
        let taken: Option<decode::LeadershipRow> = sqlx::query_as::<Db, _>(sql::TAKE_LEADERSHIP)
            .bind(self.holder)
            .bind(self.address)
            .bind(until.0)
            .bind(over.0)
            .bind(signed(epoch.0))
            .bind(expires.0)
            .fetch_optional(&mut *connection)
            .await
            .map_err(refused(Self::DOING))?;
        if let Some(row) = taken {
            return decode::leadership(row);
        }
        let current: decode::LeadershipRow = sqlx::query_as::<Db, _>(sql::LEADERSHIP)
            .fetch_one(connection)
            .await
            .map_err(refused(Self::DOING))?;
        Err(StoreError::LedByAnother(decode::leadership(current)?))
    }
}

pub(super) struct RenewLeadership {
    pub epoch: Epoch,
    pub expires: UnixMicros,
}

impl WriteOp<Connection> for RenewLeadership {
    type Answer = ();
    const DOING: &'static str = "renew the leadership";

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        check_epoch(connection, self.epoch).await?;
        sqlx::query::<Db>(sql::RENEW_LEADERSHIP)
            .bind(self.expires.0)
            .bind(signed(self.epoch.0))
            .execute(connection)
            .await
            .map_err(refused(Self::DOING))?;
        Ok(())
    }
}

pub(super) struct Resign {
    pub epoch: Epoch,
    pub now: UnixMicros,
}

impl WriteOp<Connection> for Resign {
    type Answer = ();
    const DOING: &'static str = "give up the leadership";

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        sqlx::query::<Db>(sql::RESIGN)
            .bind(self.now.0)
            .bind(signed(self.epoch.0))
            .execute(connection)
            .await
            .map_err(refused(Self::DOING))?;
        Ok(())
    }
}

/// Takes the lock that every write holds until it ends.
pub(super) struct Settle;

impl WriteOp<Connection> for Settle {
    type Answer = ();
    const DOING: &'static str = "wait for earlier writes";

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        sqlx::query::<Db>(sql::SETTLE).execute(connection).await.map_err(refused(Self::DOING))?;
        Ok(())
    }
}

/// In words for an error.
pub(super) const COMMIT: &str = "commit a round";

pub(super) struct Commit {
    pub epoch: Epoch,
    pub sheets: Vec<Sheet>,
}

impl WriteOp<Connection> for Commit {
    type Answer = ();
    const DOING: &'static str = COMMIT;
    const BEGINS: bool = true;

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        super::commit(connection, self.epoch, &self.sheets).await
    }
}

/// Refuses a leader that was overtaken, or never was.
pub(super) async fn check_epoch(connection: &mut Connection, mine: Epoch) -> Result<()> {
    let stored: Option<i64> = sqlx::query_scalar::<Db, _>(sql::EPOCH)
        .fetch_optional(connection)
        .await
        .map_err(refused("check the leadership"))?;
    compare_epoch(stored, mine)
}

/// Refuses `mine` if it is not the epoch that is stored.
fn compare_epoch(stored: Option<i64>, mine: Epoch) -> Result<()> {
    let newer = Epoch(decode::unsigned("leadership", stored.unwrap_or(0))?);
    if newer == mine { Ok(()) } else { Err(StoreError::Fenced { mine, newer }) }
}

pub(super) struct InsertSetting<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

impl WriteOp<Connection> for InsertSetting<'_> {
    type Answer = String;
    const DOING: &'static str = "keep a setting";

    async fn run(&self, connection: &mut Connection) -> Result<String> {
        sqlx::query::<Db>(sql::INSERT_SETTING)
            .bind(self.name)
            .bind(self.value)
            .execute(&mut *connection)
            .await
            .map_err(refused(Self::DOING))?;
        sqlx::query_scalar::<Db, _>(sql::SETTING)
            .bind(self.name)
            .fetch_one(connection)
            .await
            .map_err(refused(Self::DOING))
    }
}

pub(super) struct KeepSetting<'a> {
    pub epoch: Epoch,
    pub name: &'a str,
    pub value: &'a str,
}

impl WriteOp<Connection> for KeepSetting<'_> {
    type Answer = ();
    const DOING: &'static str = "keep a setting";

    async fn run(&self, connection: &mut Connection) -> Result<()> {
        check_epoch(connection, self.epoch).await?;
        sqlx::query::<Db>(sql::KEEP_SETTING)
            .bind(self.name)
            .bind(self.value)
            .execute(connection)
            .await
            .map_err(refused(Self::DOING))?;
        Ok(())
    }
}

/// For comparisons with what is stored, which never exceeds `i64`.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
