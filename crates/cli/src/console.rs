//! What the global flags say about talking to the user: forms, questions, summaries.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::{
    args::{Global, Output},
    error::{Failure, Outcome, Stop},
    output::{Form, note},
    position::Range,
};

/// The user's end of a command.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    form: Option<Form>,
    position: Option<Range>,
    quiet: bool,
    yes: bool,
}

impl Console {
    /// Sorts the values of `-o` into the form and the position; each may be given once.
    ///
    /// # Errors
    /// One of them is given twice.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let (mut form, mut position) = (None, None);
        for output in &global.output {
            let twice = match output {
                Output::Form(given) => form.replace(*given).is_some(),
                Output::Position(given) => position.replace(*given).is_some(),
            };
            if twice {
                return Err(Failure::usage("-o is given twice with the same meaning")
                    .cause("One form of output and, for consume, one position can be given.")
                    .hint("Leave one out."));
            }
        }
        Ok(Self {
            form,
            position,
            quiet: global.quiet,
            yes: global.yes,
        })
    }

    /// The form asked for; a table when none was.
    ///
    /// # Errors
    /// `-o` gave a position, which only `topic consume` takes.
    pub(crate) fn form(&self) -> Result<Form, Failure> {
        match self.position {
            Some(_) => Err(Failure::usage("-o takes a form here, not a position")
                .cause("Only `sapwood topic consume` takes a position with -o.")
                .hint("Use one of table, wide, json, jsonl, yaml, name.")),
            None => Ok(self.form.unwrap_or(Form::Table)),
        }
    }

    /// The form asked for, if any, and the position, for `topic consume`.
    pub(crate) fn form_and_position(&self) -> (Option<Form>, Option<Range>) {
        (self.form, self.position)
    }

    /// Says something on standard error, unless `-q`.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }

    /// Whether to show progress: standard error is a terminal and `-q` was not given.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Whether `--yes` was given.
    pub(crate) fn is_yes(&self) -> bool {
        self.yes
    }

    /// Asks whether to carry out a plan that was printed. `--yes` answers for the user.
    ///
    /// # Errors
    /// Nobody can be asked (standard input or standard error is not a terminal), or the answer was
    /// not yes.
    pub(crate) fn confirm(&self, question: &str) -> Outcome<()> {
        self.ask(question, "this destroys data and needs --yes")
    }

    /// As [`Console::confirm`], for what destroys nothing but should not happen by a slip.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn confirm_change(&self, question: &str) -> Outcome<()> {
        self.ask(question, "this has to be confirmed and needs --yes")
    }

    fn ask(&self, question: &str, needs_yes: &str) -> Outcome<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage(needs_yes)
                .cause("There is no terminal on which to ask.")
                .hint("Look at the plan with --dry-run, then add --yes.")
                .into());
        }
        let mut err = anstream::stderr();
        let mut answer = String::new();
        let asked = write!(err, "{question} [y/N] ")
            .and_then(|()| err.flush())
            .and_then(|()| io::stdin().lock().read_line(&mut answer));
        match asked {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") => Ok(()),
            _ => Err(Stop::from(
                Failure::usage("not confirmed; nothing was done")
                    .cause("The answer was not yes.")
                    .exit(crate::error::Exit::Failed),
            )),
        }
    }
}
