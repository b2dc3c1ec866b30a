//! Load, cut, survivors, and again on one of the survivors.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sapwood_client::Client;
use tokio::runtime::Runtime;

use crate::{
    Args, Failure,
    account::{Account, Shared},
    cache::{Contents, Cut, Moment, Survival},
    found::{Found, read_all},
    judge::judge,
    load::{self, Load},
    machine::{Broker, Machine, Workshop},
    random::Random,
    tally::Tally,
};

/// After so many cuts a new chain begins with an empty disk, so that there is not too much to read.
const CHAIN_CUTS: u32 = 8;
/// How long a cut waits for its moment before it is taken anyway.
const MOMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Cuts during one recovery, at most.
const RECOVERY_CUTS_MAX: u32 = 3;
/// ext4 as it comes, mostly; with commits of its journal every second; with data that is not ordered
/// with the journal.
const MOUNT_OPTIONS: &[&str] = &["rw", "rw", "rw,commit=1", "rw,data=writeback"];

/// Makes the cuts, and prints a line for each and a table at the end.
///
/// # Errors
/// [`Failure::Broken`] when a promise was broken; the disk on which it was is kept.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0) % 1_000_000_007
    });
    println!(
        "power-cut --cuts {} --survivors {} --seed {seed}",
        args.cuts, args.survivors
    );
    let runtime = Runtime::new().map_err(|error| Failure::machine("the runtime", error))?;
    // Clients are made on this thread.
    let handle = runtime.handle().clone();
    let _entered = handle.enter();
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    let mut bench = Bench {
        args,
        workshop: Workshop::open(&args.bin, args.lying_disk)?,
        runtime,
        random: Random::new(seed, 0),
        tally: Tally::default(),
        interrupted,
    };
    let result = bench.run();
    print!("{}", bench.tally);
    match result {
        Err(_) if bench.interrupted.load(Ordering::Relaxed) => {
            Err(Failure::machine("stopped", "interrupted"))
        }
        result => result,
    }
}

/// Everything that outlives a cut.
struct Bench<'a> {
    args: &'a Args,
    workshop: Arc<Workshop>,
    runtime: Runtime,
    random: Random,
    tally: Tally,
    interrupted: Arc<AtomicBool>,
}

/// A broker at work, and what its clients were told.
struct Standing {
    // Dropped in this order when something fails.
    broker: Broker,
    machine: Machine,
    address: String,
    account: Account,
    origin: Origin,
}

/// The disk that a machine booted from, to be kept when a promise turns out to be broken.
#[derive(Clone)]
struct Origin {
    name: String,
    contents: Contents,
    log: Option<PathBuf>,
}

impl Bench<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut standing = None;
        for number in 1..=self.args.cuts {
            if number % CHAIN_CUTS == 1
                && let Some(standing) = standing.take()
            {
                self.finish(standing)?;
            }
            let begun = match standing.take() {
                Some(standing) => standing,
                None => self.begin()?,
            };
            let origin = begun.origin.clone();
            let cut = self.load_and_cut(number, begun);
            let (cut, account) = cut.map_err(|failure| self.keep(failure, &origin))?;
            standing = Some(self.survive(number, &cut, &account)?);
            println!("{}", self.tally.line());
        }
        standing.map_or(Ok(()), |standing| self.finish(standing))
    }

    /// A new disk, and a broker that has never run.
    fn begin(&mut self) -> Result<Standing, Failure> {
        let options = self.random.one_of(MOUNT_OPTIONS);
        let machine = Machine::boot(&self.workshop, self.workshop.empty(), options)?;
        let mut broker = machine.start()?;
        let (_, address) = broker.ready()?;
        let origin = Origin {
            name: "empty".to_owned(),
            contents: self.workshop.empty(),
            log: Some(machine.log().to_owned()),
        };
        Ok(Standing {
            broker,
            machine,
            address,
            account: Account::default(),
            origin,
        })
    }

    /// Lets programs work until the power goes.
    fn load_and_cut(&mut self, number: u32, standing: Standing) -> Result<(Cut, Account), Failure> {
        let Standing {
            mut broker,
            machine,
            address,
            account,
            ..
        } = standing;
        let account = Shared::new(account);
        let started = Instant::now();
        let load = Load::start(&address, &account, self.random.next())
            .map_err(|error| Failure::machine("the load", error))?;
        std::thread::sleep(Duration::from_millis(
            self.random.within(0..self.args.load_ms),
        ));
        let writes_out = self.random.one_in(3);
        let mounted = machine.mounted().to_owned();
        let writing = writes_out.then(|| std::thread::spawn(move || Machine::write_out(&mounted)));
        let moment = match self.random.within(0..3) {
            0 => None,
            1 => Some(Moment::Flush),
            _ => Some(Moment::Volatile(
                usize::try_from(self.random.within(1..300)).unwrap_or(1),
            )),
        };
        let closing = account.clone();
        let cut = cut_at(&machine, moment, MOMENT_TIMEOUT, move || {
            closing.lock().close()
        });
        let loaded = started.elapsed();
        let was_running = broker.is_running();
        drop(load);
        broker.kill();
        if let Some(writing) = writing {
            let _ = writing.join();
        }
        let flushes = machine.disk().lock().flushes();
        let log = std::fs::read_to_string(machine.log()).unwrap_or_default();
        machine.power_off()?;
        let account = account.lock().clone();
        if !was_running {
            return Err(Failure::Broken(format!(
                "the broker ended while the power was on:\n{}",
                tail(&log)
            )));
        }
        if !account.complaints().is_empty() {
            let text = account.complaints().join("\n");
            return Err(Failure::Broken(format!(
                "while the power was on: {text}\n{}",
                tail(&log)
            )));
        }
        let moment = match moment {
            None => "any",
            Some(Moment::Flush) => "flush",
            Some(Moment::Volatile(_)) => "writes",
        };
        self.tally.cut(
            number,
            moment,
            writes_out,
            (loaded, flushes),
            &cut,
            account.counts(),
        );
        Ok((cut, account))
    }

    /// Looks at the survivors of a cut, one after the other. One of them goes on.
    fn survive(&mut self, number: u32, cut: &Cut, account: &Account) -> Result<Standing, Failure> {
        let chosen = self.random.within(0..u64::from(self.args.survivors));
        let mut goes_on = None;
        for index in 0..self.args.survivors {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::machine("stopped", "interrupted"));
            }
            let survival = self.survival(number, index);
            let contents = cut.survivor(survival, &mut self.random);
            let standing = self.recover(
                survival,
                contents,
                account,
                format!("cut-{number}-survivor-{index}"),
            )?;
            if u64::from(index) == chosen {
                goes_on = Some(standing);
            } else {
                self.finish(standing)?;
            }
        }
        match goes_on {
            Some(standing) => self.carry_on(standing),
            None => Err(Failure::machine("no survivor", "a cut has at least one")),
        }
    }

    fn survival(&mut self, number: u32, index: u32) -> Survival {
        let subset = Survival::Subset(*self.random.one_of(&[1, 2, 4, 6, 7]));
        let part = self.random.within(1..8);
        match (index, self.random.within(0..4)) {
            (0, _) if number.is_multiple_of(2) => Survival::Nothing,
            (0, _) => Survival::Everything,
            (2, 0) => Survival::First(part),
            (2, 1) => Survival::Last(part),
            _ => subset,
        }
    }

    /// Boots on a survivor, sometimes cuts again while the broker recovers, and checks what it has then.
    fn recover(
        &mut self,
        survival: Survival,
        contents: Contents,
        account: &Account,
        name: String,
    ) -> Result<Standing, Failure> {
        let mut origin = Origin {
            name,
            contents,
            log: None,
        };
        let mut recovery_cuts = 0;
        while recovery_cuts < RECOVERY_CUTS_MAX && self.random.one_in(4) {
            recovery_cuts += 1;
            let left = self.cut_recovery(origin.contents.clone());
            origin.contents = left.map_err(|failure| self.keep(failure, &origin))?;
        }
        let options = self.random.one_of(MOUNT_OPTIONS);
        let machine = Machine::boot(&self.workshop, origin.contents.clone(), options)
            .map_err(|failure| self.keep(failure, &origin))?;
        origin.log = Some(machine.log().to_owned());
        let checked = self.check(machine, account, &origin);
        let (standing, took, found) = checked.map_err(|failure| self.keep(failure, &origin))?;
        self.tally.survivor(survival, took, recovery_cuts, &found);
        Ok(standing)
    }

    /// A recovery that does not come to its end, unless it is quick.
    fn cut_recovery(&mut self, contents: Contents) -> Result<Contents, Failure> {
        let options = self.random.one_of(MOUNT_OPTIONS);
        let machine = Machine::boot(&self.workshop, contents, options)?;
        let broker = machine.start()?;
        let moment = match self.random.within(0..2) {
            0 => None,
            _ => Some(Moment::Volatile(
                usize::try_from(self.random.within(1..100)).unwrap_or(1),
            )),
        };
        let limit = Duration::from_millis(self.random.within(1..300));
        if moment.is_none() {
            std::thread::sleep(limit);
        }
        let cut = cut_at(&machine, moment, limit, || ());
        broker.kill();
        machine.power_off()?;
        let survival = self.survival(0, 2);
        Ok(cut.survivor(survival, &mut self.random))
    }

    /// Starts a broker and holds what it has against the account, then writes to every topic.
    fn check(
        &mut self,
        machine: Machine,
        account: &Account,
        origin: &Origin,
    ) -> Result<(Standing, Duration, Found), Failure> {
        let mut broker = machine.start()?;
        let (took, address) = broker.ready()?;
        let client = client(&address)?;
        let found = self.runtime.block_on(read_all(&client, account))?;
        let complaints = judge(account, &found, self.args.judge_os_as_fsync);
        if !complaints.is_empty() {
            return Err(Failure::Broken(complaints.join("\n")));
        }
        let mut account = account.clone();
        account.settle(&found);
        let account = self.write_on(&client, account, &found)?;
        let standing = Standing {
            broker,
            machine,
            address,
            account,
            origin: origin.clone(),
        };
        Ok((standing, took, found))
    }

    /// New records go behind those that were found.
    fn write_on(
        &mut self,
        client: &Client,
        account: Account,
        found: &Found,
    ) -> Result<Account, Failure> {
        let account = Shared::new(account);
        for (name, topic) in &found.topics {
            let count = topic.partitions.len() as u64;
            let number = usize::try_from(self.random.within(0..count)).unwrap_or_default();
            let writer = load::single_writer(&account, name);
            let place = (name.as_str(), u32::try_from(number).unwrap_or_default());
            let written = load::append(client, &account, place, writer, &mut self.random);
            let base = self
                .runtime
                .block_on(written)
                .map_err(|error| Failure::broken(format!("writing to {name}/{number}"), error))?;
            let end = topic.partitions[number].end();
            if base.0 != end {
                return Err(Failure::Broken(format!(
                    "{name}/{number} ends at {end}, and the next record is at {base}"
                )));
            }
        }
        let account = account.lock().clone();
        Ok(account)
    }

    /// Stops a broker and checks its directory.
    fn finish(&mut self, standing: Standing) -> Result<(), Failure> {
        let origin = standing.origin.clone();
        let stopped = standing.broker.stop();
        let verified = stopped.and_then(|()| standing.machine.verify());
        verified.map_err(|failure| self.keep(failure, &origin))?;
        standing.machine.power_off()
    }

    /// The broker that goes on: as it is, or started again after a clean stop, or after kill -9, which
    /// may lose nothing, of os topics neither.
    fn carry_on(&mut self, mut standing: Standing) -> Result<Standing, Failure> {
        let is_stopped = match self.random.within(0..3) {
            0 => return Ok(standing),
            1 => true,
            _ => false,
        };
        let origin = standing.origin.clone();
        standing = self
            .restart(standing, is_stopped)
            .map_err(|failure| self.keep(failure, &origin))?;
        Ok(standing)
    }

    fn restart(&mut self, standing: Standing, is_stopped: bool) -> Result<Standing, Failure> {
        let Standing {
            broker,
            machine,
            mut account,
            origin,
            ..
        } = standing;
        if is_stopped {
            broker.stop()?;
            machine.verify()?;
        } else {
            broker.kill();
        }
        let mut broker = machine.start()?;
        let (_, address) = broker.ready()?;
        let client = client(&address)?;
        let found = self.runtime.block_on(read_all(&client, &account))?;
        let complaints = judge(&account, &found, true);
        if !complaints.is_empty() {
            let complaints = complaints.join("\n");
            let text = format!("after a restart with the power on: {complaints}");
            return Err(Failure::Broken(text));
        }
        account.settle(&found);
        self.tally.restart(is_stopped);
        Ok(Standing {
            broker,
            machine,
            address,
            account,
            origin,
        })
    }

    /// Keeps the disk on which a promise was broken, and says how to look at it.
    fn keep(&self, failure: Failure, origin: &Origin) -> Failure {
        let Failure::Broken(text) = failure else {
            return failure;
        };
        let folder = &self.args.keep;
        let image = folder.join(format!("{}.img", origin.name));
        let kept = std::fs::create_dir_all(folder)
            .map_err(|error| Failure::machine(folder.display(), error))
            .and_then(|()| self.workshop.save(&origin.contents, &image));
        if let Err(error) = kept {
            return Failure::Broken(format!("{text}\nits disk is not kept: {error}"));
        }
        if let Some(log) = &origin.log {
            // The image says more than the log; without it the rest still holds.
            let _ = std::fs::copy(log, folder.join(format!("{}.log", origin.name)));
        }
        let image = image.display();
        Failure::Broken(format!(
            "{text}\nThe times of threads do not come again with a seed; the disk is {image}, as it was \
             when the machine booted. On a copy of it: mount -o loop COPY DIR; echo another >ID; \
             {} dev --data-dir DIR/data --set storage.boot_id_file=ID",
            self.args.bin.display()
        ))
    }
}

/// Cuts at a moment, or when the limit is over; now if there is no moment. `before` is called just
/// before, while the disk stands still.
fn cut_at(
    machine: &Machine,
    moment: Option<Moment>,
    limit: Duration,
    before: impl FnOnce() + Send + 'static,
) -> Cut {
    let started = Instant::now();
    machine.disk().lock().arm(
        moment.unwrap_or(Moment::Volatile(usize::MAX)),
        Box::new(before),
    );
    loop {
        let is_over = moment.is_none() || started.elapsed() >= limit;
        let mut cache = machine.disk().lock();
        if let Some(cut) = cache.taken() {
            return cut;
        }
        if is_over {
            return cache.cut_now();
        }
        drop(cache);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Must be called in a runtime.
fn client(address: &str) -> Result<Client, Failure> {
    Client::new(address).map_err(|error| Failure::machine("the client", error))
}

fn tail(log: &str) -> &str {
    let mut at = log.len().saturating_sub(4096);
    while !log.is_char_boundary(at) {
        at += 1;
    }
    &log[at..]
}
