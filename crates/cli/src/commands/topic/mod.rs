//! `sapwood topic`.

mod alter;
mod compaction;
mod consume;
mod consume_in_group;
mod create;
mod destroy;
mod next_removal;
mod produce;
mod show;

pub(super) use compaction::{compaction_json, dirty_ratio};
pub(super) use destroy::chosen;
pub(super) use next_removal::{next_removal_json, next_removal_text};

use crate::{
    args::{Global, topic::TopicCommand},
    console::Console,
    error::Outcome,
    session,
};

/// Carries out one of the commands over topics.
pub(crate) fn run(command: TopicCommand, global: &Global, console: &Console) -> Outcome {
    match command {
        TopicCommand::Create(args) => {
            session::run(global, |client| create::create(client, args, console))
        }
        TopicCommand::Alter(args) => {
            session::run(global, |client| alter::alter(client, args, console))
        }
        TopicCommand::List(args) => {
            session::run(global, |client| show::list(client, args, console))
        }
        TopicCommand::Describe(args) => {
            session::run(global, |client| show::describe(client, args, console))
        }
        TopicCommand::Delete(args) => {
            session::run(global, |client| destroy::delete(client, args, console))
        }
        TopicCommand::Trim(args) => {
            session::run(global, |client| destroy::trim(client, args, console))
        }
        TopicCommand::Produce(args) => {
            session::run(global, |client| produce::run(client, *args, console))
        }
        TopicCommand::Consume(args) => {
            session::run(global, |client| consume::run(client, *args, console))
        }
    }
}
