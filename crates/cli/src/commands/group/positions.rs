//! Files of positions: what `group describe --export` and `kafka-consumer-groups --export` print.
//!
//! A line is topic, partition and position, or group, topic, partition and position; lines of other
//! groups are passed over. Texts may stand in double quotes. Blank lines, lines that begin with `#` and
//! a heading as the first line are passed over too.

use crate::{
    args::group::{Place, parse_partition},
    error::Failure,
    position::Position,
};

/// How large a file may be, in bytes: room for more lines than a broker takes at a time.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads the positions of one group.
///
/// # Errors
/// A line that cannot be read, with its number; no position at all.
pub(super) fn parse(text: &str, group: &str) -> Result<Vec<(Place, Position)>, Failure> {
    let mut positions = Vec::new();
    let mut others = 0_u64;
    let mut is_first = true;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |failure: Failure| failure.at(format!("line {}", number + 1));
        let fields = fields(line).map_err(at)?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let is_heading = std::mem::take(&mut is_first) && fields.contains(&"partition");
        let (topic, partition, position) = match fields[..] {
            _ if is_heading => continue,
            [topic, partition, position] => (topic, partition, position),
            [of, topic, partition, position] if of == group => (topic, partition, position),
            [_, _, _, _] => {
                others += 1;
                continue;
            }
            _ => return Err(at(unreadable(line))),
        };
        let partition = parse_partition(partition).ok_or_else(|| at(unreadable(line)))?;
        if topic.is_empty() {
            return Err(at(unreadable(line)));
        }
        let position = position.parse::<Position>();
        let place = Place {
            topic: topic.to_owned(),
            partition: Some(partition),
        };
        positions.push((place, position.map_err(|wrong| at(Failure::usage(wrong)))?));
    }
    match positions.is_empty() {
        false => Ok(positions),
        true if others > 0 => Err(Failure::usage(format!(
            "the file has positions of other groups only, none of {group:?}"
        ))),
        true => Err(Failure::usage("the file has no positions").hint(
            "A line is topic,partition,position, as `sapwood group describe --export` prints.",
        )),
    }
}

fn unreadable(line: &str) -> Failure {
    let shown: String = line.chars().take(80).collect();
    Failure::usage(format!("{shown:?} is not topic,partition,position"))
        .cause("A line has a topic, the number of a partition and a position, such as orders,2,912004.")
        .hint("`sapwood group describe GROUP --export` prints such lines.")
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Result<Vec<String>, Failure> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let field;
        (field, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_field(quoted).ok_or_else(|| unreadable(line))?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// A field behind its opening quote, and what follows the closing one; none if that is missing, or is
/// followed by more than a comma. Two quotes stand for one.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => break,
        }
    }
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with(',')).then_some((field, rest))
}

#[cfg(test)]
mod tests {
    use sapwood_model::Offset;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, Option<u32>, Position)>, String> {
        let positions = parse(text, "billing").map_err(|failure| failure.message)?;
        let flat = |(place, position): (Place, Position)| (place.topic, place.partition, position);
        Ok(positions.into_iter().map(flat).collect())
    }

    #[test]
    fn files_of_ours_and_of_kafkas_tool_are_read() {
        let to = |offset| Position::Offset(Offset(offset));
        let expected = vec![
            ("orders".to_owned(), Some(0), to(7)),
            ("a-b.c".to_owned(), Some(12), to(0)),
        ];
        for text in [
            "orders,0,7\na-b.c,12,0\n",
            "\"orders\",0,7\n\"a-b.c\",12,0",
            "topic,partition,offset\r\norders,0,7\r\na-b.c,12,0\r\n",
            "# of yesterday\n\n orders , 0 , 7 \n\"a-b.c\" ,12, 0\n",
            "\"billing\",\"orders\",0,7\nother,\"orders\",1,3\nbilling,a-b.c,12,0\n",
            "group,topic,partition,offset\nbilling,orders,0,7\nbilling,a-b.c,12,0\n",
        ] {
            assert_eq!(parsed(text), Ok(expected.clone()), "{text:?}");
        }
        let any = parsed("orders,0,end\norders,1,-10\n").expect("positions of every form");
        assert_eq!((any[0].2, any[1].2), (Position::End, Position::Last(10)));
        let strange = parse("\"say \"\"hi\"\"\",orders,0,1", "say \"hi\"");
        assert_eq!(strange.map(|positions| positions.len()), Ok(1));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, words) in [
            (
                "orders,0,7\norders;1;2\n",
                "line 2: \"orders;1;2\" is not topic,partition,position",
            ),
            ("orders,zero,7\n", "line 1: "),
            ("orders,-1,7\n", "line 1: "),
            ("orders,0\n", "line 1: "),
            (",0,7\n", "line 1: "),
            ("a,b,c,d,e\n", "line 1: "),
            ("orders,0,soon\n", "line 1: \"soon\" is not a position"),
            ("\"orders,0,7\n", "line 1: "),
            ("\"orders\"x,0,7\n", "line 1: "),
            ("", "the file has no positions"),
            ("topic,partition,offset\n", "the file has no positions"),
            ("shipping,orders,0,7\n", "positions of other groups only"),
        ] {
            let wrong = parsed(text).expect_err(text);
            assert!(wrong.contains(words), "{text:?}: {wrong}");
        }
    }
}
