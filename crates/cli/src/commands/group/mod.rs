//! `sapwood group`.

mod delete;
mod positions;
mod seek;
mod show;
mod text;
mod watch;

use crate::{
    args::{Global, group::GroupCommand},
    console::Console,
    error::Outcome,
    session,
};

/// Carries out one of the commands over groups.
pub(crate) fn run(command: GroupCommand, global: &Global, console: &Console) -> Outcome {
    match command {
        GroupCommand::List(args) => {
            session::run(global, |client| show::list(client, args, console))
        }
        GroupCommand::Describe(args) => {
            session::run(global, |client| show::describe(client, args, console))
        }
        GroupCommand::Seek(args) => session::run(global, |client| seek::run(client, args, console)),
        GroupCommand::Delete(args) => {
            session::run(global, |client| delete::run(client, args, console))
        }
        GroupCommand::Watch(args) => {
            session::run(global, |client| watch::run(client, args, console))
        }
    }
}
