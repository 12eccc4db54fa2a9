//! `py_launcher script`, with a shell as the script, and another one that gives it the files that a port would. What is
//! said to it is also tested from Elixir, in test/py/script_test.exs.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const STDIN: u8 = 1;
const STDIN_END: u8 = 2;
const KILL: u8 = 3;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const WANTS_STDIN: u8 = 3;
const EXITED: u8 = 4;
const SIGNALED: u8 = 5;
const NOT_STARTED: u8 = 6;
const TOO_MUCH: u8 = 7;

struct Script {
    launcher: Child,
    commands: Option<ChildStdin>,
    events: ChildStdout,
}

impl Script {
    fn start(options: &[&str], program: &[&str]) -> Self {
        let line = format!("exec {} script \"$@\" 3<&0 4>&1", env!("CARGO_BIN_EXE_py_launcher"));
        let mut launcher = Command::new("sh")
            .args(["-c", &line, "sh"])
            .args(options)
            .arg("--")
            .args(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, events) = (launcher.stdin.take(), launcher.stdout.take().unwrap());
        Script { launcher, commands, events }
    }

    fn shell(options: &[&str], script: &str) -> Self {
        Self::start(options, &["sh", "-c", script])
    }

    fn send(&mut self, kind: u8, data: &[u8]) {
        let packet = [&(data.len() as u32 + 1).to_be_bytes(), &[kind][..], data].concat();
        self.commands.as_mut().unwrap().write_all(&packet).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut length = [0; 4];
        self.events.read_exact(&mut length).unwrap();
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.events.read_exact(&mut packet).unwrap();
        (packet[0], packet.split_off(1))
    }

    fn receive_number(&mut self) -> u32 {
        let (kind, text) = self.receive();
        assert_eq!(kind, STDOUT);
        String::from_utf8(text).unwrap().trim().parse().unwrap()
    }

    /// The launcher ends when the port is closed, and not before.
    fn close(mut self) {
        drop(self.commands.take());
        assert!(self.launcher.wait().unwrap().success());
    }
}

fn number(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn outputs_and_status() {
    let mut script = Script::shell(&[], "echo out; sleep 0.1; echo err >&2; cat; exit 3");
    assert_eq!(script.receive(), (STDOUT, b"out\n".to_vec()));
    assert_eq!(script.receive(), (STDERR, b"err\n".to_vec()));
    assert_eq!(script.receive(), (EXITED, number(3)));
    script.close();
}

#[test]
fn stdin_comes_as_it_is_asked_for() {
    let mut script = Script::shell(&["--stdin"], "cat");
    for text in [b"one", b"two"] {
        assert_eq!(script.receive(), (WANTS_STDIN, vec![]));
        script.send(STDIN, text);
        let mut packets = [script.receive(), script.receive()];
        packets.sort();
        assert_eq!(packets, [(STDOUT, text.to_vec()), (WANTS_STDIN, vec![])]);
        script.send(STDIN, b"");
    }
    script.send(STDIN_END, b"");
    while script.receive() != (EXITED, number(0)) {}
    script.close();
}

#[test]
fn a_signal() {
    let mut script = Script::shell(&[], "kill -9 $$");
    assert_eq!(script.receive(), (SIGNALED, number(9)));
    script.close();
}

#[test]
fn killed_when_told() {
    let mut script = Script::shell(&[], "setsid sleep 600 & echo $!; sleep 600");
    let sleeper = script.receive_number();
    script.send(KILL, b"");
    assert_eq!(script.receive(), (SIGNALED, number(9)));
    assert!(is_gone(sleeper));
    script.close();
}

#[test]
fn what_is_left_behind_is_killed_before_the_end_is_told() {
    let mut script = Script::shell(&[], "setsid sh -c 'sleep 600 & echo $!; wait' & sleep 0.3");
    let sleeper = script.receive_number();
    assert_eq!(script.receive(), (EXITED, number(0)));
    assert!(is_gone(sleeper));
    script.close();
}

#[test]
fn killed_when_the_port_is_closed() {
    let mut script = Script::shell(&["--stdin"], "setsid sleep 600 & echo $!; sleep 600");
    assert_eq!(script.receive(), (WANTS_STDIN, vec![]));
    let sleeper = script.receive_number();
    let start = Instant::now();
    script.close();
    assert!(is_gone(sleeper));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn orphans_that_end_are_reaped_while_it_runs() {
    let mut script = Script::shell(&[], "(true & echo $!); sleep 600");
    let orphan = script.receive_number();
    while !is_gone(orphan) {
        sleep(Duration::from_millis(10));
    }
    script.close();
}

#[test]
fn too_much() {
    let mut script = Script::shell(&["--max-output", "4"], "echo 12345; sleep 600");
    assert_eq!(script.receive(), (STDOUT, b"1234".to_vec()));
    assert_eq!(script.receive(), (TOO_MUCH, vec![STDOUT]));
    assert_eq!(script.receive(), (SIGNALED, number(9)));
    script.close();
}

#[test]
fn what_cannot_be_started() {
    let mut script = Script::start(&[], &["/no/such python"]);
    let reason = b"/no/such python: No such file or directory (os error 2)".to_vec();
    assert_eq!(script.receive(), (NOT_STARTED, reason));
    script.close();
}
