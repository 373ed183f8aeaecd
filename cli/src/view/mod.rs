//! What the API sent, as stable JSON and as the texts of tables. Views are pure: no clock, no terminal.

pub mod alert;
pub mod amount;
pub mod audit;
pub mod blocks;
pub mod cluster;
pub mod cut;
pub mod dependency;
pub mod derate;
pub mod event;
pub mod gpu;
pub mod health;
pub mod job;
pub mod maintenance;
pub mod measured;
pub mod node;
pub mod order;
pub mod quota;
pub mod quota_plan;
pub mod reservation;
pub mod standing;
pub mod starts;
pub mod statement;
pub mod step;
pub mod validation;
pub mod word;
