//! What stands for something in another process: when it is collected, a process is told, in whose
//! charge that thing is.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustler::{Atom, Encoder, LocalPid, OwnedEnv, Resource, ResourceArc};

use crate::ffi;

mod atoms {
    rustler::atoms! { py_dropped, keeper = "Elixir.Py.Object.Keeper" }
}

/// Those that are dropped together are told of together.
const SOON: Duration = Duration::from_millis(2);

/// So many at most.
const ENOUGH: usize = 1_000;

/// How often it is looked for who is to be told, where there is nobody: it was killed, and is about to be
/// started again; or all of Py is being stopped, and its workers with it.
const AGAIN: Duration = Duration::from_millis(50);
const TRIES: u32 = 100;

/// Of which worker process of which pool it is.
#[derive(Clone, Copy, PartialEq)]
pub struct Owner {
    pub pool: Atom,
    pub board: LocalPid,
    pub worker: u64,
}

pub struct HandleResource {
    owner: Owner,
    number: u64,
}

#[rustler::resource_impl]
impl Resource for HandleResource {}

impl HandleResource {
    pub fn new(owner: Owner, number: u64) -> ResourceArc<Self> {
        ResourceArc::new(HandleResource { owner, number })
    }
}

#[rustler::nif]
fn handle_new(pool: Atom, board: LocalPid, worker: u64, number: u64) -> ResourceArc<HandleResource> {
    HandleResource::new(Owner { pool, board, worker }, number)
}

impl Drop for HandleResource {
    /// The garbage collector runs this on a scheduler, where no message can be sent in rustler's way.
    fn drop(&mut self) {
        if let Some(messenger) = &*MESSENGER {
            let _ = messenger.send((self.owner, self.number));
        }
    }
}

static MESSENGER: LazyLock<Option<Sender<(Owner, u64)>>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new().name("py_handles".into());
    thread.spawn(move || deliver(&receiver)).ok().map(|_| sender)
});

fn deliver(dropped: &Receiver<(Owner, u64)>) {
    while let Ok((owner, number)) = dropped.recv() {
        thread::sleep(SOON);
        let mut together = vec![(owner, vec![number])];
        for (owner, number) in dropped.try_iter().take(ENOUGH - 1) {
            match together.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, numbers)) => numbers.push(number),
                None => together.push((owner, vec![number])),
            }
        }
        for (owner, numbers) in together {
            tell(owner, &numbers);
        }
    }
}

fn tell(Owner { pool, board, worker }: Owner, numbers: &[u64]) {
    for _ in 0..TRIES {
        let told = ffi::registered(atoms::keeper()).is_some_and(|keeper| {
            let message = |env| (atoms::py_dropped(), pool, board, worker, numbers).encode(env);
            OwnedEnv::new().send_and_clear(&keeper, message).is_ok()
        });
        if told {
            return;
        }
        thread::sleep(AGAIN);
    }
}
