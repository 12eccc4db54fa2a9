//! All of this crate's `unsafe`: what `erl_nif` offers and rustler hides.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::sync::{LazyLock, OnceLock};

use crossbeam_queue::ArrayQueue;
use py_core::Memory;
use rustler::codegen_runtime::handle_nif_result;
use rustler::sys::{
    ERL_NIF_BIN2TERM_SAFE, ErlNifEnv, ErlNifMapIterator, ErlNifMapIteratorEntry, ErlNifPid, ErlNifTerm,
    enif_alloc_env, enif_binary_to_term, enif_clear_env, enif_free_env, enif_get_map_size, enif_get_tuple,
    enif_make_copy, enif_make_double, enif_make_list_from_array, enif_make_map_from_arrays,
    enif_make_map_put, enif_make_new_binary, enif_make_new_map, enif_make_sub_binary,
    enif_make_tuple_from_array, enif_map_iterator_create, enif_map_iterator_destroy,
    enif_map_iterator_get_pair, enif_map_iterator_next, enif_send, enif_whereis_pid,
};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, ResourceArc, Term};

use crate::shared::SharedBytes;

rustler::codegen_runtime::inventory::submit!(rustler::Nif {
    name: c"run_inline".as_ptr(),
    arity: 4,
    flags: 0,
    raw_func: run_inline,
});

/// As `#[rustler::nif]` makes it, without a vector of the arguments.
unsafe extern "C" fn run_inline(
    env: *mut ErlNifEnv,
    _count: c_int,
    arguments: *const ErlNifTerm,
) -> ErlNifTerm {
    let lifetime = ();
    // SAFETY: the VM gives the environment of this call, and as many of its terms as the arity says.
    let (env, arguments) = unsafe {
        let env = Env::new(&lifetime, env);
        (env, [0, 1, 2, 3].map(|index| Term::new(env, *arguments.add(index))))
    };
    match catch_unwind(|| crate::run_inline(env, arguments)) {
        Ok(Ok(term)) => term.as_c_arg(),
        // SAFETY: what is returned or raised is a term of this environment.
        failed => unsafe { handle_nif_result(failed, env).apply(env) },
    }
}

/// Whether a term is the empty list, which is a word that means the same everywhere.
pub fn is_nil(term: Term<'_>) -> bool {
    static NIL: LazyLock<u64> = LazyLock::new(|| {
        let mut builder = Builder::new();
        builder.end_list(0);
        word(builder.top())
    });
    word(term) == *NIL
}

/// The elements of a tuple.
#[derive(Clone)]
pub struct Elements<'a> {
    env: Env<'a>,
    left: &'a [ErlNifTerm],
}

impl<'a> Elements<'a> {
    pub fn of(term: Term<'a>) -> Option<Self> {
        let env = term.get_env();
        let mut arity = 0;
        let mut elements = MaybeUninit::uninit();
        // SAFETY: the term belongs to its environment; on success the elements stay where they are
        // as long as the environment does, which is what 'a says.
        let left = unsafe {
            if enif_get_tuple(env.as_c_arg(), term.as_c_arg(), &mut arity, elements.as_mut_ptr()) == 0 {
                return None;
            }
            match usize::try_from(arity) {
                Ok(arity) if arity > 0 => std::slice::from_raw_parts::<'a>(elements.assume_init(), arity),
                _ => &[],
            }
        };
        Some(Elements { env, left })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Term<'a>;

    fn next(&mut self) -> Option<Term<'a>> {
        let (first, rest) = self.left.split_first()?;
        self.left = rest;
        // SAFETY: the elements of a term of this environment are terms of this environment.
        Some(unsafe { Term::new(self.env, *first) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.len(), Some(self.left.len()))
    }
}

impl ExactSizeIterator for Elements<'_> {}

/// The entries of a map.
pub struct Entries<'a> {
    env: Env<'a>,
    iterator: ErlNifMapIterator,
}

impl<'a> Entries<'a> {
    pub fn of(map: Term<'a>) -> Option<Self> {
        let env = map.get_env();
        let mut iterator = MaybeUninit::uninit();
        // SAFETY: the term belongs to its environment; where it is a map the iterator is made.
        unsafe {
            let first = ErlNifMapIteratorEntry::ERL_NIF_MAP_ITERATOR_HEAD;
            let made = enif_map_iterator_create(env.as_c_arg(), map.as_c_arg(), iterator.as_mut_ptr(), first);
            (made != 0).then(|| Entries { env, iterator: iterator.assume_init() })
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Term<'a>, Term<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut key, mut value) = Default::default();
        // SAFETY: the iterator is live until it is dropped; keys and values of a map of this
        // environment are terms of it.
        unsafe {
            let env = self.env.as_c_arg();
            if enif_map_iterator_get_pair(env, &mut self.iterator, &mut key, &mut value) == 0 {
                return None;
            }
            enif_map_iterator_next(env, &mut self.iterator);
            Some((Term::new(self.env, key), Term::new(self.env, value)))
        }
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `of`, destroyed once.
        unsafe { enif_map_iterator_destroy(self.env.as_c_arg(), &mut self.iterator) };
    }
}

/// Environments that belong to no process are made once and used again: making one costs as much as
/// all the rest of a small message.
struct Environment(*mut ErlNifEnv);

// SAFETY: an environment may be used by any thread, one at a time.
unsafe impl Send for Environment {}

static SPARE: LazyLock<ArrayQueue<Environment>> = LazyLock::new(|| ArrayQueue::new(SPARES));

const SPARES: usize = 2_048;

impl Environment {
    fn take() -> Self {
        // SAFETY: makes a new environment, which is ours.
        SPARE.pop().unwrap_or_else(|| Environment(unsafe { enif_alloc_env() }))
    }

    fn give_back(self) {
        // SAFETY: the environment is ours, and whoever gives it back has no terms of it.
        unsafe { enif_clear_env(self.0) };
        if let Err(Environment(one_too_many)) = SPARE.push(self) {
            // SAFETY: as above; nobody else has it.
            unsafe { enif_free_env(one_too_many) };
        }
    }
}

/// Terms copied out of a process, for another thread to read.
pub struct Letter {
    env: *mut ErlNifEnv,
    terms: Vec<ErlNifTerm>,
}

// SAFETY: the environment belongs to no process and to this value alone; its terms do not change.
unsafe impl Send for Letter {}
// SAFETY: as above: nothing is built in the environment after `copy`.
unsafe impl Sync for Letter {}

impl Letter {
    pub fn copy(terms: &[Term<'_>]) -> Self {
        let Environment(env) = Environment::take();
        // SAFETY: the terms are copied whole.
        let terms = terms.iter().map(|term| unsafe { enif_make_copy(env, term.as_c_arg()) }).collect();
        Letter { env, terms }
    }

    pub fn term(&self, index: usize) -> Term<'_> {
        // SAFETY: the term was made in this environment, which lives as long as `self`.
        unsafe { Term::new(Env::new(self, self.env), self.terms[index]) }
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // Whoever had a term of it had borrowed `self`.
        Environment(self.env).give_back();
    }
}

/// An answer that is not written yet: its environment has the tag already, so that the message is
/// built and sent where it was begun.
pub struct Envelope {
    env: AtomicPtr<ErlNifEnv>,
    tag: ErlNifTerm,
}

/// Somebody reads the tag for a moment. No environment is there.
const LENT: *mut ErlNifEnv = std::ptr::without_provenance_mut(1);

impl Envelope {
    pub fn new(tag: Term<'_>) -> Self {
        let Environment(env) = Environment::take();
        // SAFETY: the tag is copied whole.
        let tag = unsafe { enif_make_copy(env, tag.as_c_arg()) };
        Envelope { env: AtomicPtr::new(env), tag }
    }

    /// Pushes the tag for a message that was made elsewhere, in place of opening this one; false where
    /// it was opened.
    pub fn push_tag(&self, builder: &mut Builder) -> bool {
        let Some(env) = self.take(null_mut()) else { return false };
        // SAFETY: both environments are alive, and nobody else has either.
        builder.stack.push(unsafe { enif_make_copy(builder.env, self.tag) });
        Environment(env).give_back();
        true
    }

    /// Pushes a copy of the tag; false where this was opened.
    pub fn copy_tag(&self, builder: &mut Builder) -> bool {
        let Some(env) = self.take(LENT) else { return false };
        // SAFETY: as in `push_tag`: whoever opens it meanwhile waits until it is back.
        builder.stack.push(unsafe { enif_make_copy(builder.env, self.tag) });
        self.env.store(env, Ordering::Release);
        true
    }

    /// The environment, with another pointer left in its place; none where it was opened.
    fn take(&self, left: *mut ErlNifEnv) -> Option<*mut ErlNifEnv> {
        loop {
            let env = self.env.load(Ordering::Acquire);
            if env.is_null() {
                return None;
            }
            if env == LENT {
                std::thread::yield_now();
            } else if self.env.compare_exchange(env, left, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(env);
            }
        }
    }

    /// The message that begins with `name` and the tag; once.
    pub fn open(&self, name: Atom) -> Option<Builder> {
        self.take(null_mut()).map(|env| {
            let mut builder = Builder::over(env, true);
            builder.push_atom(name);
            builder.stack.push(self.tag);
            builder
        })
    }
}

/// Where a caller looks for its answer for a moment, before that is sent as a message.
#[derive(Default)]
pub struct Meeting {
    state: AtomicU8,
    answer: OnceLock<Message>,
}

const EXPECTED: u8 = 0;
/// The answer is there, and the caller's.
const ANSWERED: u8 = 1;
const READ: u8 = 2;
/// The caller waits for a message.
const LEFT: u8 = 3;

/// A term, and the environment that has nothing else.
struct Message {
    env: *mut ErlNifEnv,
    term: ErlNifTerm,
}

// SAFETY: an environment may be used by any thread, one at a time: whose it is the state says.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Meeting {
    fn go(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The answer, copied for the process that waits, if it is there; once.
    pub fn answer<'a>(&self, env: Env<'a>) -> Option<Term<'a>> {
        if self.state.load(Ordering::Relaxed) != ANSWERED || !self.go(ANSWERED, READ) {
            return None;
        }
        let message = self.answer.get()?;
        // SAFETY: whoever answered left the environment, with this term of it, to whom the state says.
        let term = unsafe { Term::new(env, enif_make_copy(env.as_c_arg(), message.term)) };
        Environment(message.env).give_back();
        Some(term)
    }

    /// The caller looks no longer; false where it has just been answered.
    pub fn leave(&self) -> bool {
        self.go(EXPECTED, LEFT)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if *self.state.get_mut() == ANSWERED
            && let Some(message) = self.answer.get()
        {
            Environment(message.env).give_back();
        }
    }
}

impl Drop for Envelope {
    fn drop(&mut self) {
        let env = *self.env.get_mut();
        if !env.is_null() {
            Environment(env).give_back();
        }
    }
}

/// Maps of more keys are trees: OTP's MAP_SMALL_MAP_LIMIT.
const SMALL_MAP: usize = 32;

/// Builds one message, bottom-up: what is pushed last is on top, and containers take their elements
/// from the top. Only values built here are on the stack, so each belongs to the environment.
pub struct Builder {
    env: *mut ErlNifEnv,
    is_ours: bool,
    stack: Vec<ErlNifTerm>,
    /// Which message is being built.
    message: u64,
}

/// A value of the message that is being built.
#[derive(Clone, Copy)]
pub struct Built {
    term: ErlNifTerm,
    message: u64,
}

thread_local! {
    /// A thread builds one message after the other on the same stack, and counts them.
    static BENCH: RefCell<(Vec<ErlNifTerm>, u64)> = const { RefCell::new((Vec::new(), 0)) };
}

thread_local! {
    /// The environment of the process that runs on this thread; null on threads that the VM does not
    /// manage, and wherever no process is known.
    static CALLER: Cell<*mut ErlNifEnv> = const { Cell::new(null_mut()) };
}

/// Runs `body`, in which messages are sent on behalf of the calling process.
pub fn on_behalf_of<R>(env: Env<'_>, body: impl FnOnce() -> R) -> R {
    CALLER.set(env.as_c_arg());
    let result = body();
    CALLER.set(null_mut());
    result
}

/// A stack of more values is not kept.
const LONGEST_KEPT: usize = 64 * 1024;

impl Builder {
    pub fn new() -> Self {
        let Environment(env) = Environment::take();
        Builder::over(env, true)
    }

    /// Builds a term for the calling process, in a NIF.
    pub fn here(env: Env<'_>) -> Self {
        Builder::over(env.as_c_arg(), false)
    }

    /// What is on top, for the process that `here` was given.
    pub fn finish<'a>(mut self, env: Env<'a>) -> Term<'a> {
        assert!(std::ptr::eq(self.env, env.as_c_arg()), "a term of another environment");
        let term = self.stack.pop().expect("a term was built");
        // SAFETY: it was built in this environment.
        unsafe { Term::new(env, term) }
    }

    fn over(env: *mut ErlNifEnv, is_ours: bool) -> Self {
        BENCH.with_borrow_mut(|(stack, messages)| {
            *messages += 1;
            Builder { env, is_ours, stack: std::mem::take(stack), message: *messages }
        })
    }

    /// The value on top, to be used again in the same message.
    pub fn last(&self) -> Option<Built> {
        self.stack.last().map(|term| Built { term: *term, message: self.message })
    }

    pub fn push_again(&mut self, built: Built) {
        assert_eq!(built.message, self.message, "a term of another message");
        self.stack.push(built.term);
    }

    /// How many values are on the stack.
    pub fn height(&self) -> usize {
        self.stack.len()
    }

    /// Takes all above `height` off the stack.
    pub fn cut(&mut self, height: usize) {
        self.stack.truncate(height);
    }

    pub fn reserve(&mut self, values: usize) {
        self.stack.reserve(values);
    }

    fn env(&self) -> Env<'_> {
        // SAFETY: the environment lives as long as `self`.
        unsafe { Env::new(self, self.env) }
    }

    pub fn push(&mut self, value: impl Encoder) {
        let term = value.encode(self.env()).as_c_arg();
        self.stack.push(term);
    }

    pub fn push_atom(&mut self, atom: Atom) {
        self.stack.push(atom.as_c_arg());
    }

    /// The value must be finite: Erlang has no other floats.
    pub fn push_float(&mut self, value: f64) {
        assert!(value.is_finite(), "a float that is no Erlang float");
        // SAFETY: the environment is alive.
        self.stack.push(unsafe { enif_make_double(self.env, value) });
    }

    pub fn push_binary(&mut self, bytes: &[u8]) {
        let mut term = ErlNifTerm::default();
        // SAFETY: the new binary has room for exactly these bytes and is not shared yet.
        unsafe {
            let data = enif_make_new_binary(self.env, bytes.len(), &mut term);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        }
        self.stack.push(term);
    }

    pub fn push_shared(&mut self, bytes: &ResourceArc<SharedBytes>) {
        let binary = bytes.make_binary(self.env(), SharedBytes::as_slice);
        let term = Term::from(binary).as_c_arg();
        self.stack.push(term);
    }

    /// Pushes a part of a binary that was lent, as the BEAM has it.
    pub fn push_lent(&mut self, lent: &Lent, part: &[u8]) {
        let offset = part.as_ptr().addr().wrapping_sub(lent.data.addr());
        assert!(offset <= lent.len && part.len() <= lent.len - offset, "bytes of another binary");
        // SAFETY: the binary is alive and copied whole, which takes no copy of its bytes; the part lies in it.
        let term = unsafe {
            let whole = enif_make_copy(self.env, lent.letter.terms[0]);
            if part.len() == lent.len {
                whole
            } else {
                enif_make_sub_binary(self.env, whole, offset, part.len())
            }
        };
        self.stack.push(term);
    }

    /// Pushes the term that the bytes encode; false where they encode none, or an unknown atom.
    pub fn push_etf(&mut self, etf: &[u8]) -> bool {
        let mut term = ErlNifTerm::default();
        // SAFETY: the bytes are checked while they are decoded.
        let read = unsafe {
            enif_binary_to_term(self.env, etf.as_ptr(), etf.len(), &mut term, ERL_NIF_BIN2TERM_SAFE)
        };
        if read == 0 {
            return false;
        }
        self.stack.push(term);
        true
    }

    pub fn end_list(&mut self, len: usize) {
        let from = self.stack.len() - len;
        // SAFETY: the elements are terms of this environment; the array is only read.
        let list = unsafe { enif_make_list_from_array(self.env, self.stack[from..].as_ptr(), count(len)) };
        self.stack.truncate(from);
        self.stack.push(list);
    }

    pub fn end_tuple(&mut self, len: usize) {
        let from = self.stack.len() - len;
        // SAFETY: as for lists.
        let tuple = unsafe { enif_make_tuple_from_array(self.env, self.stack[from..].as_ptr(), count(len)) };
        self.stack.truncate(from);
        self.stack.push(tuple);
    }

    /// False where two keys are the same.
    pub fn end_map(&mut self, len: usize) -> bool {
        let from = self.stack.len() - 2 * len;
        let entries = &self.stack[from..];
        let made = if len <= SMALL_MAP { self.small_map(entries) } else { self.large_map(entries) };
        self.stack.truncate(from);
        self.stack.extend(made);
        made.is_some()
    }

    fn small_map(&self, entries: &[ErlNifTerm]) -> Option<ErlNifTerm> {
        let (keys, values): (Vec<_>, Vec<_>) = entries.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
        let mut map = ErlNifTerm::default();
        // SAFETY: keys and values are terms of this environment, as many of each.
        let made = unsafe {
            enif_make_map_from_arrays(self.env, keys.as_ptr(), values.as_ptr(), keys.len(), &mut map)
        };
        (made != 0).then_some(map)
    }

    /// Key by key, and without the steps on the way: made at once, a large map is sorted with random
    /// numbers that OTP takes from the calling scheduler, which our threads are not (OTP 25 crashes).
    fn large_map(&self, entries: &[ErlNifTerm]) -> Option<ErlNifTerm> {
        let steps = Builder::new();
        let mut size = 0;
        // SAFETY: the steps refer to keys and values of this environment, which outlives them; what
        // is kept is copied whole.
        unsafe {
            let mut map = enif_make_new_map(steps.env);
            for pair in entries.chunks_exact(2) {
                enif_make_map_put(steps.env, map, pair[0], pair[1], &mut map);
            }
            enif_get_map_size(steps.env, map, &mut size);
            (size == entries.len() / 2).then(|| enif_make_copy(self.env, map))
        }
    }

    /// Sends what is on top to a process of this node. False where it is dead. The builder is empty afterwards.
    pub fn send(&mut self, to: &LocalPid) -> bool {
        let message = self.stack.pop().expect("a message was built");
        self.stack.clear();
        // SAFETY: the message is a term of this environment, which the call empties.
        unsafe { enif_send(CALLER.get(), to.as_c_arg(), self.env, message) != 0 }
    }

    /// Leaves what is on top to who looks for it there; false where nobody does. To be called once for
    /// a meeting.
    pub fn meet(&mut self, meeting: &Meeting) -> bool {
        let term = *self.stack.last().expect("a message was built");
        let told = self.is_ours
            && meeting.state.load(Ordering::Relaxed) == EXPECTED
            && meeting.answer.set(Message { env: self.env, term }).is_ok()
            && meeting.go(EXPECTED, ANSWERED);
        // The environment is the caller's then.
        self.is_ours &= !told;
        told
    }

    /// What is on top, as a pid of this node.
    pub fn top_pid(&self) -> Option<LocalPid> {
        self.top().decode().ok()
    }

    pub fn top(&self) -> Term<'_> {
        let top = *self.stack.last().expect("something was built");
        // SAFETY: the term was made in this environment.
        unsafe { Term::new(self.env(), top) }
    }

    pub fn pop(&mut self) {
        self.stack.pop();
    }

    pub fn swap(&mut self) {
        let top = self.stack.len();
        self.stack.swap(top - 1, top - 2);
    }

    /// The process of this node that is registered under a name.
    pub fn find(&self, name: Atom) -> Option<LocalPid> {
        let mut pid = MaybeUninit::uninit();
        // SAFETY: on success the pid is written.
        unsafe {
            let found = enif_whereis_pid(CALLER.get(), name.as_c_arg(), pid.as_mut_ptr());
            (found != 0).then(|| LocalPid::from_c_arg(pid.assume_init()))
        }
    }

    pub fn existing_atom(&self, name: &str) -> Option<Atom> {
        Atom::existing_from_utf8_bytes(self.env(), name.as_bytes()).ok()
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        if self.is_ours {
            Environment(self.env).give_back();
        }
        let mut stack = std::mem::take(&mut self.stack);
        if stack.capacity() <= LONGEST_KEPT {
            stack.clear();
            BENCH.with_borrow_mut(|(place, _)| *place = stack);
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("lists and tuples from Python are shorter than four thousand million")
}

/// A binary that Python sees, without its process.
pub struct Lent {
    letter: Letter,
    data: *const u8,
    len: usize,
}

// SAFETY: the bytes are only read, and so is the letter.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// None where the term is no binary. What it is a part of lives as long.
    pub fn new(term: Term<'_>) -> Option<Self> {
        let letter = Letter::copy(&[term]);
        let bytes = Binary::from_term(letter.term(0)).ok()?;
        // They have their place for as long as the environment is not emptied: binaries do not move, and
        // nobody collects garbage there.
        let (data, len) = (bytes.as_ptr(), bytes.len());
        Some(Lent { letter, data, len })
    }
}

impl Memory for Lent {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the letter, which has the bytes, lives as long as `self`, and binaries are immutable.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// The external term format of an atom, or of a pid of this node, by its word.
pub fn etf_of_word(word: u64) -> Vec<u8> {
    let builder = Builder::new();
    // SAFETY: the word is an immediate term, which belongs to no environment.
    let term = unsafe { Term::new(builder.env(), std::mem::transmute::<usize, ErlNifTerm>(word as usize)) };
    term.to_binary().as_slice().to_vec()
}

/// The word of a pid of this node.
pub fn pid_word(pid: &LocalPid) -> u64 {
    // SAFETY: a pid of this node is a term and that is a word, both transparently.
    unsafe { std::mem::transmute::<ErlNifPid, usize>(*pid.as_c_arg()) as u64 }
}

/// The word of an atom.
pub fn atom_word(atom: Atom) -> u64 {
    // SAFETY: a term is a word, transparently.
    unsafe { std::mem::transmute::<ErlNifTerm, usize>(atom.as_c_arg()) as u64 }
}

/// The word that is a term. It names an atom or a pid of this node; others change with their place.
pub fn word(term: Term<'_>) -> u64 {
    // SAFETY: a term is a word, transparently.
    unsafe { std::mem::transmute::<ErlNifTerm, usize>(term.as_c_arg()) as u64 }
}
