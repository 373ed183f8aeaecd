//! `gotgan admin`: tokens for people and for nodes that join, nodes that are kept for projects, less power for a time, and
//! backups.

use clap::{Args, Subcommand, ValueEnum};
use gotgan_proto::v1;
use serde::Serialize;

use super::custody::{Backup, Restore, Verify};
use super::derate::Derate;
use super::reservation::Reservation;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::{
        table::{Table, Tone, column},
        time,
    },
    units,
    view::cluster::TokenView,
};

/// Tokens, reservations of nodes, less power for a time, backups
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Admin {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  gotgan admin token create kim --role member --project public/nup/startup-042 --lifetime 90d
  gotgan admin token list
  gotgan admin token revoke TOKEN_ID
  gotgan admin join-token --node gpu-001 --lifetime 1h
  gotgan admin reservation create course -A public/nup/ai-101 --count 4 --for 3h
  gotgan admin derate hall=h2 --to 50% --for 4h --reason 'heat wave'
  gotgan admin backup /backup/gotgan.jsonl          on a scheduler's host
  gotgan admin verify";

#[derive(Debug, Subcommand)]
enum Action {
    /// Tokens of people and programs
    #[command(subcommand)]
    Token(TokenAction),
    JoinToken(JoinToken),
    Reservation(Reservation),
    Derate(Derate),
    Backup(Backup),
    Restore(Restore),
    Verify(Verify),
}

#[derive(Debug, Subcommand)]
enum TokenAction {
    Create(CreateToken),
    /// List tokens, without their secrets
    List,
    /// Revoke a token; it counts at once
    Revoke {
        token_id: String,
    },
}

/// Make a token; its secret is shown this once
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  gotgan admin token create kim --role member --project public/nup/startup-042 --lifetime 90d"
)]
struct CreateToken {
    /// Name of the person or program
    subject: String,
    #[arg(long, value_enum)]
    role: Role,
    /// Project a member may use, with what is below; may be repeated
    #[arg(long, short = 'A', value_name = "PATH", required_if_eq("role", "member"))]
    project: Vec<String>,
    /// How long it is good [default: for ever]
    #[arg(long, value_parser = units::parse_time, value_name = "TIME")]
    lifetime: Option<i64>,
}

/// Make a token with which one worker can join once
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  gotgan admin join-token --node gpu-001 --lifetime 1h")]
struct JoinToken {
    /// Only for this node [default: any free name]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    node: String,
    /// How long it is good [default: one hour]
    #[arg(long, value_parser = units::parse_time, value_name = "TIME")]
    lifetime: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Admin,
    Allocator,
    Operator,
    Member,
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Allocator => Self::Allocator,
            Role::Operator => Self::Operator,
            Role::Member => Self::Member,
        }
    }
}

#[derive(Serialize)]
struct Created {
    token_id: String,
    /// Absent where this answers a repeated request.
    token: Option<String>,
    expires_us: Option<i64>,
    expires: Option<String>,
}

#[derive(Serialize)]
struct Joining {
    join_token: Option<String>,
    expires_us: Option<i64>,
    expires: Option<String>,
}

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<TokenView>,
}

#[derive(Serialize)]
struct Revoked {
    token_id: String,
    changed: bool,
}

impl Admin {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Error> {
        match self.action {
            Action::Token(TokenAction::Create(command)) => command.run(context).await?,
            Action::Token(TokenAction::List) => list(context).await?,
            Action::Token(TokenAction::Revoke { token_id }) => revoke(token_id, context).await?,
            Action::JoinToken(command) => command.run(context).await?,
            Action::Reservation(command) => command.run(context).await?,
            Action::Derate(command) => command.run(context).await?,
            Action::Backup(command) => return Err(command.run()),
            Action::Restore(command) => return Err(command.run()),
            Action::Verify(command) => return Err(command.run(context.output.json)),
        }
        Ok(Exit::Ok.code())
    }
}

impl CreateToken {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::CreateTokenRequest {
            idempotency_key: context.idempotency_key()?,
            subject: self.subject,
            role: v1::Role::from(self.role).into(),
            projects: self.project,
            lifetime_s: self.lifetime.unwrap_or_default(),
        };
        let client = context.client()?;
        let answer =
            client.call(async |api| api.cluster().create_token(request.clone()).await).await?;
        let created = Created {
            token_id: answer.token_id,
            token: (!answer.token.is_empty()).then_some(answer.token),
            expires_us: time::set(answer.expires_us),
            expires: time::rfc3339(answer.expires_us),
        };
        if context.output.json {
            return context.output.document("gotgan.token/1", &created);
        }
        context.output.aside(&format!(
            "token {}, expires {}",
            created.token_id,
            expiry(created.expires_us)
        ));
        print_secret(created.token.as_deref(), context)
    }
}

impl JoinToken {
    async fn run(self, context: &Context) -> Result<(), Error> {
        let request = v1::CreateJoinTokenRequest {
            idempotency_key: context.idempotency_key()?,
            node: self.node,
            lifetime_s: self.lifetime.unwrap_or_default(),
        };
        let client = context.client()?;
        let answer =
            client.call(async |api| api.cluster().create_join_token(request.clone()).await).await?;
        let joining = Joining {
            join_token: (!answer.join_token.is_empty()).then_some(answer.join_token),
            expires_us: time::set(answer.expires_us),
            expires: time::rfc3339(answer.expires_us),
        };
        if context.output.json {
            return context.output.document("gotgan.join_token/1", &joining);
        }
        context
            .output
            .aside(&format!("for one worker, once; expires {}", expiry(joining.expires_us)));
        print_secret(joining.join_token.as_deref(), context)
    }
}

/// The secret alone on standard output, so that it can be redirected into a file.
fn print_secret(secret: Option<&str>, context: &Context) -> Result<(), Error> {
    match secret {
        Some(secret) => context.output.line(secret),
        None => Err(Error::Unexpected(
            "the token was made by an earlier request with this key; its secret is not shown again"
                .to_owned(),
        )),
    }
}

fn expiry(us: Option<i64>) -> String {
    us.map_or_else(|| "never".to_owned(), time::local)
}

async fn list(context: &Context) -> Result<(), Error> {
    let client = context.client()?;
    let answer =
        client.call(async |api| api.cluster().list_tokens(v1::ListTokensRequest {}).await).await?;
    let tokens: Vec<TokenView> = answer.tokens.into_iter().map(TokenView::of).collect();
    if context.output.json {
        return context.output.document("gotgan.tokens/1", &Tokens { tokens });
    }
    let mut table = Table::new(&[
        column("TOKEN"),
        column("SUBJECT").shrink(8),
        column("ROLE"),
        column("PROJECTS").shrink(12).drop(2),
        column("CREATED").drop(3),
        column("EXPIRES").drop(1),
        column("STATE"),
    ]);
    let now_us = time::now_us();
    for token in tokens {
        let (state, tone) = state_of(&token, now_us);
        table.toned_row([
            (token.token_id, Tone::Plain),
            (token.subject, Tone::Plain),
            (token.role, Tone::Plain),
            (token.projects.join(","), Tone::Plain),
            (token.created_us.map_or_else(String::new, time::local), Tone::Dim),
            (expiry(token.expires_us), Tone::Plain),
            (state.to_owned(), tone),
        ]);
    }
    context.output.table(&table)
}

fn state_of(token: &TokenView, now_us: i64) -> (&'static str, Tone) {
    match (token.revoked_us, token.expires_us) {
        (Some(_), _) => ("revoked", Tone::Bad),
        (None, Some(expires)) if expires <= now_us => ("expired", Tone::Warning),
        _ => ("good", Tone::Good),
    }
}

async fn revoke(token_id: String, context: &Context) -> Result<(), Error> {
    let idempotency_key = context.idempotency_key()?;
    let request = v1::RevokeTokenRequest { idempotency_key, token_id: token_id.clone() };
    let client = context.client()?;
    let answer = client.call(async |api| api.cluster().revoke_token(request.clone()).await).await?;
    let revoked = Revoked { token_id, changed: answer.changed };
    if context.output.json {
        return context.output.document("gotgan.token_revoked/1", &revoked);
    }
    let note = if revoked.changed { "" } else { " (was so already)" };
    context.output.line(&format!("token {} revoked{note}", revoked.token_id))
}
