//! `script`: runs a program to its end, as its parent, and speaks packets with the node (see port.rs).
//!
//! The standard files of the program are pipes that end here. Nothing that it starts outlives it: when it ends, when the
//! node says so and when the node closes the port or is gone, all that is below us is killed.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus};

use crate::arguments::Arguments;
use crate::family::{self, Leader};
use crate::port::{Port, command, event};
use crate::streams::{Fed, Input, Output};
use crate::{ffi, linux};

const FIRST_FREE: i32 = 5;

pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let max_output = arguments.number("--max-output")?.map_or(usize::MAX, |bytes| bytes as usize);
    let memory_limit = arguments.number("--memory-limit")?;
    let mut port = Port::inherited().map_err(|error| format!("cannot use the port's pipes: {error}"))?;
    let told = match set_up(arguments, memory_limit).and_then(|child| Run::new(child, max_output)) {
        Ok(mut run) => run.supervise(&mut port).and_then(|status| tell(&mut port, status)),
        Err(error) => {
            let reason = format!("{}: {error}", arguments.program.display());
            port.send(event::NOT_STARTED, reason.as_bytes())
        }
    };
    // A node that cannot be told is gone.
    if told.is_ok() {
        port.wait_for_close();
    }
    Ok(ExitCode::SUCCESS)
}

fn set_up(arguments: &Arguments, memory_limit: Option<u64>) -> io::Result<Child> {
    linux::close_from(FIRST_FREE)?;
    linux::adopt_orphans()?;
    ffi::default_signals();
    let mut program = arguments.command();
    let given = arguments.option("--stdin").is_some();
    program.stdin(if given { Stdio::piped() } else { Stdio::null() });
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(folder) = arguments.option("--cd") {
        program.current_dir(folder);
    }
    ffi::prepare(&mut program, memory_limit);
    program.spawn()
}

fn tell(port: &mut Port, status: WaitStatus) -> io::Result<()> {
    let (kind, number) = match status.terminating_signal() {
        Some(signal) => (event::SIGNALED, signal),
        None => (event::EXITED, status.exit_status().unwrap_or(0)),
    };
    port.send(kind, &(number as u32).to_be_bytes())
}

struct Run {
    leader: Arc<Leader>,
    /// Hangs up when the leader has ended.
    ended: OwnedFd,
    stdin: Option<Input>,
    stdout: Output,
    stderr: Output,
    /// Whether the node has closed the port.
    closed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Node,
    Stdin,
    StdinClosed,
    Stdout,
    Stderr,
    End,
}

impl Run {
    fn new(mut child: Child, max_output: usize) -> io::Result<Self> {
        let leader = Arc::new(Leader::new(Pid::from_child(&child)));
        let stdin = child.stdin.take().map(Input::new).transpose()?;
        let stdout = Output::new(event::STDOUT, child.stdout.take(), max_output)?;
        let stderr = Output::new(event::STDERR, child.stderr.take(), max_output)?;
        let (ended, ending) = pipe_with(PipeFlags::CLOEXEC)?;
        let reaped = leader.clone();
        thread::Builder::new().spawn(move || {
            reaped.reap();
            drop(ending);
        })?;
        Ok(Run { leader, ended, stdin, stdout, stderr, closed: false })
    }

    /// What the program wrote is passed on completely before it is said to have ended. The pipes hold no more than that
    /// when all who could write to them are dead, so nothing waits for their ends.
    fn supervise(&mut self, port: &mut Port) -> io::Result<WaitStatus> {
        let asked = self.feed(port);
        self.end_if_failed(asked);
        loop {
            let ready = self.ready(port)?;
            if ready.contains(&Source::End) {
                break;
            }
            ready.into_iter().for_each(|source| self.serve(source, port));
        }
        family::end_descendants();
        self.stdout.relay_rest(port)?;
        self.stderr.relay_rest(port)?;
        self.leader.status().ok_or_else(|| io::Error::other("it ended and was not seen"))
    }

    fn ready(&self, port: &Port) -> io::Result<Vec<Source>> {
        let mut sources = vec![(Source::End, PollFd::new(&self.ended, PollFlags::IN))];
        if !self.closed {
            sources.push((Source::Node, PollFd::from_borrowed_fd(port.commands(), PollFlags::IN)));
        }
        if let Some(input) = &self.stdin {
            // Asked for nothing, it still tells when nobody reads any more.
            let events = if input.is_waiting() { PollFlags::OUT } else { PollFlags::empty() };
            sources.push((Source::Stdin, PollFd::from_borrowed_fd(input.pipe(), events)));
        }
        for (name, output) in [(Source::Stdout, &self.stdout), (Source::Stderr, &self.stderr)] {
            sources.extend(output.pipe().map(|pipe| (name, PollFd::from_borrowed_fd(pipe, PollFlags::IN))));
        }
        let (names, mut files): (Vec<Source>, Vec<PollFd>) = sources.into_iter().unzip();
        retry_on_intr(|| poll(&mut files, None))?;
        let answers = names.into_iter().zip(files.iter().map(PollFd::revents));
        Ok(answers
            .filter(|(_, events)| !events.is_empty())
            .map(|(name, events)| came(name, events))
            .collect())
    }

    fn serve(&mut self, source: Source, port: &mut Port) {
        let result = match source {
            Source::Node => self.obey(port),
            Source::Stdin => self.feed(port),
            Source::StdinClosed => {
                self.stdin = None;
                Ok(())
            }
            Source::Stdout => self.stdout.relay(port).map(drop),
            Source::Stderr => self.stderr.relay(port).map(drop),
            Source::End => Ok(()),
        };
        self.end_if_failed(result);
        if self.stdout.overran() || self.stderr.overran() {
            self.leader.kill();
        }
    }

    /// When the node is gone, so is the reason for all this.
    fn end_if_failed(&mut self, result: io::Result<()>) {
        if result.is_err() {
            self.closed = true;
            self.leader.kill();
        }
    }

    fn obey(&mut self, port: &mut Port) -> io::Result<()> {
        let Some(packets) = port.receive()? else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        for (kind, data) in packets {
            match (kind, &mut self.stdin) {
                (command::STDIN, Some(input)) => input.add(&data),
                (command::STDIN_END, Some(input)) => input.complete(),
                (command::KILL, _) => self.leader.kill(),
                _ => {}
            }
        }
        self.feed(port)
    }

    /// The node sends more when it is asked to, so what a program does not read fills no memory and no pipe.
    fn feed(&mut self, port: &mut Port) -> io::Result<()> {
        let Some(input) = &mut self.stdin else { return Ok(()) };
        match input.write() {
            Ok(Fed::Waits) => {}
            Ok(Fed::WantsMore) => port.send(event::WANTS_STDIN, &[])?,
            Ok(Fed::Complete) | Err(_) => self.stdin = None,
        }
        Ok(())
    }
}

fn came(name: Source, events: PollFlags) -> Source {
    if name == Source::Stdin && events.contains(PollFlags::ERR) { Source::StdinClosed } else { name }
}
