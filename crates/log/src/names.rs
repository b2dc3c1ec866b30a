//! The names of files in a partition's folder: Kafka's own, and `.sums`.

use std::ops::Range;

use sapwood_model::{LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

/// Where the topic's id is kept in a partition's folder.
pub(crate) const METADATA_FILE: &str = "partition.metadata";

/// Where the list of leader epochs is kept in a partition's folder.
pub(crate) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";

/// Up to where a partition was compacted. Kafka has one such file for all partitions.
pub(crate) const CLEANER_FILE: &str = "cleaner-offset-checkpoint";

/// The segment that is prepared for the next roll, before it has its name. It never holds a record:
/// whoever finds it at the start may remove it.
pub(crate) const NEXT_SEGMENT_FILE: &str = "next-segment.tmp";

/// The same for a segment that an append has to make itself, because none was prepared.
pub(crate) const NEW_SEGMENT_FILE: &str = "new-segment.tmp";

/// The file of a large segment that was removed, while its space is given back: `....log.removed.tmp`.
/// Whoever finds it at the start removes it.
pub(crate) fn removed_file_name(base: Offset) -> String {
    format!("{:020}.log.removed.tmp", base.0)
}

/// A segment that compaction is writing: `....log.cleaned.tmp`. Whoever finds it at the start removes it.
pub(crate) fn cleaned_file_name(base: Offset) -> String {
    format!("{:020}.log.cleaned.tmp", base.0)
}

/// A segment that compaction has written and synced, and that takes the place of all segments from `start`
/// to `end` (exclusive): `....-....swap`. Whoever finds it at the start finishes that.
pub(crate) fn swap_file_name(offsets: &Range<Offset>) -> String {
    format!("{:020}-{:020}.swap", offsets.start.0, offsets.end.0)
}

/// The offsets in the name of such a segment.
pub(crate) fn parse_swap_file_name(name: &str) -> Option<Range<Offset>> {
    let (start, end) = name.strip_suffix(".swap")?.split_once('-')?;
    let offsets = parse_offset(start)?..parse_offset(end)?;
    (offsets.start < offsets.end).then_some(offsets)
}

/// The folder of a partition: `flights-3`.
pub(crate) fn folder_name(topic: &TopicName, partition: PartitionId) -> String {
    format!("{topic}-{partition}")
}

/// The records of the segment that starts at `base`: `00000000000000000042.log`.
pub(crate) fn segment_file_name(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

/// The offset index of that segment.
pub(crate) fn index_file_name(base: Offset) -> String {
    format!("{:020}.index", base.0)
}

/// The time index of that segment.
pub(crate) fn time_index_file_name(base: Offset) -> String {
    format!("{:020}.timeindex", base.0)
}

/// The sums of the headers of that segment's batches.
pub(crate) fn sums_file_name(base: Offset) -> String {
    format!("{:020}.sums", base.0)
}

/// The producers' state as it was when the log ended at `offset`.
pub(crate) fn snapshot_file_name(offset: Offset) -> String {
    format!("{:020}.snapshot", offset.0)
}

/// The offset in the name of a snapshot, as [`parse_segment_file_name`] reads that of a segment.
pub(crate) fn parse_snapshot_file_name(name: &str) -> Option<Offset> {
    parse_offset(name.strip_suffix(".snapshot")?)
}

/// The base offset in the name of a segment's `.log` file; `None` for any other name.
///
/// `00000000000000000042.log` is 42; `42.log` is nobody's segment.
pub(crate) fn parse_segment_file_name(name: &str) -> Option<Offset> {
    parse_offset(name.strip_suffix(".log")?)
}

/// The base offset in the name of any file of a segment, and the offset in that of a snapshot.
pub(crate) fn base_of(name: &str) -> Option<Offset> {
    let (base, kind) = name.split_once('.')?;
    let is_segments = ["log", "index", "timeindex", "sums", "snapshot"].contains(&kind);
    parse_offset(base).filter(|_| is_segments)
}

fn parse_offset(digits: &str) -> Option<Offset> {
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits
        .then(|| digits.parse().ok().map(Offset))
        .flatten()
}

/// Whose folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) topic_id: TopicId,
    /// `None` in a file that Kafka wrote: it knows the topic alone.
    pub(crate) partition: Option<PartitionId>,
    /// The leader epoch that the partition began with, if the file says so.
    pub(crate) epoch: Option<LeaderEpoch>,
}

/// The text of `partition.metadata`: Kafka's two lines, and two that Kafka does not read: so that the
/// folders of one topic cannot be taken for each other, and so that the first epoch is known before
/// there is a checkpoint.
pub(crate) fn metadata_text(
    topic: TopicId,
    partition: PartitionId,
    epoch: Option<LeaderEpoch>,
) -> String {
    let epoch = epoch.map_or_else(String::new, |epoch| format!("first_epoch: {epoch}\n"));
    format!("version: 0\ntopic_id: {topic}\npartition: {partition}\n{epoch}")
}

/// What the text of `partition.metadata` says; `None` when the text is not of that form.
pub(crate) fn parse_metadata(text: &str) -> Option<Metadata> {
    let mut lines = text.lines();
    if lines.next()? != "version: 0" {
        return None;
    }
    let topic_id = TopicId::parse(lines.next()?.strip_prefix("topic_id: ")?)?;
    let partition = match lines.next() {
        None => None,
        Some(line) => Some(PartitionId(line.strip_prefix("partition: ")?.parse().ok()?)),
    };
    let epoch = match lines.next() {
        None => None,
        Some(line) => Some(LeaderEpoch(
            line.strip_prefix("first_epoch: ")?.parse().ok()?,
        )),
    };
    let metadata = Metadata {
        topic_id,
        partition,
        epoch,
    };
    lines.next().is_none().then_some(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        let topic = TopicName::new("flights").unwrap();
        assert_eq!(folder_name(&topic, PartitionId(3)), "flights-3");
        assert_eq!(segment_file_name(Offset(42)), "00000000000000000042.log");
        assert_eq!(index_file_name(Offset(0)), "00000000000000000000.index");
        assert_eq!(
            time_index_file_name(Offset(7)),
            "00000000000000000007.timeindex"
        );
        assert_eq!(
            snapshot_file_name(Offset(7)),
            "00000000000000000007.snapshot"
        );
    }

    #[test]
    fn only_whole_segment_names_are_read_back() {
        assert_eq!(
            parse_segment_file_name("00000000000000000042.log"),
            Some(Offset(42))
        );
        for name in [
            "42.log",
            "0000000000000000004x.log",
            "+0000000000000000042.log",
            "a.log",
        ] {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
        assert_eq!(parse_segment_file_name("99999999999999999999.log"), None);
        assert_eq!(parse_segment_file_name("00000000000000000042.index"), None);
    }

    #[test]
    fn the_name_of_a_compacted_segment_says_what_it_replaces() {
        let offsets = Offset(5)..Offset(77);
        let name = swap_file_name(&offsets);
        assert_eq!(name, "00000000000000000005-00000000000000000077.swap");
        assert_eq!(parse_swap_file_name(&name), Some(offsets));
        assert_eq!(parse_swap_file_name(&name.replace("5-", "x-")), None);
        assert_eq!(parse_swap_file_name(&name.replace("77", "04")), None);
        assert_eq!(parse_segment_file_name(&name), None);
    }

    #[test]
    fn metadata_round_trips() {
        let id = TopicId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let metadata = |partition| Metadata {
            topic_id: id,
            partition,
            epoch: None,
        };
        let ours = metadata_text(id, PartitionId(7), None);
        assert_eq!(parse_metadata(&ours), Some(metadata(Some(PartitionId(7)))));
        let whole = metadata_text(id, PartitionId(7), Some(LeaderEpoch(9)));
        let epoch = parse_metadata(&whole).and_then(|metadata| metadata.epoch);
        assert_eq!(epoch, Some(LeaderEpoch(9)));
        assert_eq!(parse_metadata(&format!("{whole}first_epoch: 9\n")), None);
        let kafkas = format!("version: 0\ntopic_id: {id}\n");
        assert_eq!(parse_metadata(&kafkas), Some(metadata(None)));
        assert_eq!(parse_metadata(&format!("{kafkas}partition: \n")), None);
        assert_eq!(parse_metadata(&format!("{ours}partition: 7\n")), None);
        assert_eq!(
            parse_metadata("version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n"),
            None
        );
        assert_eq!(parse_metadata("version: 0\n"), None);
    }
}
