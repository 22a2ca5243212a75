//! The log's own thread behind a bounded queue: whoever logs waits for nobody who reads.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait to be written: some 3 MB. More are dropped, and counted.
const MOST_LINES: usize = 8192;

/// How many bytes leave in one write at the most, but for a longer line: what a pipe holds.
const ONE_WRITE: usize = 64 * 1024;

/// How long the end of the program waits for the last lines, where nobody reads them.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What the line says that tells how many others are lost.
pub const DROPPED: &str = "lines of the log were dropped: nobody read them in time";

/// The log. Dropped at the end of the program, it lets the last lines out.
pub struct Log {
    lines: NonBlocking,
    guard: Option<WorkerGuard>,
    writing: Arc<Mutex<()>>,
    lost: Lost,
}

/// Lines that were lost.
#[derive(Clone, Default)]
pub struct Lost {
    /// Those that found the queue full.
    full: Arc<OnceLock<ErrorCounter>>,
    /// Those whose write failed.
    unwritten: Arc<AtomicUsize>,
}

impl Lost {
    pub fn number(&self) -> usize {
        self.unwritten.load(Relaxed) + self.full.get().map_or(0, ErrorCounter::dropped_lines)
    }
}

impl Log {
    /// Starts the thread that writes to `out`, and that says by the line `dropped` how many lines it could not.
    pub(super) fn start(out: impl Write + Send + 'static, dropped: fn(usize) -> String) -> Self {
        let (writing, lost) = (Arc::<Mutex<()>>::default(), Lost::default());
        let output = Output {
            out,
            dropped,
            lost: lost.clone(),
            writing: Arc::clone(&writing),
            waiting: Vec::new(),
            lines: 0,
            told: 0,
        };
        let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MOST_LINES).thread_name("log");
        let (lines, guard) = queue.finish(output);
        lost.full.get_or_init(|| lines.error_counter());
        Self { lines, guard: Some(guard), writing, lost }
    }

    /// The lines that were lost.
    pub(super) fn lost(&self) -> Lost {
        self.lost.clone()
    }

    /// Where lines go.
    pub(super) fn lines(&self) -> NonBlocking {
        self.lines.clone()
    }

    /// Says a sentence behind the lines that have been logged.
    pub(crate) fn say(&self, sentence: &str) {
        let _ = self.lines().write_all(format!("{sentence}\n").as_bytes()); // the queue takes or counts it
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (guard, writing, (out, last)) = (self.guard.take(), Arc::clone(&self.writing), mpsc::channel());
        // The guard prints to standard output where the queue stays full, so it is dropped once a write has ended.
        thread::spawn(move || {
            drop(writing.lock());
            drop(guard);
            let _ = out.send(()); // nobody may wait any more
        });
        let _ = last.recv_timeout(LAST_LINES); // nobody reads the log, then
    }
}

/// Writes lines that wait together in one write. No failure ends it: a terminal may vanish.
struct Output<W> {
    out: W,
    dropped: fn(usize) -> String,
    lost: Lost,
    /// Locked during a write.
    writing: Arc<Mutex<()>>,
    /// The next write.
    waiting: Vec<u8>,
    /// How many lines it has.
    lines: usize,
    /// Lines that were lost and said to be.
    told: usize,
}

impl<W: Write> Output<W> {
    fn write_out(&mut self) {
        let writing = Arc::clone(&self.writing);
        let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = mem::take(&mut self.lines);
        if self.out.write_all(&self.waiting).is_err() {
            self.lost.unwritten.fetch_add(lines, Relaxed);
        } else {
            let lost = self.lost.number();
            if lost > self.told {
                let line = (self.dropped)(lost - self.told) + "\n";
                if self.out.write_all(line.as_bytes()).is_ok() {
                    self.told = lost;
                }
            }
        }
        self.waiting.clear();
    }
}

impl<W: Write> Write for Output<W> {
    /// Takes a line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(line);
        self.lines += 1;
        if self.waiting.len() >= ONE_WRITE {
            self.write_out();
        }
        Ok(line.len())
    }

    /// No line waits any more.
    fn flush(&mut self) -> io::Result<()> {
        if self.lines > 0 {
            self.write_out();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps each write; the first ones fail.
    #[derive(Clone, Default)]
    struct Terminal {
        writes: Arc<Mutex<Vec<String>>>,
        vanished: Arc<Mutex<usize>>,
    }

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut vanished = self.vanished.lock().expect("a number");
            if *vanished > 0 {
                *vanished -= 1;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.writes.lock().expect("the writes").push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output(terminal: &Terminal) -> Output<Terminal> {
        Output {
            out: terminal.clone(),
            dropped: |number| format!("{number} lost"),
            lost: Lost::default(),
            writing: Arc::default(),
            waiting: Vec::new(),
            lines: 0,
            told: 0,
        }
    }

    #[test]
    fn lines_that_wait_together_leave_in_one_write() {
        let terminal = Terminal::default();
        let mut output = output(&terminal);
        for line in ["a\n", "b\n", "c\n"] {
            output.write_all(line.as_bytes()).expect("no failure");
        }
        output.flush().expect("no failure");
        output.flush().expect("no failure");
        assert_eq!(*terminal.writes.lock().expect("the writes"), ["a\nb\nc\n"]);
    }

    #[test]
    fn a_write_that_fails_ends_nothing_and_its_lines_are_counted_once() {
        let terminal = Terminal::default();
        *terminal.vanished.lock().expect("a number") = 2;
        let mut output = output(&terminal);
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            output.write_all(line.as_bytes()).expect("no failure");
            output.flush().expect("no failure");
        }
        assert_eq!(terminal.writes.lock().expect("the writes").concat(), "c\n2 lost\nd\n");
    }

    #[test]
    fn every_line_is_written_or_counted_and_none_is_lost_while_there_is_room() {
        // The queue holds MOST_LINES, and the buffer of the first write a few more than that.
        for (lines, lost) in [(MOST_LINES, 0), (4 * MOST_LINES, MOST_LINES)] {
            let terminal = Terminal::default();
            let log = Log::start(terminal.clone(), |number| format!("{number} lost"));
            let stuck = terminal.vanished.lock().expect("a number"); // the first write waits
            for _ in 0..lines {
                log.say("a line");
            }
            drop(stuck);
            drop(log);
            let out = terminal.writes.lock().expect("the writes").concat();
            let (written, told): (Vec<_>, Vec<_>) = out.lines().partition(|line| *line == "a line");
            let told =
                told.iter().map(|line| line.strip_suffix(" lost").and_then(|number| number.parse::<usize>().ok()));
            let told = told.sum::<Option<usize>>().expect("numbers");
            assert_eq!(written.len() + told, lines);
            assert!(if lost == 0 { told == 0 } else { told >= lost }, "{told}");
        }
    }

    #[test]
    fn the_last_lines_are_out_once_the_log_is_dropped() {
        let terminal = Terminal::default();
        let log = Log::start(terminal.clone(), |number| format!("{number} lost"));
        for _ in 0..1000 {
            log.say("a line");
        }
        drop(log);
        assert_eq!(terminal.writes.lock().expect("the writes").concat(), "a line\n".repeat(1000));
    }
}
