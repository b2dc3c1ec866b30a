//! `sapwood explain`: what an error code means.

use sapwood_model::{Code, CodeInfo};
use serde_json::{Value, json};

use crate::{
    args::ExplainArgs,
    console::Console,
    error::{Exit, Failure, Outcome},
    output::{Column, Form, Listing, Row, print_text, print_value},
};

const COLUMNS: &[Column] = &[
    Column::Text("CODE"),
    Column::Text("MEANS"),
    Column::Number("EXIT"),
];

/// Explains one code, or lists all.
pub(crate) fn run(args: &ExplainArgs, console: &Console) -> Outcome {
    let form = console.form()?;
    let Some(text) = &args.code else {
        list().print(form)?;
        return Ok(Exit::Ok);
    };
    let code = Code::parse(text).ok_or_else(|| {
        Failure::usage(format!("there is no error code {text:?}"))
            .cause("Codes are SW and four digits, as in SW3006.")
            .hint("List them all: sapwood explain")
            .exit(Exit::NotFound)
    })?;
    let info = code.info();
    match form {
        Form::Table | Form::Wide => print_text(&format!(
            "{code}: {}\n  cause: {}\n  try:   {}\n  exit:  {}\n",
            info.title,
            info.cause,
            info.next,
            Exit::of(code) as u8
        ))?,
        Form::Name => print_text(&format!("{code}\n"))?,
        Form::Json | Form::Jsonl | Form::Yaml => print_value(&to_json(info), form)?,
    }
    Ok(Exit::Ok)
}

fn list() -> Listing {
    let mut listing = Listing::new(COLUMNS);
    for info in Code::all() {
        let name = info.code.to_string();
        let exit = Exit::of(info.code) as u8;
        listing.push(Row {
            cells: vec![name.clone(), info.title.into(), exit.to_string()],
            name,
            value: to_json(info),
        });
    }
    listing
}

fn to_json(info: &CodeInfo) -> Value {
    json!({
        "code": info.code.to_string(),
        "title": info.title,
        "cause": info.cause,
        "try": info.next,
        "exit": Exit::of(info.code) as u8,
    })
}
