//! Files that are cut under their mapping. The signal handler is for the whole process, so these tests
//! have a binary of their own, and those that end a process run in a child.
#![allow(clippy::unwrap_used)] // clippy knows test functions, not their helpers

use std::env;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use sapwood_log::install_sigbus_handler;
use sapwood_log::io::{Disk, File, OpenMode, RealDisk, TailKind, TailReader, TailWriter};
use tempfile::TempDir;

const SIZE: u64 = 64 * 4096;
const SIGBUS: i32 = 7;
const SIGABRT: i32 = 6;

struct Tail {
    file: Arc<dyn File>,
    writer: Box<dyn TailWriter>,
    reader: Arc<dyn TailReader>,
}

/// A mapped tail whose first half is published.
fn tail(dir: &TempDir, name: &str) -> Tail {
    let file = RealDisk
        .open(&dir.path().join(name), OpenMode::CreateNew)
        .unwrap();
    file.allocate(0..SIZE).unwrap();
    let (mut writer, reader) = file.tail(TailKind::Mmap, SIZE, 0).unwrap();
    writer.write(4, &[&[7; SIZE as usize / 2 - 4]]).unwrap();
    writer.publish(0, [7; 4], SIZE / 2).unwrap();
    Tail {
        file,
        writer,
        reader,
    }
}

fn is_poisoned<T>(outcome: io::Result<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

#[test]
fn a_store_into_a_file_that_was_cut_is_an_error_and_other_mappings_go_on() {
    install_sigbus_handler();
    install_sigbus_handler(); // a second call does nothing
    let dir = TempDir::new().unwrap();
    let mut cut = tail(&dir, "cut");
    let mut other = tail(&dir, "other");
    cut.file.set_len(0).unwrap();
    assert!(
        is_poisoned(cut.writer.write(SIZE / 2, &[&[1; 3 * 4096]])),
        "the bytes went nowhere"
    );
    assert!(
        is_poisoned(cut.writer.write(SIZE / 2, &[b"x"])),
        "and it stays so"
    );
    assert!(is_poisoned(cut.writer.publish(SIZE / 2, [1; 4], SIZE)));
    assert!(is_poisoned(cut.reader.bytes(0..10)));
    assert_eq!(cut.reader.end(), SIZE / 2);
    other.writer.write(SIZE / 2, &[b"fine"]).unwrap();
    assert_eq!(other.reader.bytes(0..1).unwrap().as_ref(), [7]);
}

#[test]
fn a_long_write_into_a_file_that_was_cut_is_an_error_wherever_it_goes() {
    install_sigbus_handler();
    const LONG: u64 = 4 << 20; // the first half is written, the second stored
    for position in [1 << 20, 3 << 20] {
        let dir = TempDir::new().unwrap();
        let file = RealDisk
            .open(&dir.path().join("cut"), OpenMode::CreateNew)
            .unwrap();
        file.allocate(0..LONG).unwrap();
        let (mut writer, reader) = file.tail(TailKind::Mmap, LONG, position).unwrap();
        file.set_len(position).unwrap();
        assert!(is_poisoned(writer.write(position + 4, &[&[1; 64 << 10]])));
        assert!(is_poisoned(writer.publish(position, [1; 4], LONG)));
        assert!(is_poisoned(reader.bytes(0..1)));
        assert_eq!(file.len().unwrap(), position, "nothing was put there");
    }
}

#[test]
fn publishing_into_a_file_that_was_cut_publishes_nothing() {
    install_sigbus_handler();
    let dir = TempDir::new().unwrap();
    let mut cut = tail(&dir, "cut");
    cut.file.set_len(0).unwrap();
    assert!(is_poisoned(cut.writer.publish(
        SIZE / 2,
        [1; 4],
        SIZE / 2 + 4
    )));
    assert_eq!(cut.reader.end(), SIZE / 2);
}

#[test]
fn a_load_from_a_file_that_was_cut_finds_zeros_and_the_next_read_an_error() {
    install_sigbus_handler();
    let dir = TempDir::new().unwrap();
    let cut = tail(&dir, "cut");
    let bytes = cut.reader.bytes(0..SIZE / 2).unwrap();
    cut.file.set_len(5000).unwrap();
    assert_eq!(bytes[..5000], [7; 5000]);
    assert!(bytes[8192..].iter().all(|byte| *byte == 0));
    assert!(is_poisoned(cut.reader.bytes(0..1)));
    let fresh = tail(&dir, "fresh");
    drop(cut);
    drop(bytes);
    // The slot of a poisoned mapping starts afresh for the next one.
    let mut reused = tail(&dir, "reused");
    reused.writer.write(SIZE / 2, &[b"x"]).unwrap();
    assert_eq!(fresh.reader.bytes(0..1).unwrap().as_ref(), [7]);
}

#[test]
fn many_threads_may_run_into_holes_at_once() {
    install_sigbus_handler();
    let dir = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for round in 0..50 {
                    let mut cut = tail(dir, &format!("{thread}-{round}"));
                    let bytes = cut.reader.bytes(0..SIZE / 2).unwrap();
                    cut.file.set_len(0).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    assert!(is_poisoned(cut.writer.write(SIZE / 2, &[b"x"])));
                }
            });
        }
    });
}

/// Runs one of the tests below in a process of its own.
fn in_child(test: &str) -> ExitStatus {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
        .status
}

#[test]
fn a_sigbus_that_is_not_ours_goes_where_it_went_before() {
    let status = in_child("child_is_sent_a_sigbus");
    assert_eq!(status.signal(), Some(SIGBUS), "{status}");
    let status = in_child("child_has_a_handler_of_its_own");
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
}

#[test]
fn without_the_handler_a_cut_file_kills() {
    let status = in_child("child_stores_without_the_handler");
    assert_eq!(status.signal(), Some(SIGBUS), "{status}");
}

#[test]
#[ignore = "run in a child process by another test"]
fn child_stores_without_the_handler() {
    let dir = TempDir::new().unwrap();
    let mut cut = tail(&dir, "cut");
    cut.file.set_len(0).unwrap();
    let _ = cut.writer.write(SIZE / 2, &[b"x"]);
}

#[test]
#[ignore = "run in a child process by another test"]
fn child_is_sent_a_sigbus() {
    install_sigbus_handler();
    // What was there before is Rust's own handler, which restores the default action and returns from
    // a signal that is no stack overflow.
    kill_self();
    kill_self();
}

#[test]
#[ignore = "run in a child process by another test"]
fn child_has_a_handler_of_its_own() {
    install_abort_on_sigbus();
    install_sigbus_handler();
    // A hole in one of our mappings is ours...
    let dir = TempDir::new().unwrap();
    let mut cut = tail(&dir, "cut");
    cut.file.set_len(0).unwrap();
    assert!(is_poisoned(cut.writer.write(SIZE / 2, &[b"x"])));
    // ...anything else is not.
    kill_self();
}

fn kill_self() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
    // It may be delivered to another thread; this one must not end the process first.
    std::thread::sleep(std::time::Duration::from_millis(500));
}

#[allow(unsafe_code)] // a test of signal handlers has to install one
fn install_abort_on_sigbus() {
    extern "C" fn abort(_signal: libc::c_int) {
        std::process::abort();
    }
    // SAFETY: the handler only aborts, which a handler may do.
    unsafe { libc::signal(libc::SIGBUS, abort as *const () as libc::sighandler_t) };
}
