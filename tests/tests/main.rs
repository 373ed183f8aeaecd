//! Whole clusters under test: real daemons on both databases, through the API and the command line alone.
//!
//! Each module is one matter; a scenario that touches the store runs on SQLite, and on PostgreSQL where
//! `GOTGAN_TEST_POSTGRES` names a server (`cargo xtask test` starts one). The programs must have been built:
//! `cargo build --workspace --bins`.

#![allow(clippy::unwrap_used)]

/// Makes a test of each scenario, an `async fn(Database)`, for each database.
macro_rules! on_each_database {
    ($($scenario:ident,)+) => {
        mod sqlite {
            use gotgan_tests::Database;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario(Database::Sqlite).await;
            })+
        }
        mod postgres {
            use gotgan_tests::Database;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                if let Some(database) = Database::postgres().await {
                    super::$scenario(database).await;
                }
            })+
        }
    };
}

mod abuse;
mod actions;
mod arrays;
mod backup;
mod bad_command_line;
mod bad_identity;
mod bad_request;
mod books;
mod containers;
mod derate;
mod durability;
mod elastic;
mod events;
mod faults;
mod gang;
mod hooks;
mod layout;
mod leadership;
mod lemons;
mod limits;
mod logs;
mod maintenance;
mod mig;
mod node_loss;
mod nvlink;
mod order;
mod power;
mod quota;
mod quota_change;
mod recall;
mod reservation;
mod roles;
mod scale;
mod standby_reads;
mod steps;
mod telemetry;
mod torment;
mod tour;
mod upgrade;
mod why;
mod worker_restart;
