//! The stable error codes: the same number in gRPC details, logs, the command line and the docs.
//!
//! 1xxx: usage and configuration. 2xxx: connections. 3xxx: topics and partitions. 4xxx: records.
//! 5xxx: storage. 6xxx: consumer groups. 9xxx: the unexpected. A number is never given a new meaning.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $cause:literal, $next:literal;)+) => {
        /// A stable error code, shown as `SW3006`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Code {
            $(#[doc = $title] $name = $number,)+
        }

        /// Every code, in the order of the numbers.
        const ALL: &[CodeInfo] = &[
            $(CodeInfo { code: Code::$name, title: $title, cause: $cause, next: $next },)+
        ];
    };
}

/// What `sapwood explain` says about a code.
#[derive(Debug, Clone, Copy)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// What happened, in a few words.
    pub title: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do next.
    pub next: &'static str,
}

codes! {
    InvalidArgument = 1001, "an argument is not valid",
        "A request or a command carries a value outside its bounds or of the wrong form.",
        "Read the message: it names the value and the limit. For a command, see its --help.";
    InvalidConfig = 1002, "a configuration value is not valid",
        "A key of the configuration file, the environment or a flag is outside its bounds.",
        "Correct the value; `sapwood config show` prints what is in force and where it came from.";
    UnknownConfig = 1003, "a configuration key is not known",
        "The key is misspelt, or belongs to a newer version.",
        "Use the suggested key; `sapwood config show` lists them all.";
    PortInUse = 2001, "the address is in use",
        "Another process, perhaps another sapwood, listens on this address.",
        "Stop it, or choose another with --listen (port 0 picks a free one).";
    Unreachable = 2002, "the broker cannot be reached",
        "Nothing answers at this address: it is not running, or the address is wrong.",
        "Start one with `sapwood dev`, or name its address with -b HOST:PORT.";
    TimedOut = 2003, "the deadline passed",
        "The broker did not answer in time. A produce may have been carried out all the same.",
        "Try again; an idempotent producer may retry without making duplicates.";
    Overloaded = 2004, "the broker is at its limit",
        "The requests in flight use up the broker's memory budget.",
        "Retry after a pause; raise limits.request_bytes if this lasts.";
    Draining = 2005, "the broker is shutting down",
        "It finishes what it has accepted and takes nothing new.",
        "Retry: clients reconnect by themselves once it is back.";
    InsecureListen = 2006, "refusing to listen beyond loopback without authentication",
        "Anybody who can reach the address could read and write every topic.",
        "Listen on 127.0.0.1, or pass --insecure if the network is trusted.";
    Loading = 2007, "the group's state is being loaded",
        "After a start, the coordinator reads what was committed before it answers.",
        "Retry in a moment: clients do so by themselves.";
    UnknownTopic = 3001, "the topic does not exist",
        "It was never created, was deleted, or its name is misspelt.",
        "List topics with `sapwood topic list`; create it with `sapwood topic create NAME`.";
    UnknownPartition = 3002, "the partition does not exist",
        "The topic has fewer partitions; they are numbered from 0.",
        "See how many with `sapwood topic describe NAME`.";
    InvalidTopicName = 3003, "the topic name is not valid",
        "A name has 1 to 249 characters of a-z A-Z 0-9 . _ - and is neither . nor ..",
        "Choose another name.";
    InvalidTopicConfig = 3004, "a topic configuration value is not valid",
        "The value is outside the key's bounds or of another type.",
        "The message gives the bounds.";
    UnknownTopicConfig = 3005, "the topic configuration key is not known",
        "The key is misspelt, or not one of Kafka's topic configurations.",
        "Use the suggested key.";
    TopicExists = 3006, "the topic already exists",
        "A topic of this name is there. Partitions can be added, never removed.",
        "Choose another name, or pass --if-not-exists to accept it as it is.";
    InvalidPartitions = 3007, "the number of partitions is not possible",
        "A topic has 1 to 100,000 partitions, and partitions can be added, never removed.",
        "Ask for more than there are now.";
    InvalidReplication = 3008, "one broker cannot keep more than one replica",
        "The topic asks for a replication factor or min.insync.replicas above 1.",
        "Ask for 1, or set topics.replication_factor = \"as-one\".";
    OffsetOutOfRange = 4001, "the offset is outside the log",
        "Records before the log start were deleted; offsets past the end are not written yet.",
        "Read from `start` or `end`; `sapwood topic describe NAME` shows the bounds.";
    RecordTooLarge = 4002, "the record or batch is too large",
        "It is above the topic's max.message.bytes.",
        "Send smaller records, or raise it: `sapwood topic alter NAME --set max.message.bytes=N`.";
    CorruptBatch = 4003, "the batch is damaged or malformed",
        "Its checksum or its structure is wrong: it was damaged on its way, or the client has a fault.",
        "Send it again; if it repeats, look at the client's version.";
    ExpectedEndConflict = 4004, "the partition's end is not where the writer expected it",
        "Somebody else appended first.",
        "Read what was appended (the message names the end), decide again, then retry.";
    OutOfSequence = 4005, "a producer's batch is out of sequence",
        "A batch of an idempotent producer is missing before this one.",
        "The producer must begin anew with a new producer id.";
    ProducerFenced = 4006, "a newer instance of the producer has taken over",
        "The batch carries an older producer epoch.",
        "Stop this producer; the newer one is the right one.";
    InvalidTimestamp = 4007, "a record's timestamp is outside the allowed window",
        "The topic bounds the difference between a record's time and the broker's clock.",
        "Correct the clock, or change message.timestamp.before.max.ms / after.max.ms.";
    InvalidRecord = 4008, "a record breaks a rule of the topic",
        "A compacted topic needs a key in each record; clients may not write control batches.",
        "Give each record a key.";
    StorageFull = 5001, "the disk is full",
        "There is no room for more records. Reading, deleting topics and committing go on.",
        "Free space, delete topics or shorten their retention; it recovers by itself.";
    PartitionOffline = 5002, "the partition is offline",
        "Its files are damaged or could not be written. The other partitions go on.",
        "See the reason with `sapwood topic describe`; stop, and see what `sapwood storage repair` can do.";
    ReadOnly = 5003, "the data directory is read-only since a failed write",
        "The journal or a directory could not be synced: what is on the disk is no longer known.",
        "Look at the disk and the log, then restart: recovery settles what is there.";
    DirectoryInUse = 5004, "the data directory is in use",
        "Another process holds its lock.",
        "Stop the other one, or choose another with --data-dir.";
    DirectoryNewer = 5005, "the data directory is of a newer format",
        "A newer version of Sapwood wrote it.",
        "Run that version.";
    NotADirectory = 5006, "this is not a Sapwood data directory",
        "The folder holds other files, or is not a folder.",
        "Choose an empty or new folder with --data-dir.";
    NoPermission = 5007, "no permission on the data directory",
        "The user that runs sapwood may not read or write it.",
        "Change its owner, or choose another with --data-dir.";
    TooFewDescriptors = 5008, "too few file descriptors or mappings",
        "The process's limits are below what its partitions need.",
        "Raise them: `ulimit -n`, and vm.max_map_count for mappings.";
    CatalogDamaged = 5009, "the catalog is damaged",
        "The file that says which topics exist fails its checks. Nothing was deleted.",
        "Restore it from a backup; `sapwood storage inspect` shows what is readable.";
    IoFailed = 5010, "the disk reported an error",
        "A read or a write failed.",
        "Look at the system's log for the device; then restart.";
    FileDamaged = 5011, "a file of the data directory is damaged",
        "A file that is written whole, or synced before it is relied on, fails its checks.",
        "Nothing was changed. See what `sapwood storage repair` can do, or restore it from a backup.";
    UnknownGroup = 6001, "the group does not exist",
        "Nobody has joined it or committed offsets for it, or its offsets have expired since.",
        "List groups with `sapwood group list`.";
    UnknownMember = 6002, "the group has no such member",
        "Its session ended, it took too long to give partitions up, or it has left.",
        "Join again, owning nothing: clients do so by themselves.";
    MemberFenced = 6003, "the member was fenced",
        "Its epoch is not the group's: the group went on without it.",
        "Give up all partitions and join again: clients do so by themselves.";
    StaleMemberEpoch = 6004, "the member's epoch is not the current one",
        "The group has moved on since the member last heard of its epoch.",
        "Learn the epoch by a heartbeat, then retry: clients do so by themselves.";
    InstanceFenced = 6005, "another process has taken the instance id",
        "A process with the same instance id has joined since; the group lives on with that one.",
        "Give each process an instance id of its own.";
    InstanceInUse = 6006, "the instance id is in use",
        "A member with it is in the group and has not left.",
        "Stop the other process or wait for its session to end, or choose another instance id.";
    GroupNotEmpty = 6007, "the group has members",
        "Deleting a group or moving its offsets would be undone by the members that read on.",
        "Stop the group's consumers, or wait until their sessions have ended, and retry.";
    OtherGroupKind = 6008, "the group is of the other kind",
        "Its members speak the classic protocol and this asks for the newer one, or the reverse.",
        "Stop the group's consumers first: an empty group takes either kind.";
    InvalidGroupId = 6009, "the group id is not valid",
        "A group id has 1 to 32,767 bytes.",
        "Choose another name.";
    UnknownAssignor = 6010, "there is no such assignor",
        "The broker assigns by `uniform` or `range`.",
        "Use one of these, or leave the choice to the broker.";
    InvalidTopicRegex = 6011, "the topic pattern is refused",
        "It does not parse as a regular expression, or would take too much memory.",
        "Correct it; the syntax is RE2's: no backreferences, no look-around.";
    OffsetMetadataTooLarge = 6012, "the text beside a committed offset is too long",
        "It is above the broker's limit for it.",
        "Shorten it; keep large state elsewhere.";
    GroupFull = 6013, "the group takes no more members",
        "It has as many as the broker allows.",
        "Stop some, or use a second group.";
    GroupReadsTopic = 6014, "members of the group read the topic",
        "Offsets of topics that are being read cannot be deleted.",
        "Stop the group's consumers, or take the topic out of their subscriptions.";
    GroupRebalancing = 6015, "the group is rebalancing",
        "Its members are being gathered anew.",
        "Join again, then retry: clients do so by themselves.";
    Internal = 9001, "an unexpected error",
        "A fault of Sapwood itself.",
        "Report it with the log around it.";
}

impl Code {
    /// Title, cause and next step.
    pub fn info(self) -> &'static CodeInfo {
        ALL.iter()
            .find(|info| info.code == self)
            .expect("the table lists every code")
    }

    /// The code with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        ALL.iter()
            .map(|info| info.code)
            .find(|code| code.number() == number)
    }

    /// Reads `SW3006` or `3006`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix("SW")
            .or_else(|| text.strip_prefix("sw"))
            .unwrap_or(text);
        Self::from_number(digits.parse().ok()?)
    }

    /// The number: 3006 for `SW3006`.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Every code, in the order of the numbers.
    pub fn all() -> &'static [CodeInfo] {
        ALL
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SW{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_given_once_and_they_rise() {
        let numbers: Vec<u16> = Code::all().iter().map(|info| info.code.number()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert!(
            numbers
                .iter()
                .all(|number| (1_000..10_000).contains(number))
        );
    }

    #[test]
    fn every_code_is_found_by_its_number_and_its_text() {
        for info in Code::all() {
            let code = info.code;
            assert_eq!(Code::from_number(code.number()), Some(code));
            assert_eq!(Code::parse(&code.to_string()), Some(code));
            assert_eq!(code.info().code, code);
        }
        assert_eq!(Code::parse("SW3006"), Some(Code::TopicExists));
        assert_eq!(Code::parse("sw3006"), Some(Code::TopicExists));
        assert_eq!(Code::parse("3006"), Some(Code::TopicExists));
    }

    #[test]
    fn what_is_not_a_code_is_refused() {
        for text in [
            "",
            "SW",
            "SW3",
            "SW99999",
            "SWSW3006",
            "-1",
            "SW 3006",
            "TopicExists",
        ] {
            assert_eq!(Code::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_code_says_what_why_and_what_next() {
        for CodeInfo {
            code,
            title,
            cause,
            next,
        } in Code::all()
        {
            let is_title = title.starts_with(|c: char| c.is_lowercase()) && !title.ends_with('.');
            assert!(is_title, "{code}: {title}");
            for sentence in [cause, next] {
                assert!(sentence.ends_with('.'), "{code}: {sentence}");
            }
        }
    }
}
