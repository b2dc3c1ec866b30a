//! Whether what was found after a power cut keeps the promises that were made before it.

use std::collections::BTreeMap;

use crate::{
    account::{Account, Existence, Kind, Partition, Topic},
    found::{Found, FoundPartition, FoundTopic},
};

/// Complaints past this many say nothing new.
const COMPLAINTS_MAX: usize = 12;

/// What of the account is not as it was promised. Empty if all is well.
///
/// With `os_as_fsync` records of os topics are held to what only fsync topics promise.
pub(crate) fn judge(account: &Account, found: &Found, os_as_fsync: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, topic) in &account.topics {
        let there = found.topics.get(name);
        match (topic.existence, there) {
            (Existence::There, None) => {
                complaints.push(format!("{name} was created and is not there"))
            }
            (Existence::Gone, Some(_)) => {
                complaints.push(format!("{name} was deleted and is there"))
            }
            (_, Some(there)) => {
                judge_topic(&mut complaints, account, (name, topic), there, os_as_fsync)
            }
            (_, None) => {}
        }
    }
    for name in found.topics.keys() {
        if !account.topics.contains_key(name) {
            complaints.push(format!("{name} is there, and nobody created it"));
        }
    }
    for ((group, place), commit) in &account.commits {
        let committed = found.commits.get(&(group.clone(), place.clone())).copied();
        if committed != commit.acknowledged && (committed.is_none() || committed != commit.pending)
        {
            complaints.push(format!(
                "{group} {place:?}: {commit:?}, but found {committed:?}"
            ));
        }
    }
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

fn judge_topic(
    complaints: &mut Vec<String>,
    account: &Account,
    (name, topic): (&String, &Topic),
    found: &FoundTopic,
    os_as_fsync: bool,
) {
    let (wanted, there) = (topic.partitions.len(), found.partitions.len());
    if wanted != there {
        complaints.push(format!("{name} has {there} partitions, not {wanted}"));
        return;
    }
    if topic.kind != found.kind && topic.switching != Some(found.kind) {
        let (kind, switching) = (topic.kind, topic.switching);
        complaints.push(format!(
            "{name} is {:?}, not {kind:?}; switching: {switching:?}",
            found.kind
        ));
    }
    // While a topic is switched, its new records are as safe as those of an os topic.
    let all_survive = os_as_fsync || (topic.kind == Kind::Fsync && topic.switching.is_none());
    for (number, (known, found)) in topic.partitions.iter().zip(&found.partitions).enumerate() {
        let mut complain = |text: String| complaints.push(format!("{name}/{number}: {text}"));
        judge_partition(&mut complain, all_survive, known, found);
        judge_order(&mut complain, account, number, found);
    }
}

fn judge_partition(
    complain: &mut impl FnMut(String),
    all_survive: bool,
    known: &Partition,
    found: &FoundPartition,
) {
    if !(known.trimmed..=known.trimming.max(known.trimmed)).contains(&found.log_start) {
        complain(format!(
            "starts at {}; trimmed to {}, asked for {}",
            found.log_start, known.trimmed, known.trimming
        ));
    }
    let (mut lost, mut lost_durable) = (0_u64, 0_u64);
    for (offset, id) in known.known.range(found.log_start..) {
        let index = usize::try_from(offset - found.log_start).unwrap_or(usize::MAX);
        match found.records.get(index) {
            Some(there) if there == id => {}
            Some(there) => complain(format!("at {offset} {there:?}, where {id:?} was known")),
            None => {
                lost += 1;
                lost_durable += u64::from(all_survive || *offset < known.durable_to);
            }
        }
    }
    if lost_durable > 0 {
        complain(format!(
            "{lost_durable} records are lost; the log ends at {}",
            found.end()
        ));
    }
    if found.epoch < known.epoch || (lost > 0 && found.epoch == known.epoch) {
        complain(format!(
            "leader epoch {} after {}, {lost} known records cut",
            found.epoch, known.epoch
        ));
    }
}

/// Each writer's records follow each other without a gap; the first is the first sent unless the log
/// was trimmed.
fn judge_order(
    complain: &mut impl FnMut(String),
    account: &Account,
    number: usize,
    found: &FoundPartition,
) {
    let mut next = BTreeMap::<u32, u32>::new();
    for (index, id) in found.records.iter().enumerate() {
        let offset = found.log_start + index as u64;
        let expected = match next.get(&id.writer) {
            Some(expected) => *expected,
            None if found.log_start == 0 => 0,
            None => id.sequence,
        };
        if id.sequence != expected {
            let sent = account
                .writers()
                .get(id.writer as usize)
                .and_then(|writer| writer.sent.get(number));
            complain(format!(
                "at {offset} {id:?} of {sent:?}, expected its number {expected}"
            ));
        }
        next.insert(id.writer, id.sequence + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Place, RecordId};

    const TOPIC: &str = "t";

    /// A topic with ten records of one writer, acknowledged at offsets 0 to 10, and what is found when
    /// nothing is lost.
    fn acknowledged(kind: Kind) -> (Account, Found) {
        let mut account = Account::default();
        account.creating(TOPIC, kind, 1);
        account.exists(TOPIC, Existence::There);
        let writer = account.writer(TOPIC, 20..50);
        let records: Vec<RecordId> = (0..10).map(|_| account.send(writer, 0)).collect();
        for (offset, id) in (0..).zip(&records) {
            account.acknowledged(TOPIC, 0, offset, *id);
        }
        let partition = FoundPartition {
            epoch: 1,
            log_start: 0,
            records,
        };
        let topic = FoundTopic {
            kind,
            partitions: vec![partition],
        };
        let found = Found {
            topics: [(TOPIC.to_owned(), topic)].into(),
            ..Found::default()
        };
        (account, found)
    }

    fn partition(found: &mut Found) -> &mut FoundPartition {
        let topic = found.topics.get_mut(TOPIC).expect("it is there");
        &mut topic.partitions[0]
    }

    fn complaint(account: &Account, found: &Found) -> String {
        judge(account, found, false).join("; ")
    }

    #[test]
    fn an_acknowledged_record_of_an_fsync_topic_must_be_there_and_of_an_os_topic_need_not() {
        let (account, mut found) = acknowledged(Kind::Fsync);
        assert_eq!(complaint(&account, &found), "");
        partition(&mut found).records.pop();
        assert_eq!(
            complaint(&account, &found),
            "t/0: 1 records are lost; the log ends at 9"
        );
        let (account, mut found) = acknowledged(Kind::Os);
        partition(&mut found).records.pop();
        assert_eq!(complaint(&account, &found), "");
        let strictly = judge(&account, &found, true);
        assert_eq!(strictly, ["t/0: 1 records are lost; the log ends at 9"]);
    }

    #[test]
    fn records_may_not_change_places_nor_appear_twice_nor_be_left_out() {
        let (account, mut found) = acknowledged(Kind::Os);
        partition(&mut found).records.swap(3, 4);
        assert!(complaint(&account, &found).contains("at 3 RecordId"));
        let (account, mut found) = acknowledged(Kind::Os);
        partition(&mut found).records.remove(3);
        assert!(complaint(&account, &found).contains("expected its number 3"));
        let (account, mut found) = acknowledged(Kind::Os);
        let first = partition(&mut found).records[0];
        partition(&mut found).records.push(first);
        assert!(complaint(&account, &found).contains("expected its number 10"));
    }

    #[test]
    fn an_os_topic_that_lost_records_has_a_higher_leader_epoch() {
        let (mut account, mut found) = acknowledged(Kind::Os);
        account.settle(&found);
        let writer = account.writer(TOPIC, 20..50);
        let id = account.send(writer, 0);
        account.acknowledged(TOPIC, 0, 10, id);
        assert_eq!(
            complaint(&account, &found),
            "t/0: leader epoch 1 after 1, 1 known records cut"
        );
        partition(&mut found).epoch = 2;
        assert_eq!(complaint(&account, &found), "");
    }

    #[test]
    fn what_was_found_once_survives_every_later_cut() {
        let (mut account, mut found) = acknowledged(Kind::Os);
        account.settle(&found);
        partition(&mut found).records.pop();
        partition(&mut found).epoch = 2;
        assert!(complaint(&account, &found).contains("1 records are lost"));
    }

    #[test]
    fn what_an_fsync_topic_acknowledged_survives_its_switch_to_os() {
        let (mut account, mut found) = acknowledged(Kind::Fsync);
        account.switching(TOPIC, Kind::Os);
        account.switched(TOPIC);
        let writer = account.writer(TOPIC, 20..50);
        let id = account.send(writer, 0);
        account.acknowledged(TOPIC, 0, 10, id);
        assert!(complaint(&account, &found).contains("t is Fsync, not Os"));
        found.topics.get_mut(TOPIC).expect("it is there").kind = Kind::Os;
        assert_eq!(complaint(&account, &found), "");
        partition(&mut found).records.pop();
        assert!(complaint(&account, &found).contains("1 records are lost"));
    }

    #[test]
    fn topics_are_there_or_gone_as_was_said_and_either_way_while_nothing_was_said() {
        let (mut account, found) = acknowledged(Kind::Fsync);
        let nothing = Found::default();
        assert_eq!(
            complaint(&account, &nothing),
            "t was created and is not there"
        );
        account.deleting(TOPIC);
        assert_eq!(complaint(&account, &nothing), "");
        assert_eq!(complaint(&account, &found), "");
        account.exists(TOPIC, Existence::Gone);
        assert_eq!(complaint(&account, &found), "t was deleted and is there");
        assert_eq!(
            complaint(&Account::default(), &found),
            "t is there, and nobody created it"
        );
    }

    #[test]
    fn a_log_starts_between_what_was_trimmed_and_what_was_asked_for() {
        for (start, is_right) in [(0, false), (4, true), (5, true), (6, true), (7, false)] {
            let (mut account, mut found) = acknowledged(Kind::Fsync);
            account.trimming(TOPIC, 0, 4);
            account.trimmed(TOPIC, 0, 4);
            account.trimming(TOPIC, 0, 6);
            let partition = partition(&mut found);
            partition.log_start = start;
            partition
                .records
                .drain(..usize::try_from(start).expect("it is small"));
            assert_eq!(complaint(&account, &found).is_empty(), is_right, "{start}");
        }
    }

    #[test]
    fn a_group_has_the_offset_that_was_acknowledged_or_the_one_sent_after_it() {
        let place = Place {
            topic: TOPIC.to_owned(),
            partition: 0,
        };
        let key = ("g".to_owned(), place.clone());
        let (mut account, mut found) = acknowledged(Kind::Fsync);
        account.committing("g", &place, 3);
        assert_eq!(complaint(&account, &found), "");
        account.committed("g", &place);
        assert!(!complaint(&account, &found).is_empty());
        account.committing("g", &place, 5);
        for (offset, is_right) in [(3, true), (4, false), (5, true)] {
            found.commits.insert(key.clone(), offset);
            assert_eq!(complaint(&account, &found).is_empty(), is_right, "{offset}");
        }
    }

    #[test]
    fn nothing_counts_that_was_told_after_the_cut() {
        let (mut account, mut found) = acknowledged(Kind::Fsync);
        let writer = account.writer(TOPIC, 20..50);
        let id = account.send(writer, 0);
        account.close();
        account.acknowledged(TOPIC, 0, 10, id);
        account.trimmed(TOPIC, 0, 5);
        account.exists(TOPIC, Existence::Gone);
        assert_eq!(complaint(&account, &found), "");
        partition(&mut found).records.push(id);
        assert_eq!(complaint(&account, &found), "");
    }

    #[test]
    fn a_value_tells_whose_it_is_and_any_changed_byte_is_noticed() {
        let (account, _) = acknowledged(Kind::Fsync);
        let id = RecordId {
            writer: 0,
            sequence: 9,
        };
        let value = crate::account::value_of(id, 0, &(20..50));
        assert_eq!(account.identify(TOPIC, 0, &value), Ok(id));
        for position in 0..value.len() {
            let mut changed = value.to_vec();
            changed[position] ^= 1;
            assert!(
                account.identify(TOPIC, 0, &changed) != Ok(id),
                "byte {position}"
            );
        }
        assert!(account.identify(TOPIC, 1, &value).is_err());
        assert!(account.identify("u", 0, &value).is_err());
    }
}
