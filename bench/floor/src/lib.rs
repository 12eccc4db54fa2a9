//! The floor of the benchmark: the request is copied, a thread takes it from a queue and sends a
//! message of the same shape as Py's, and nothing in between. No bridge on threads can be faster.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustler::env::SavedTerm;
use rustler::{Atom, Encoder, Env, LocalPid, OwnedEnv, Term};

rustler::atoms! { ok, py_result }

struct Request {
    caller: LocalPid,
    env: OwnedEnv,
    tag: SavedTerm,
}

static QUEUE: OnceLock<Sender<Request>> = OnceLock::new();

const SPIN: Duration = Duration::from_micros(20);

#[rustler::nif]
fn submit<'a>(env: Env<'a>, tag: Term<'a>, request: Term<'a>) -> Atom {
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = channel();
        std::thread::spawn(move || serve(&receiver));
        sender
    });
    let copy = OwnedEnv::new();
    copy.save(request);
    let tag = copy.save(tag);
    // The receiver lives as long as the node.
    let _ = queue.send(Request { caller: env.pid(), env: copy, tag });
    ok()
}

fn serve(requests: &Receiver<Request>) {
    let mut message = OwnedEnv::new();
    while let Some(request) = next(requests) {
        let _ = message.send_and_clear(&request.caller, |env| {
            let tag = request.env.run(|from| request.tag.load(from).in_env(env).encode(env));
            (py_result(), tag, (ok(), 4.0)).encode(env)
        });
    }
}

fn next(requests: &Receiver<Request>) -> Option<Request> {
    let begin = Instant::now();
    while begin.elapsed() < SPIN {
        match requests.try_recv() {
            Ok(request) => return Some(request),
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    requests.recv().ok()
}

rustler::init!("Elixir.Py.Bench.Floor");
