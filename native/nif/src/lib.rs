//! Wire 1: Python in the node. Terms in, one message out; every NIF is a few lines.

mod atoms;
mod ffi;
mod host;
mod inline;
mod object;
mod quick;
mod reply;
mod shared;
mod tape;
mod terms;
mod work;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use py_core::boot::{Facts, Home, boot as boot_python};
use py_core::convert::Verb;
use py_core::{Cancel, Interpreter, Limits, Pool, Ran, Refusal, Ticket, Took};
use py_patience::{Patience, Prospect};
use rustler::{Atom, Encoder, Env, Error, LocalPid, Monitor, NifMap, NifResult, Resource, ResourceArc, Term};

use crate::ffi::{Envelope, Meeting};
use crate::host::Node;
use crate::inline::Here;
use crate::object::ObjectResource;
use crate::quick::Quick;
use crate::reply::Caller;
use crate::tape::Draft;
use crate::work::{Answered, Call, GroupLeader, Question, Start};

/// What is allocated on a scheduler is mostly freed on a thread of Python's, where the C library's
/// allocator has both wait for a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The one interpreter that threads of the node share.
static MAIN: OnceLock<&'static Interpreter> = OnceLock::new();

/// A pool ends with the process that opened it.
struct PoolResource {
    pool: Arc<Pool>,
    name: Atom,
    /// Whether a caller that is alone looks for its answer itself. Where there are several, a scheduler
    /// has other things to do.
    prospect: Prospect,
    last_caller: AtomicU64,
    /// How often that has asked in a row.
    streak: AtomicU32,
}

/// Who has asked so often in a row is alone.
const ALONE: u32 = 8;

impl PoolResource {
    fn meeting(&self, caller: &LocalPid) -> Option<Arc<Meeting>> {
        let word = ffi::pid_word(caller);
        if self.last_caller.load(Ordering::Relaxed) != word {
            self.last_caller.store(word, Ordering::Relaxed);
            self.streak.store(0, Ordering::Relaxed);
            return None;
        }
        let streak = self.streak.load(Ordering::Relaxed);
        if streak < ALONE {
            self.streak.store(streak + 1, Ordering::Relaxed);
            return None;
        }
        self.prospect.is_good().then(Arc::default)
    }
}

#[rustler::resource_impl]
impl Resource for PoolResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.pool.close();
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
    let envelope = Envelope::new(tag);
    let caller = env.pid();
    let sink = terms::etf(config.sink.encode(env));
    let home = Home { executable: config.executable, python_path: config.python_path };
    let facts = Facts {
        leader: sink.clone(),
        sink,
        decimal: config.decimal,
        set_version: config.set_version,
        in_node: true,
    };
    let ready = move |result: Result<&'static Interpreter, String>| {
        let Some(mut message) = envelope.open(atoms::py_booted()) else { return };
        match result {
            Ok(interpreter) => {
                MAIN.get_or_init(|| interpreter);
                interpreter.questions.admit();
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
    };
    py_core::reset_signals_in_forked_children();
    boot_python(home, facts, Box::new(Node), Box::new(ready))
        .map(|()| atoms::ok())
        .map_err(|message| Error::Term(Box::new(message)))
}

#[rustler::nif]
fn open_pool(env: Env<'_>, name: Atom, size: usize, max_queue: usize, grace_ms: u64) -> NifResult<Term<'_>> {
    let interpreter = MAIN.get().ok_or(Error::Atom("not_booted"))?;
    let limits = Limits { size, max_queue, grace: Duration::from_millis(grace_ms) };
    let pool = ResourceArc::new(PoolResource {
        pool: Arc::new(Pool::open(interpreter, limits)),
        name,
        prospect: Prospect::default(),
        last_caller: AtomicU64::new(0),
        streak: AtomicU32::new(0),
    });
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
    let StartConfig { init, file, line, paths, env: variables } = config;
    let start = Start {
        caller: Caller::new(env.pid(), tag),
        leader: GroupLeader::of(leader),
        pool: Arc::downgrade(&pool.pool),
        init,
        file,
        line,
        paths,
        env: variables.into_iter().collect(),
    };
    let ticket = pool.pool.ticket(start, duration(timeout)?);
    Ok(pool.pool.start(ticket).map_or_else(refusal, |()| atoms::ok()))
}

/// By which `asker` knows it.
#[rustler::nif]
fn pool_id(pool: ResourceArc<PoolResource>) -> usize {
    pool.pool.id()
}

#[rustler::nif]
fn close_pool(pool: ResourceArc<PoolResource>) -> Atom {
    pool.pool.close();
    atoms::ok()
}

#[derive(NifMap)]
struct Info {
    size: usize,
    max_queue: usize,
    queued: usize,
    running: usize,
    running_calls: Vec<Running>,
    awaiting: usize,
    threads: usize,
    retired: usize,
    calls: u64,
    /// Why calls do not run inline now.
    inline: Option<Atom>,
    inline_overrun: Vec<String>,
}

#[derive(NifMap)]
struct Running {
    function: String,
    age_ms: u64,
    awaiting: bool,
}

#[rustler::nif]
fn info(env: Env<'_>, pool: ResourceArc<PoolResource>) -> Info {
    let info = pool.pool.info();
    let running = pool.pool.running().into_iter().map(|running| Running {
        function: running.subject,
        age_ms: running.age_ms,
        awaiting: running.awaiting,
    });
    Info {
        size: info.limits.size,
        max_queue: info.limits.max_queue,
        queued: info.queued,
        running: info.running,
        running_calls: running.collect(),
        awaiting: info.awaiting,
        threads: info.threads,
        retired: info.retired,
        calls: info.calls,
        inline: info.inline.map(|closed| atoms::known(env, closed.name())),
        inline_overrun: pool.pool.overran(),
    }
}

/// Answers with the Python stacks of what is in progress, as a request is answered.
#[rustler::nif]
fn stacktrace(env: Env<'_>, pool: ResourceArc<PoolResource>, tag: Term<'_>) -> Atom {
    let question = Question(Caller::new(env.pid(), tag));
    pool.pool.tell_stacks(pool.pool.ticket(question, None));
    atoms::ok()
}

/// `:ok`, or a ticket where one is asked for; `:large` where this would take a scheduler too long.
#[rustler::nif]
fn submit<'a>(
    env: Env<'a>,
    pool: ResourceArc<PoolResource>,
    tag: Term<'a>,
    leader: Term<'a>,
    request: Term<'a>,
    timeout: Term<'a>,
    wants_ticket: bool,
) -> NifResult<Term<'a>> {
    let (verb, _) = work::verb(request).ok_or(Error::BadArg)?;
    let timeout = duration(timeout)?;
    let call = match Call::small(Caller::of(pool.name, None, env.pid(), tag), leader, verb, request) {
        Ok(call) => call,
        Err(_) if terms::is_large(request) => return Ok(atoms::large().encode(env)),
        Err(caller) => Call::any(caller, leader, verb, request, &tape::MEDIUM),
    };
    accept(env, &pool, call, timeout, wants_ticket)
}

/// As `submit`, but looks for the answer for a moment: the message that it would be, or `:left` where it
/// will be one. Where a ticket is asked for, a tuple of that and the ticket.
#[rustler::nif]
fn ask<'a>(
    env: Env<'a>,
    pool: ResourceArc<PoolResource>,
    tag: Term<'a>,
    leader: Term<'a>,
    request: Term<'a>,
    timeout: Term<'a>,
    wants_ticket: bool,
) -> NifResult<Term<'a>> {
    let (verb, _) = work::verb(request).ok_or(Error::BadArg)?;
    let timeout = duration(timeout)?;
    let meeting = pool.meeting(&env.pid());
    let caller = Caller::of(pool.name, meeting.clone(), env.pid(), tag);
    let call = match Call::small(caller, leader, verb, request) {
        Ok(call) => call,
        Err(_) if terms::is_large(request) => return Ok(atoms::large().encode(env)),
        Err(caller) => Call::any(caller, leader, verb, request, &tape::MEDIUM),
    };
    let ticket = pool.pool.ticket(call, timeout);
    let kept = wants_ticket.then(|| TicketResource { ticket: ticket.clone(), pool: pool.pool.clone() });
    if let Err(reason) = pool.pool.submit(ticket) {
        return Ok(refusal(reason).encode(env));
    }
    let answer = meeting.and_then(|meeting| wait_at(&meeting, &pool.prospect, env));
    let answer = answer.unwrap_or_else(|| atoms::left().encode(env));
    Ok(match kept {
        Some(kept) => (answer, ResourceArc::new(kept)).encode(env),
        None => answer,
    })
}

fn wait_at<'a>(meeting: &Meeting, prospect: &Prospect, env: Env<'a>) -> Option<Term<'a>> {
    let mut patience = Patience::new();
    loop {
        if let Some(answer) = meeting.answer(env) {
            prospect.met();
            rustler::schedule::consume_timeslice(env, 1);
            return Some(answer);
        }
        if patience.is_over() && meeting.leave() {
            prospect.missed();
            rustler::schedule::consume_timeslice(env, Patience::TURN);
            return None;
        }
    }
}

/// Runs the request here where that is possible now, and returns its result; `{:overran, result,
/// nanoseconds}` where that took too long, `{:deferred, tag}` where a message brings the result. Where
/// it is not possible, the atom says why.
fn run_inline<'a>(env: Env<'a>, arguments: [Term<'a>; 4]) -> NifResult<Term<'a>> {
    let [pool, leader, request, timeout] = arguments;
    let pool: &PoolResource = pool.decode()?;
    let (verb, parts) = work::verb(request).ok_or(Error::BadArg)?;
    let quick = if verb == Verb::Call { Quick::of(parts.clone()) } else { None };
    let draft = if quick.is_none() { Draft::record(parts, &tape::SMALL) } else { None };
    if quick.is_none() && draft.is_none() && terms::is_large(request) {
        return Ok(atoms::large().encode(env));
    }
    let timeout = duration(timeout)?;
    let mut here = Here {
        env,
        pool: &pool.pool,
        name: pool.name,
        leader,
        verb,
        request,
        quick: quick.as_ref(),
        draft,
        timeout,
        result: None,
    };
    let ran = ffi::on_behalf_of(env, || pool.pool.inline(timeout, &mut here));
    let result = here.result;
    Ok(match (ran, result) {
        (Ok(Ran::Answered(Took::Little)), Some(result)) => result,
        (Ok(Ran::Answered(took)), Some(result)) => {
            // A process may run for about a millisecond before others have their turn.
            rustler::schedule::consume_timeslice(env, 100);
            match took {
                Took::TooLong(lap) => (atoms::overran(), result, lap.time.as_nanos() as u64).encode(env),
                Took::Little | Took::ATick => result,
            }
        }
        (Ok(_), result) => (atoms::deferred(), result).encode(env),
        (Err(closed), _) => atoms::known(env, closed.name()).encode(env),
    })
}

/// Hands an answer to the Python thread that asked; `:large` where this would take a scheduler too long.
#[rustler::nif]
fn answer(number: u64, value: Term<'_>) -> Atom {
    if terms::is_large(value) {
        return atoms::large();
    }
    hand_over(number, value)
}

/// As `answer`, for what takes a scheduler too long to copy.
#[rustler::nif(schedule = "DirtyCpu")]
fn answer_large(number: u64, value: Term<'_>) -> Atom {
    hand_over(number, value)
}

fn hand_over(number: u64, value: Term<'_>) -> Atom {
    if let Some(interpreter) = MAIN.get() {
        interpreter.questions.answer(number, Box::new(Answered::copy(value)));
    }
    atoms::ok()
}

/// Who asks: `{pool, {pid, tag}}`, or `{pool, nil}` of a request that is over; nil where that is not known.
#[rustler::nif]
fn asker(env: Env<'_>, number: u64) -> Term<'_> {
    let Some(asker) = MAIN.get().and_then(|interpreter| interpreter.questions.asker(number)) else {
        return atoms::nil().encode(env);
    };
    let caller = asker.caller_etf().and_then(|etf| Some(env.binary_to_term(&etf)?.0));
    (asker.pool(), caller).encode(env)
}

/// Ends all questions: whoever was to answer them is another process now.
#[rustler::nif]
fn abandon_questions() -> Atom {
    if let Some(interpreter) = MAIN.get() {
        interpreter.questions.abandon();
    }
    atoms::ok()
}

/// Whose an object is, where that is known; nil for what holds no object of this node.
#[rustler::nif]
fn object_pool(handle: Term<'_>) -> Option<Atom> {
    handle.decode::<ResourceArc<ObjectResource>>().ok()?.pool
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
    wants_ticket: bool,
) -> NifResult<Term<'a>> {
    let (verb, _) = work::verb(request).ok_or(Error::BadArg)?;
    let caller = Caller::of(pool.name, None, env.pid(), tag);
    let call = Call::any(caller, leader, verb, request, &tape::LARGE);
    accept(env, &pool, call, duration(timeout)?, wants_ticket)
}

fn accept<'a>(
    env: Env<'a>,
    pool: &ResourceArc<PoolResource>,
    call: Call,
    timeout: Option<Duration>,
    wants_ticket: bool,
) -> NifResult<Term<'a>> {
    let ticket = pool.pool.ticket(call, timeout);
    let kept = wants_ticket.then(|| TicketResource { ticket: ticket.clone(), pool: pool.pool.clone() });
    Ok(match (pool.pool.submit(ticket), kept) {
        (Ok(()), Some(kept)) => ResourceArc::new(kept).encode(env),
        (Ok(()), None) => atoms::ok().encode(env),
        (Err(reason), _) => refusal(reason).encode(env),
    })
}

fn refusal(refusal: Refusal) -> Atom {
    match refusal {
        Refusal::Overloaded => atoms::overloaded(),
        Refusal::Stuck => atoms::stuck(),
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
