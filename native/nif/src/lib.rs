//! Wire 1: Python in the node. Terms in, one message out; every NIF is a few lines.

mod atoms;
mod ffi;
mod host;
mod reply;
mod shared;
mod terms;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use py_core::boot::{Facts, boot as boot_python};
use py_core::{Cancel, Interpreter, Job, Limits, Pool, Refusal, Ticket};
use rustler::{Atom, Encoder, Env, Error, LocalPid, Monitor, NifMap, NifResult, Resource, ResourceArc, Term};

use crate::ffi::Letter;
use crate::host::Node;
use crate::reply::{Caller, with_message};
use crate::work::{StartWork, TermWork};

/// The one interpreter that threads of the node share.
static MAIN: OnceLock<&'static Interpreter> = OnceLock::new();

/// A pool ends with the process that opened it.
struct PoolResource(Arc<Pool>);

#[rustler::resource_impl]
impl Resource for PoolResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.0.close();
    }
}

struct TicketResource {
    ticket: Arc<Ticket>,
    pool: Arc<Pool>,
}

#[rustler::resource_impl]
impl Resource for TicketResource {}

#[derive(NifMap)]
struct BootConfig {
    executable: String,
    python_path: String,
    sink: LocalPid,
    decimal: bool,
    set_version: bool,
}

/// Boots Python on a thread of its own, which tells the caller with `{:py_booted, ref, result}`.
#[rustler::nif]
fn boot(env: Env<'_>, tag: Term<'_>, config: BootConfig) -> NifResult<Atom> {
    let letter = Letter::copy(&[tag]);
    let caller = env.pid();
    let sink = terms::etf(config.sink.encode(env));
    let facts = Facts {
        executable: config.executable,
        python_path: config.python_path,
        leader: sink.clone(),
        sink,
        decimal: config.decimal,
        set_version: config.set_version,
    };
    let ready = move |result: Result<&'static Interpreter, String>| {
        with_message(|message| {
            message.push_atom(atoms::py_booted());
            message.push_copy(letter.term(0));
            match result {
                Ok(interpreter) => {
                    MAIN.get_or_init(|| interpreter);
                    message.push_atom(atoms::ok());
                }
                Err(text) => {
                    message.push_atom(atoms::error());
                    message.push_binary(text.as_bytes());
                    message.end_tuple(2);
                }
            }
            message.end_tuple(3);
            message.send(&caller);
        });
    };
    py_core::reset_signals_in_forked_children();
    boot_python(facts, Box::new(Node), Box::new(ready))
        .map(|()| atoms::ok())
        .map_err(|message| Error::Term(Box::new(message)))
}

#[rustler::nif]
fn open_pool(env: Env<'_>, size: usize, max_queue: usize, grace_ms: u64) -> NifResult<Term<'_>> {
    let interpreter = MAIN.get().ok_or(Error::Atom("not_booted"))?;
    let limits = Limits { size, max_queue, grace: Duration::from_millis(grace_ms) };
    let pool = ResourceArc::new(PoolResource(Arc::new(Pool::open(interpreter, limits))));
    env.monitor(&pool, &env.pid()).ok_or(Error::BadArg)?;
    Ok(pool.encode(env))
}

#[derive(NifMap)]
struct StartConfig {
    init: Option<String>,
    file: Option<String>,
    line: i64,
    paths: Vec<String>,
    env: HashMap<String, String>,
}

#[rustler::nif]
fn start_pool<'a>(
    env: Env<'a>,
    pool: ResourceArc<PoolResource>,
    tag: Term<'a>,
    leader: Term<'a>,
    config: StartConfig,
    timeout: Term<'a>,
) -> NifResult<Atom> {
    let letter = Arc::new(Letter::copy(&[tag, leader]));
    let reply = Caller::new(env.pid(), letter.clone(), &pool.0).opening();
    let StartConfig { init, file, line, paths, env: variables } = config;
    let work = StartWork { letter, init, file, line, paths, env: variables.into_iter().collect() };
    let job = Job::new(Box::new(reply), Box::new(work), duration(timeout)?);
    Ok(pool.0.start(job).map_or_else(refusal, |()| atoms::ok()))
}

#[rustler::nif]
fn close_pool(pool: ResourceArc<PoolResource>) -> Atom {
    pool.0.close();
    atoms::ok()
}

#[derive(NifMap)]
struct Info {
    size: usize,
    max_queue: usize,
    queued: usize,
    running: usize,
    awaiting: usize,
    threads: usize,
    retired: usize,
    calls: u64,
}

#[rustler::nif]
fn info(pool: ResourceArc<PoolResource>) -> Info {
    let info = pool.0.info();
    Info {
        size: info.limits.size,
        max_queue: info.limits.max_queue,
        queued: info.queued,
        running: info.running,
        awaiting: info.awaiting,
        threads: info.threads,
        retired: info.retired,
        calls: info.calls,
    }
}

#[rustler::nif]
fn submit<'a>(
    env: Env<'a>,
    pool: ResourceArc<PoolResource>,
    tag: Term<'a>,
    leader: Term<'a>,
    request: Term<'a>,
    timeout: Term<'a>,
) -> NifResult<Term<'a>> {
    if terms::is_large(request) {
        return Ok(atoms::large().encode(env));
    }
    submit_now(env, &pool, [tag, leader, request], timeout)
}

/// As `submit`, for what takes a scheduler too long to copy.
#[rustler::nif(schedule = "DirtyCpu")]
fn submit_large<'a>(
    env: Env<'a>,
    pool: ResourceArc<PoolResource>,
    tag: Term<'a>,
    leader: Term<'a>,
    request: Term<'a>,
    timeout: Term<'a>,
) -> NifResult<Term<'a>> {
    submit_now(env, &pool, [tag, leader, request], timeout)
}

fn submit_now<'a>(
    env: Env<'a>,
    pool: &ResourceArc<PoolResource>,
    terms: [Term<'a>; 3],
    timeout: Term<'a>,
) -> NifResult<Term<'a>> {
    let timeout = duration(timeout)?;
    let letter = Arc::new(Letter::copy(&terms));
    let reply = Caller::new(env.pid(), letter.clone(), &pool.0);
    let job = Job::new(Box::new(reply), Box::new(TermWork::new(letter)), timeout);
    let ticket = job.ticket.clone();
    Ok(match pool.0.submit(job) {
        Ok(()) => ResourceArc::new(TicketResource { ticket, pool: pool.0.clone() }).encode(env),
        Err(reason) => refusal(reason).encode(env),
    })
}

fn refusal(refusal: Refusal) -> Atom {
    match refusal {
        Refusal::Overloaded => atoms::overloaded(),
        Refusal::Stopped => atoms::stopped(),
    }
}

fn duration(timeout: Term<'_>) -> NifResult<Option<Duration>> {
    if atoms::infinity() == timeout {
        return Ok(None);
    }
    timeout.decode().map(|milliseconds| Some(Duration::from_millis(milliseconds)))
}

#[rustler::nif]
fn cancel(ticket: ResourceArc<TicketResource>) -> Atom {
    match ticket.pool.cancel(&ticket.ticket) {
        Cancel::Cancelled => atoms::cancelled(),
        Cancel::Replied => atoms::replied(),
    }
}

#[rustler::nif]
fn times(ticket: ResourceArc<TicketResource>) -> (u64, u64) {
    ticket.ticket.times()
}

rustler::init!("Elixir.Py.Native");
