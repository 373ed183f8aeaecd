//! One process at a time has the file, so there is nobody to look for or to be seen by.

use gotgan_core::ids::Epoch;
use sqlx::sqlite::SqliteConnectOptions;

use crate::{Result, Sight};

#[derive(Default)]
pub(super) struct Sessions {}

impl Sessions {
    #[expect(clippy::unused_async, reason = "as on the other database")]
    pub(super) async fn show(&self, _: &SqliteConnectOptions, _: Epoch) -> Result<()> {
        Ok(())
    }

    #[expect(clippy::unused_async, reason = "as on the other database")]
    pub(super) async fn look(&self, _: &SqliteConnectOptions, _: Epoch) -> Result<Sight> {
        Ok(Sight::Unknown)
    }
}
