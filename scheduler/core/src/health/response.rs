//! What a sign of bad health calls for.

use serde::{Deserialize, Serialize};

/// What has to be done to hardware before it can be used again; the later ones do the earlier ones' work as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Reset the GPU.
    Reset,
    /// Reboot the node.
    Reboot,
    /// A person has to look at it.
    Service,
}

impl Repair {
    /// The word in rules, commands and listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Repair::Reset => "reset",
            Repair::Reboot => "reboot",
            Repair::Service => "service",
        }
    }
}

/// What a sign calls for, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Response {
    /// Nothing: it is kept in the history.
    Log,
    /// It is the job's own doing. Where jobs of several users do it on one GPU, the GPU is watched.
    Job,
    /// A person should look some time; nothing changes.
    Ticket,
    /// The GPU is watched while it lasts; it goes on taking work.
    Watch,
    /// The GPU goes on taking work and is reset when nothing is on it.
    ResetWhenIdle,
    /// An attempt that fails because of it is not its user's failure; the GPU goes on and is reset when idle.
    Lost,
    /// No new work on the GPU; what runs on it goes on.
    Drain(Repair),
    /// No new work on the GPU, and what runs on it fails now.
    Fail(Repair),
    /// No new work on the whole node; what runs there goes on.
    DrainNode(Repair),
    /// No new work on the whole node, and what runs there fails now.
    FailNode(Repair),
}

impl Response {
    /// The response of that word; those that take hardware out need to know what is to be done with it.
    #[must_use]
    pub fn of_word(word: &str, repair: Option<Repair>) -> Option<Self> {
        Some(match (word, repair) {
            ("log", None) => Response::Log,
            ("job", None) => Response::Job,
            ("ticket", None) => Response::Ticket,
            ("watch", None) => Response::Watch,
            ("reset_when_idle", None) => Response::ResetWhenIdle,
            ("lost", None) => Response::Lost,
            ("drain", Some(repair)) => Response::Drain(repair),
            ("fail", Some(repair)) => Response::Fail(repair),
            ("drain_node", Some(repair)) => Response::DrainNode(repair),
            ("fail_node", Some(repair)) => Response::FailNode(repair),
            _ => return None,
        })
    }

    /// What is to be done with what it takes out; `None` if it takes nothing out.
    #[must_use]
    pub fn takes_out(self) -> Option<Repair> {
        match self {
            Response::Drain(repair)
            | Response::Fail(repair)
            | Response::DrainNode(repair)
            | Response::FailNode(repair) => Some(repair),
            Response::Log
            | Response::Job
            | Response::Ticket
            | Response::Watch
            | Response::ResetWhenIdle
            | Response::Lost => None,
        }
    }

    /// Whether the whole node takes no new work. A reboot ends everything on a node, so nothing new may begin there.
    #[must_use]
    pub fn takes_the_node(self) -> bool {
        match self {
            Response::DrainNode(_) | Response::FailNode(_) => true,
            Response::Drain(repair) | Response::Fail(repair) => repair == Repair::Reboot,
            Response::Log
            | Response::Job
            | Response::Ticket
            | Response::Watch
            | Response::ResetWhenIdle
            | Response::Lost => false,
        }
    }

    /// Whether an attempt that fails because of it lost its time to the hardware.
    #[must_use]
    pub fn hardware_pays(self) -> bool {
        self == Response::Lost || self.takes_out().is_some()
    }

    /// What it says about the hardware, to a person.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Response::Log => "nothing follows".to_owned(),
            Response::Job => "the job's own doing".to_owned(),
            Response::Ticket => "a person should look".to_owned(),
            Response::Watch => "watched".to_owned(),
            Response::ResetWhenIdle => "to be reset when idle".to_owned(),
            Response::Lost => "what fails by it is no user's failure".to_owned(),
            Response::Drain(repair) => format!("GPU out for {}", repair.word()),
            Response::Fail(repair) => {
                format!("GPU out for {}, its jobs fail now", repair.word())
            }
            Response::DrainNode(repair) => format!("node out for {}", repair.word()),
            Response::FailNode(repair) => {
                format!("node out for {}, its jobs fail now", repair.word())
            }
        }
    }
}
