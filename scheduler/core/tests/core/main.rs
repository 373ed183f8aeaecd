//! Tests of the decisions, in one binary. A test sets up a cluster in the words of [`cluster`], says what it
//! expects of each job, and ends with a check of plan and world.

#![allow(clippy::unwrap_used)]

mod admit;
mod alerts;
mod arrays;
mod audit;
mod backfill;
mod books;
mod broken;
mod budget;
mod builders;
mod check;
mod cluster;
mod counterparts;
mod derate;
mod elastic;
mod estimates;
mod events;
mod explain;
mod fabric;
mod fair_tree;
mod fairshare;
mod fragmentation;
mod health;
mod images;
mod imex;
mod import;
mod kept_back;
mod lend;
mod lending;
mod measured;
mod mig;
mod naive;
mod nvlink;
mod overview;
mod placement;
mod policies;
mod power;
mod precedence;
mod properties;
mod quota;
mod recall;
mod reference;
mod reservations;
mod scale;
mod scavenger;
mod sketch;
mod states;
mod terms;
mod tiers;
mod topology;
mod turns;
mod waiting;
mod windows;
mod workers_word;
