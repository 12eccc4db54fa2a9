//! `py_launcher worker`, with a shell as the worker, and another one that gives it the files that a port would.

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Worker {
    child: Child,
    output: UnixStream,
    control: UnixStream,
}

impl Worker {
    fn start(options: &str, program: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("py-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let launcher = env!("CARGO_BIN_EXE_py_launcher");
        // What nobody closed and signals that are ignored and blocked must not reach the worker.
        let line = format!(
            "trap '' PIPE CHLD USR1; exec 7</dev/null 9>/dev/null; exec {launcher} worker --socket {name} {options} -- \"$@\" 3<&0 4>&1"
        );
        let child = Command::new("sh")
            .args(["-c", &line, "sh"])
            .args(program)
            .env("PY_TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let accept = |role: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let expected = format!("{TOKEN} {role:7}\n").into_bytes();
            let mut line = vec![0; expected.len()];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(line, expected);
            stream
        };
        Worker { child, output: accept("output"), control: accept("control") }
    }

    fn shell(options: &str, script: &str) -> Self {
        Self::start(options, &["sh", "-c", script])
    }

    fn output(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

/// A set of signals of /proc/PID/status, but for glibc's own two, which its posix_spawn leaves ignored.
fn signals(status: &str, set: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(set)).unwrap();
    u64::from_str_radix(line[set.len()..].trim(), 16).unwrap() & !(3 << 31)
}

#[test]
fn each_file_is_where_it_belongs() {
    let mut worker = Worker::shell("", "cat; cat <&3 >&4; echo out; echo err >&2; cat <&5; echo over >&5");
    worker.child.stdin.take().unwrap().write_all(b"request").unwrap();
    worker.control.write_all(b"die").unwrap();
    worker.control.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    worker.control.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "over\n");
    assert_eq!(worker.output(), "out\nerr\ndie");
    let mut reply = String::new();
    worker.child.stdout.take().unwrap().read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "request");
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn nothing_else_is_inherited() {
    let mut worker = Worker::shell("", "ls /proc/$$/fd; env; cat /proc/self/status; exit 3");
    let output = worker.output();
    let files: Vec<&str> = output.lines().take_while(|line| line.parse::<u32>().is_ok()).collect();
    assert_eq!(files, ["0", "1", "2", "3", "4", "5"]);
    assert!(!output.contains("PY_TOKEN"), "{output}");
    assert_eq!((signals(&output, "SigBlk:"), signals(&output, "SigIgn:")), (0, 0));
    assert_eq!(worker.child.wait().unwrap().code(), Some(3));
}

#[test]
fn it_leads_a_session() {
    let mut worker = Worker::shell("", "echo ready; cat <&3");
    worker.output.read_exact(&mut [0; "ready\n".len()]).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", worker.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[2..4], [worker.child.id().to_string(), worker.child.id().to_string()]);
    drop(worker.child.stdin.take());
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn limits() {
    let mut worker = Worker::shell("--memory-limit 1073741824", "ulimit -v; ulimit -Hv; ulimit -s");
    let output = worker.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["1048576", "1048576"]);
    assert!(lines[2] == "unlimited" || lines[2].parse::<u64>().unwrap() >= 65536, "{output}");
}

#[test]
fn a_program_that_cannot_be_started() {
    let mut worker = Worker::start("", &["/no/such python"]);
    assert_eq!(
        worker.output(),
        "py_launcher: cannot start /no/such python: No such file or directory (os error 2)\n"
    );
    assert_eq!(worker.child.wait().unwrap().code(), Some(127));
}
