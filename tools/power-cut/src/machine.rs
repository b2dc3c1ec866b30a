//! A machine that can lose its power: a disk with a volatile cache, ext4 on it, and a broker on that.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    Failure,
    cache::{Cache, Contents},
    fs::{Disk, Shelf},
};

/// ext4 wants some for its journal; a chain of cuts fills less than half of it.
const DISK_BYTES: u64 = 768 << 20;
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// Small files, so that a short run turns the journal over, checkpoints and rolls many times.
const SETS: &[&str] = &[
    "storage.journal_file_bytes=1048576",
    "storage.journal_files=3",
    "storage.ballast_bytes=1048576",
    "storage.os_checkpoint_interval_ms=200",
    "storage.os_checkpoint_bytes=1048576",
];

/// What the machines of a run share: the binary, a folder for everything, an empty ext4.
pub(crate) struct Workshop {
    shelf: Shelf,
    scratch: TempDir,
    binary: PathBuf,
    empty: Contents,
    lies: bool,
    machines: AtomicU64,
}

impl Workshop {
    /// Needs root, FUSE and loop devices. With `lies`, the disks answer flushes and forget them.
    ///
    /// # Errors
    /// When something of that is missing.
    pub(crate) fn open(binary: &Path, lies: bool) -> Result<Arc<Self>, Failure> {
        let scratch = TempDir::with_prefix("sapwood-power-cut-")
            .map_err(|error| Failure::machine("a folder for the machines", error))?;
        let image = scratch.path().join("empty.img");
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        made.map_err(|error| Failure::machine("an image", error))?;
        let now = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        let mkfs = ["-q", "-F", "-b", "4096", "-m", "0", "-E", now];
        call(
            "mkfs.ext4",
            mkfs.map(Path::new).into_iter().chain([image.as_path()]),
        )?;
        let empty = Contents::load(&image).map_err(|error| Failure::machine("the image", error))?;
        // Left behind, it would only take space.
        let _ = fs::remove_file(&image);
        let shelf = scratch.path().join("disks");
        fs::create_dir(&shelf).map_err(|error| Failure::machine("a folder for disks", error))?;
        Ok(Arc::new(Self {
            shelf: Shelf::mount(&shelf)
                .map_err(|error| Failure::machine("mounting FUSE", error))?,
            scratch,
            binary: binary.to_owned(),
            empty,
            lies,
            machines: AtomicU64::new(0),
        }))
    }

    /// A disk on which nothing but an empty file system is.
    pub(crate) fn empty(&self) -> Contents {
        self.empty.clone()
    }

    /// Writes a disk to a file.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn save(&self, contents: &Contents, path: &Path) -> Result<(), Failure> {
        let saved = contents.save(path, DISK_BYTES);
        saved.map_err(|error| Failure::machine(path.display(), error))
    }
}

/// A disk that is mounted since the last boot. The broker on it must be gone before it is dropped.
pub(crate) struct Machine {
    workshop: Arc<Workshop>,
    image: PathBuf,
    disk: Disk,
    device: PathBuf,
    mounted: PathBuf,
    boot_id: PathBuf,
    log: PathBuf,
    is_on: bool,
}

impl Machine {
    /// Boots on a disk: ext4 replays its journal, and the boot id is one that never was.
    ///
    /// # Errors
    /// When the disk cannot be mounted.
    pub(crate) fn boot(
        workshop: &Arc<Workshop>,
        contents: Contents,
        mount_options: &str,
    ) -> Result<Self, Failure> {
        let number = workshop.machines.fetch_add(1, Ordering::Relaxed);
        let folder = workshop.scratch.path().join(format!("machine-{number}"));
        let mounted = folder.join("disk");
        fs::create_dir_all(&mounted).map_err(|error| Failure::machine("a folder", error))?;
        let boot_id = folder.join("boot_id");
        fs::write(&boot_id, format!("00000000-0000-4000-8000-{number:012}\n"))
            .map_err(|error| Failure::machine("the boot id", error))?;
        let (image, disk) = workshop
            .shelf
            .put(Cache::new(contents, DISK_BYTES, workshop.lies));
        let mut machine = Self {
            workshop: workshop.clone(),
            image,
            disk,
            device: PathBuf::new(),
            mounted,
            boot_id,
            log: folder.join("broker.log"),
            is_on: true,
        };
        let attach = ["--find", "--show", "--direct-io=on"].map(Path::new);
        let device = call(
            "losetup",
            attach.into_iter().chain([machine.image.as_path()]),
        )?;
        machine.device = PathBuf::from(device.trim());
        let mount = ["-t", "ext4", "-o", mount_options].map(Path::new);
        let places = [machine.device.as_path(), machine.mounted.as_path()];
        let done = call("mount", mount.into_iter().chain(places));
        // From now on the device goes when it is unmounted, whoever does that.
        call("losetup", [Path::new("--detach"), &machine.device])?;
        done.map_err(|failure| Failure::Broken(format!("ext4 does not mount: {failure}")))?;
        Ok(machine)
    }

    /// The disk, to cut it.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Asks the file system to write out everything. Blocks until that is done.
    pub(crate) fn write_out(mounted: &Path) {
        let synced = File::open(mounted).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        if let Err(error) = synced {
            eprintln!("{}: {error}", mounted.display());
        }
    }

    /// Where the file system is mounted.
    pub(crate) fn mounted(&self) -> &Path {
        &self.mounted
    }

    /// What the brokers of this machine logged.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the broker and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&self) -> Result<Broker, Failure> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| Failure::machine("the broker's log", error))?;
        // The broker is not to outlive this process, whatever ends it.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.workshop.binary);
        command.args(["dev", "-o", "json", "--listen", "127.0.0.1:0"]);
        command.args(["--http-listen", "127.0.0.1:0", "--data-dir"]);
        command
            .arg(self.data_dir())
            .arg("--set")
            .arg(self.boot_id_set());
        for set in SETS {
            command.args(["--set", set]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let child = child.map_err(|error| Failure::machine("starting the broker", error))?;
        Ok(Broker {
            child,
            started: Instant::now(),
            stdout: None,
        })
    }

    /// `storage verify` on a directory whose broker has stopped.
    ///
    /// # Errors
    /// When it finds something.
    pub(crate) fn verify(&self) -> Result<(), Failure> {
        let run = Command::new(&self.workshop.binary)
            .args(["storage", "verify", "--data-dir"])
            .arg(self.data_dir())
            .arg("--boot-id-file")
            .arg(&self.boot_id)
            .output()
            .map_err(|error| Failure::machine("storage verify", error))?;
        if run.status.success() {
            return Ok(());
        }
        let stdout = String::from_utf8_lossy(&run.stdout);
        let stderr = String::from_utf8_lossy(&run.stderr);
        let text = format!("storage verify: {}\n{stdout}{stderr}", run.status);
        Err(Failure::Broken(text))
    }

    /// Unmounts. What is written by that goes nowhere but to this machine's disk, which is then gone.
    ///
    /// # Errors
    /// When the disk stays busy.
    pub(crate) fn power_off(mut self) -> Result<(), Failure> {
        let started = Instant::now();
        loop {
            match call("umount", [self.mounted.as_path()]) {
                Ok(_) => break,
                Err(failure) if started.elapsed() > UNMOUNT_TIMEOUT => return Err(failure),
                // A process that just died lets go of its files a moment later.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        self.is_on = false;
        self.workshop.shelf.remove(&self.image);
        Ok(())
    }

    fn data_dir(&self) -> PathBuf {
        self.mounted.join("data")
    }

    fn boot_id_set(&self) -> String {
        format!("storage.boot_id_file={}", self.boot_id.display())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.is_on {
            // Something failed before. Nobody is told of another failure.
            let _ = call("umount", [Path::new("--lazy"), &self.mounted]);
        }
    }
}

/// A running process. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    started: Instant,
    /// Kept open: the broker must be able to write to it.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Broker {
    /// Waits until the broker is ready; says how long that took from its start, and its address.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub(crate) fn ready(&mut self) -> Result<(Duration, String), Failure> {
        let stdout = self.child.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::machine("the broker", "nothing to read"))?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let read = stdout.read_line(&mut line).map(|_| line);
            // Nobody listens after the time limit.
            let _ = sender.send((read, stdout));
        });
        let line = receiver.recv_timeout(READY_TIMEOUT);
        let took = self.started.elapsed();
        let (line, stdout) =
            line.map_err(|_| Failure::Broken(format!("not ready within {READY_TIMEOUT:?}")))?;
        self.stdout = Some(stdout);
        let line = line.map_err(|error| Failure::machine("the ready line", error))?;
        let ready: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = ready.as_ref().and_then(|ready| ready["listen"].as_str());
        let Some(address) = address else {
            return Err(Failure::Broken(format!(
                "the broker does not start: {line:?}"
            )));
        };
        Ok((took, address.to_owned()))
    }

    /// Whether the process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and waits for the drain.
    ///
    /// # Errors
    /// When it hangs or does not end with code 0.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.map(|pid| kill_process(pid, Signal::TERM));
        if !matches!(told, Some(Ok(()))) {
            return Err(Failure::Broken(
                "the broker is not there any more".to_owned(),
            ));
        }
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::Broken(format!("the broker ended with {status}")));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(Failure::machine("the broker", error)),
            }
        }
        Err(Failure::Broken(format!(
            "it does not stop within {STOP_TIMEOUT:?}"
        )))
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program and gives what it printed.
fn call<'a>(program: &str, args: impl IntoIterator<Item = &'a Path>) -> Result<String, Failure> {
    let args: Vec<&Path> = args.into_iter().collect();
    let run = Command::new(program)
        .args(&args)
        .stdin(Stdio::null())
        .output();
    let run = run.map_err(|error| Failure::machine(program, error))?;
    if run.status.success() {
        return Ok(String::from_utf8_lossy(&run.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&run.stderr).trim().to_owned();
    Err(Failure::machine(format!("{program} {args:?}"), why))
}
