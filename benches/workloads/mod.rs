//! The hot paths as work that can be repeated: [`time.rs`](../time.rs) times it, and
//! [`instructions.rs`](../instructions.rs) counts its instructions. What it works on is the same each time.

mod group;
mod log;
mod record;
mod wire;

// The one of the binary that is shipped: what it takes is part of nearly all of this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something that a broker does often.
pub(crate) struct Workload {
    /// What it is: a group, and what it is in the group behind the last slash.
    pub(crate) name: &'static str,
    /// What one run gets done.
    pub(crate) done: Done,
    /// Prepares it.
    pub(crate) prepare: fn() -> Box<dyn Work>,
}

/// An amount of work.
#[derive(Clone, Copy)]
pub(crate) enum Done {
    Bytes(usize),
    Events(usize),
}

/// Work that is ready to be done, again and again.
pub(crate) trait Work {
    /// Does it once. What it makes it also drops.
    fn run(&mut self);

    /// What has to be done between two runs and is not measured.
    fn settle(&mut self) {}
}

impl<F: FnMut()> Work for F {
    fn run(&mut self) {
        self();
    }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Workload> {
    [
        record::WORKLOADS,
        log::WORKLOADS,
        wire::WORKLOADS,
        group::WORKLOADS,
    ]
    .into_iter()
    .flatten()
}
