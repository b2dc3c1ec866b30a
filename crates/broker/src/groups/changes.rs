//! Who wants to know when a group changes.

use std::{
    collections::{HashMap, hash_map},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use sapwood_group::GroupId;
use tokio::sync::watch;

use super::GroupCoordinator;

impl GroupCoordinator {
    /// Watches a group, which need not be there. What changes it from now on wakes the watcher: members
    /// that come, go or change; the generation or the group's epoch; the target assignment; what a
    /// member may own. Committed offsets do not.
    ///
    /// Watch first and look at the group afterwards: then nothing is missed in between. Topics that come
    /// and go change a group only when a member's next heartbeat notices them.
    ///
    /// Groups that nobody watches cost nothing; each watched one costs memory until its last watcher is
    /// dropped.
    pub fn changes(&self, group: &GroupId) -> GroupChanges {
        self.broker.core.groups.watchers.watch(group)
    }
}

/// Says when a group has changed. Made by [`GroupCoordinator::changes`].
#[derive(Debug)]
pub struct GroupChanges {
    group: GroupId,
    receiver: watch::Receiver<()>,
    watchers: Arc<Watchers>,
}

impl GroupChanges {
    /// Returns when the group has changed since the last return, or since the watch began; several
    /// changes may be one return. The change may not be durable yet: whoever looks at the group waits
    /// until it is. A broker that closes changes no group: who waits here watches its status as well.
    ///
    /// A caller that gives up misses nothing.
    pub async fn changed(&mut self) {
        let changed = self.receiver.changed().await;
        changed.expect("the sender stays for as long as there are receivers");
    }
}

impl Drop for GroupChanges {
    fn drop(&mut self) {
        self.watchers.leave(&self.group);
    }
}

/// The groups that are watched.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// How many groups there are below, to be looked at without the lock.
    count: AtomicUsize,
    groups: Mutex<HashMap<GroupId, Watched>>,
}

#[derive(Debug)]
struct Watched {
    sender: Arc<watch::Sender<()>>,
    watchers: usize,
}

impl Watchers {
    /// Whether any group is watched. Who is told of a watch by the queue of a group's host sees it here.
    pub(super) fn are_any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Wakes those who watch a group.
    pub(super) fn tell(&self, group: &GroupId) {
        let sender = self
            .groups
            .lock()
            .get(group)
            .map(|watched| watched.sender.clone());
        // Not under the lock: many may have to be woken.
        if let Some(sender) = sender {
            sender.send_replace(());
        }
    }

    fn watch(self: &Arc<Self>, group: &GroupId) -> GroupChanges {
        let mut groups = self.groups.lock();
        let watched = groups.entry(group.clone()).or_insert_with(|| Watched {
            sender: Arc::new(watch::Sender::new(())),
            watchers: 0,
        });
        watched.watchers += 1;
        let receiver = watched.sender.subscribe();
        self.count.store(groups.len(), Ordering::Release);
        GroupChanges {
            group: group.clone(),
            receiver,
            watchers: self.clone(),
        }
    }

    fn leave(&self, group: &GroupId) {
        let mut groups = self.groups.lock();
        if let hash_map::Entry::Occupied(mut watched) = groups.entry(group.clone()) {
            watched.get_mut().watchers -= 1;
            if watched.get().watchers == 0 {
                watched.remove();
            }
        }
        self.count.store(groups.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn has_changed(changes: &mut GroupChanges) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(changes.changed()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn watchers_hear_of_their_group_once_and_leave_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let (one, other) = (GroupId::from("one"), GroupId::from("other"));
        assert!(!watchers.are_any());
        let mut first = watchers.watch(&one);
        let mut second = watchers.watch(&one);
        let mut third = watchers.watch(&other);
        assert!(watchers.are_any());
        watchers.tell(&one);
        watchers.tell(&one);
        let mut late = watchers.watch(&one);
        let heard = [&mut first, &mut second, &mut third, &mut late].map(has_changed);
        assert_eq!(heard, [true, true, false, false]);
        assert!(!has_changed(&mut first));
        drop((first, late));
        watchers.tell(&one);
        assert!(has_changed(&mut second));
        drop(second);
        assert_eq!(watchers.groups.lock().len(), 1);
        drop(third);
        assert!(watchers.groups.lock().is_empty() && !watchers.are_any());
        watchers.tell(&one);
    }
}
