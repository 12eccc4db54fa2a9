//! What stands for something in another process: when it is collected, a process is told, in whose
//! charge that thing is.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustler::{Atom, Encoder, Env, LocalPid, OwnedEnv, Resource, ResourceArc};

mod atoms {
    rustler::atoms! { py_dropped, keeper = "Elixir.Py.Object.Keeper" }
}

/// Those that are dropped together are told of together.
const SOON: Duration = Duration::from_millis(2);

/// So many at most.
const ENOUGH: usize = 1_000;

/// Of which worker process of which pool it is, and who is told.
#[derive(Clone, Copy, PartialEq)]
struct Owner {
    keeper: LocalPid,
    pool: Atom,
    board: LocalPid,
    worker: u64,
}

pub struct HandleResource {
    owner: Owner,
    number: u64,
}

#[rustler::resource_impl]
impl Resource for HandleResource {}

#[rustler::nif]
fn handle_new(
    keeper: LocalPid,
    pool: Atom,
    board: LocalPid,
    worker: u64,
    number: u64,
) -> ResourceArc<HandleResource> {
    ResourceArc::new(HandleResource { owner: Owner { keeper, pool, board, worker }, number })
}

/// What stands for each of the objects that a worker's answer refers to, and its number. With nobody there to be
/// told, the objects live as long as their worker.
pub fn handles(
    env: Env<'_>,
    (pool, board, worker): (Atom, LocalPid, u64),
    numbers: impl Iterator<Item = u64>,
) -> Vec<(u64, ResourceArc<HandleResource>)> {
    let Some(keeper) = env.whereis_pid(atoms::keeper()) else { return Vec::new() };
    let owner = Owner { keeper, pool, board, worker };
    numbers.map(|number| (number, ResourceArc::new(HandleResource { owner, number }))).collect()
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
            let Owner { keeper, pool, board, worker } = owner;
            let message = |env| (atoms::py_dropped(), pool, board, worker, numbers).encode(env);
            // Nobody is there to be told where the library is being stopped.
            let _ = OwnedEnv::new().send_and_clear(&keeper, message);
        }
    }
}
