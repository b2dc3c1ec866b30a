//! Groups on a disk that fails, and on one that stops at every sync: what was answered is there.

use sapwood_broker::{
    Broker, TopicInfo,
    group::{Epoch, Presence},
};
use sapwood_model::Code;
use sapwood_sim::{Capture, Machine, Rng, WriteFault};

use crate::{
    group_changes::{beat, joins},
    groups::{commit, committed, loaded},
    support::{create, open_on},
};

/// What somebody was answered, when the disk had made so many steps.
struct Answers {
    commits: Vec<(u64, u64)>,
    epochs: Vec<(u64, Epoch)>,
    /// The last offset that anybody asked for.
    asked: u64,
}

impl Answers {
    /// What has to be there after so many steps: the least offset and the least epoch of member `m`.
    fn until(&self, step: u64) -> (u64, Epoch) {
        let commits = self.commits.iter().filter(|(at, _)| *at < step);
        let epochs = self.epochs.iter().filter(|(at, _)| *at < step);
        (
            commits.map(|(_, offset)| *offset).max().unwrap_or(0),
            epochs.map(|(_, epoch)| *epoch).max().unwrap_or_default(),
        )
    }
}

/// Commits, and members that come and go, one after the other. What is refused is refused.
async fn work(machine: &Machine, broker: &Broker, topic: &TopicInfo, rounds: u64) -> Answers {
    let groups = broker.groups();
    let mut answers = Answers {
        commits: Vec::new(),
        epochs: Vec::new(),
        asked: 0,
    };
    let mut presence = Presence::Join;
    for round in 1..=rounds {
        answers.asked = round;
        if groups.commit(commit("g", topic, round)).await.is_ok() {
            answers.commits.push((machine.disk.steps(), round));
        }
        let heartbeat = match presence {
            Presence::Join => joins("m", "m", topic),
            _ => beat("m", "m", presence),
        };
        if let Ok(beat) = groups.consumer_heartbeat(heartbeat).await
            && let Presence::Stay(epoch) = beat.presence
        {
            presence = beat.presence;
            answers.epochs.push((machine.disk.steps(), epoch));
        }
        let other = match round % 2 {
            1 => joins("m", "other", topic),
            _ => beat("m", "other", Presence::Leave),
        };
        // It changes the epoch of the first, if it can.
        let _ = groups.consumer_heartbeat(other).await;
    }
    answers
}

/// Starts the machine again, and looks for what has to be there.
async fn check(survivor: &Machine, answers: &Answers, step: u64, what: &str) {
    let opened = open_on(survivor, &survivor.disk.boot_id()).await;
    let broker = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(loaded(&broker).await.failed, 0, "{what}");
    let (offset, epoch) = answers.until(step);
    let there = committed(&broker, "g").await;
    let there = there.first().map_or(0, |(_, offset)| *offset);
    assert!(
        (offset..=answers.asked).contains(&there),
        "{what}: {offset} was answered, {there} is there"
    );
    let group = broker.groups().describe_consumer("m".into()).await.unwrap();
    let mut members = group.iter().flat_map(|group| &group.members);
    let member = members.find(|member| member.member_id.as_str() == "m");
    let there = member.and_then(|member| member.current.member_epoch);
    assert!(
        there.unwrap_or_default() >= epoch,
        "{what}: epoch {epoch} was answered, {there:?} is there"
    );
}

async fn start(machine: &Machine) -> (Broker, TopicInfo) {
    let broker = open_on(machine, &machine.disk.boot_id()).await.unwrap();
    let topic = create(&broker, "t", &[]).await;
    broker.groups().prepare().await.unwrap();
    loaded(&broker).await;
    (broker, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_was_answered_is_there_whenever_the_process_or_the_power_goes() {
    let machine = Machine::new(11);
    let (broker, topic) = start(&machine).await;
    machine.disk.capture(Some(Capture::Syncs));
    let answers = work(&machine, &broker, &topic, 12).await;
    machine.disk.capture(None);
    assert_eq!(answers.commits.len(), 12);
    let mut rng = Rng::new(11);
    let captured = machine.disk.take_captured();
    assert!(captured.len() >= 24, "{} syncs", captured.len());
    for captured in captured {
        for cut in [false, true] {
            let survivor = Machine {
                disk: captured.disk.fork(),
                ..machine.fork()
            };
            match cut {
                false => survivor.disk.kill(),
                true => survivor.disk.power_cut(&mut rng),
            }
            let what = format!("step {}, power cut: {cut}", captured.step);
            check(&survivor, &answers, captured.step, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_was_answered_is_there_though_a_sync_has_failed() {
    let mut rng = Rng::new(12);
    let mut failed = 0;
    for sync in 1..=16 {
        let machine = Machine::new(sync);
        let (broker, topic) = start(&machine).await;
        machine.disk.fail_sync(machine.disk.syncs() + sync);
        let answers = work(&machine, &broker, &topic, 8).await;
        failed += u64::from(answers.commits.len() < 8);
        let survivor = machine.fork();
        survivor.disk.power_cut(&mut rng);
        check(&survivor, &answers, u64::MAX, &format!("sync {sync}")).await;
    }
    assert!(failed > 8, "only {failed} failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_unharmed_by_an_append_that_fails_and_answers_what_is_there() {
    let mut rng = Rng::new(13);
    for step in (1..=60).step_by(4) {
        let machine = Machine::new(step);
        let (broker, topic) = start(&machine).await;
        let at = machine.disk.steps() + step;
        machine.disk.fail_step(at, WriteFault::NoSpace);
        let answers = work(&machine, &broker, &topic, 8).await;
        match broker.groups().commit(commit("g", &topic, 8)).await {
            Ok(_) => assert_eq!(committed(&broker, "g").await, [(topic.name.clone(), 8)]),
            // The journal or the segment is where it failed: until a restart nothing is served.
            Err(e) => assert_ne!(e.code(), Code::Internal, "{e}"),
        }
        let survivor = machine.fork();
        survivor.disk.power_cut(&mut rng);
        check(&survivor, &answers, u64::MAX, &format!("step {step}")).await;
    }
}
