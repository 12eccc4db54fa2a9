//! Memory shared with worker processes.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use py_shared::{HEADER_MAX, NotReceived, Segment, receive_fd, send_fd};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result};
use rustler::schedule::consume_timeslice;
use rustler::{Binary, Encoder, Env, Error, LocalPid, NewBinary, NifResult, Resource, ResourceArc, Term};

use crate::ffi::{self, Answer, LongNif, Parcel};
use crate::reason;

mod atoms {
    rustler::atoms! { ok, error, nil, again, closed, malformed }
}

/// What is copied on a normal scheduler: 10 us, and 50 us into fresh memory.
const SMALL: usize = 128 << 10;
/// Of how many pieces at most.
const FEW: usize = 256;
/// From here on fresh memory for a binary is worth asking for in one go.
const LARGE: usize = 1 << 20;

pub struct SegmentResource(Option<Segment>);

#[rustler::resource_impl]
impl Resource for SegmentResource {}

impl SegmentResource {
    fn of(segment: Segment) -> ResourceArc<Self> {
        ResourceArc::new(SegmentResource(Some(segment)))
    }

    /// It is there until the resource is dropped.
    pub fn get(&self) -> NifResult<&Segment> {
        self.0.as_ref().ok_or(Error::BadArg)
    }
}

impl Drop for SegmentResource {
    /// The garbage collector runs this on a scheduler, and to give 100 MB back to the kernel takes 9 ms.
    fn drop(&mut self) {
        let large = self.0.take_if(|segment| segment.size() > 1 << 20);
        if let (Some(segment), Some(undertaker)) = (large, &*UNDERTAKER) {
            // If the thread had ended, the segment would be dropped here.
            let _ = undertaker.send(segment);
        }
    }
}

/// The thread that drops large segments.
static UNDERTAKER: LazyLock<Option<Sender<Segment>>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new().name("py_segments".into());
    thread.spawn(move || receiver.into_iter().for_each(drop)).ok().map(|_| sender)
});

/// To map memory may mean to wait for who supplies or gives back pages at the same time.
#[rustler::nif(schedule = "DirtyCpu")]
fn segment_create(env: Env<'_>, len: usize) -> Term<'_> {
    answer(env, Segment::create(len).map(SegmentResource::of))
}

#[rustler::nif]
fn segment_size(segment: ResourceArc<SegmentResource>) -> NifResult<usize> {
    Ok(segment.get()?.size())
}

/// Copies binaries into the segment, one behind the other, and tells how many bytes that were.
#[rustler::nif]
fn segment_write<'a>(env: Env<'a>, segment: Term<'a>, iovec: Term<'a>) -> NifResult<Answer<'a>> {
    let args = [segment, iovec];
    match small_len(iovec)? {
        Some(len) => here::<Write>(env, len, &args),
        None => Ok(Answer::dirty::<Write>(&args)),
    }
}

/// A binary with a copy of a range of the segment.
#[rustler::nif]
fn segment_read<'a>(
    env: Env<'a>,
    segment: Term<'a>,
    offset: Term<'a>,
    len: Term<'a>,
) -> NifResult<Answer<'a>> {
    let args = [segment, offset, len];
    match len.decode::<usize>()? {
        len if len <= SMALL => here::<Read>(env, len, &args),
        _ => Ok(Answer::dirty::<Read>(&args)),
    }
}

/// A binary on a range of the segment itself, which the binary keeps mapped. It changes when someone
/// writes there: the range may not be used again before the binary is gone.
#[rustler::nif]
fn segment_map<'a>(
    env: Env<'a>,
    segment: ResourceArc<SegmentResource>,
    offset: usize,
    len: usize,
) -> NifResult<Term<'a>> {
    ffi::binary_on(env, segment, |segment| segment.0.as_ref()?.view(offset, len)).ok_or(Error::BadArg)
}

/// A segment that somebody is told of when nobody reads it any more.
pub struct LoanResource {
    segment: ResourceArc<SegmentResource>,
    parcel: Parcel,
}

#[rustler::resource_impl]
impl Resource for LoanResource {
    const IMPLEMENTS_DESTRUCTOR: bool = true;

    fn destructor(self, env: Env<'_>) {
        self.parcel.send(env);
    }
}

/// Has a process sent a message when neither the loan is there any more nor a binary on it.
#[rustler::nif]
fn segment_lend(
    segment: ResourceArc<SegmentResource>,
    owner: LocalPid,
    message: Term<'_>,
) -> ResourceArc<LoanResource> {
    ResourceArc::new(LoanResource { segment, parcel: Parcel::new(&owner, message) })
}

/// As `segment_map`, of a segment on loan.
#[rustler::nif]
fn loan_map<'a>(
    env: Env<'a>,
    loan: ResourceArc<LoanResource>,
    offset: usize,
    len: usize,
) -> NifResult<Term<'a>> {
    ffi::binary_on(env, loan, |loan| loan.segment.0.as_ref()?.view(offset, len)).ok_or(Error::BadArg)
}

/// The 64-bit word at 8 * index.
#[rustler::nif]
fn segment_word(segment: ResourceArc<SegmentResource>, index: usize) -> NifResult<u64> {
    let word = segment.get()?.word(index).ok_or(Error::BadArg)?;
    Ok(word.load(Ordering::Acquire))
}

/// Sends a segment and a header over a unix socket.
#[rustler::nif]
fn segment_send<'a>(
    env: Env<'a>,
    socket: i32,
    header: Binary<'a>,
    segment: ResourceArc<SegmentResource>,
) -> NifResult<Term<'a>> {
    let segment = segment.get()?;
    if header.len() > HEADER_MAX {
        return Err(Error::BadArg);
    }
    let sent = with_socket(socket, |socket| send_fd(socket, &header, segment.as_fd()))?;
    Ok(match sent {
        Ok(()) => atoms::ok().encode(env),
        Err(Errno::AGAIN) => atoms::again().encode(env),
        Err(errno) => reason::error(env, errno),
    })
}

/// Receives a header, and the segment that came with it.
#[rustler::nif]
fn segment_receive(env: Env<'_>, socket: i32) -> NifResult<Term<'_>> {
    let received = with_socket(socket, |socket| Ok(receive_fd(socket)))?;
    Ok(match received {
        Ok(Ok((header, None))) => (binary(env, &header), atoms::nil()).encode(env),
        Ok(Ok((header, Some(file)))) => match Segment::adopt(file) {
            Ok(segment) => (binary(env, &header), SegmentResource::of(segment)).encode(env),
            Err(errno) => reason::error(env, errno),
        },
        Ok(Err(NotReceived::Closed)) => (atoms::error(), atoms::closed()).encode(env),
        Ok(Err(NotReceived::Malformed)) => (atoms::error(), atoms::malformed()).encode(env),
        Ok(Err(NotReceived::System(Errno::AGAIN))) => atoms::again().encode(env),
        Ok(Err(NotReceived::System(errno))) | Err(errno) => reason::error(env, errno),
    })
}

struct Write;

impl LongNif for Write {
    const NAME: &'static CStr = c"segment_write";

    fn run<'a>(env: Env<'a>, args: &[Term<'a>]) -> NifResult<Term<'a>> {
        let [segment, iovec] = args else { return Err(Error::BadArg) };
        let segment: ResourceArc<SegmentResource> = segment.decode()?;
        let segment = segment.get()?;
        let pieces = Pieces(*iovec).collect::<NifResult<Vec<Binary>>>()?;
        let len = pieces.iter().map(|piece| piece.len()).sum();
        if !segment.holds(0, len) {
            return Err(Error::BadArg);
        }
        Ok(answer(env, write(segment, &pieces, len)))
    }
}

fn write(segment: &Segment, pieces: &[Binary<'_>], len: usize) -> Result<usize> {
    segment.reserve(len)?;
    pieces.iter().try_fold(0, |offset, piece| {
        segment.write_at(offset, piece)?;
        Ok(offset + piece.len())
    })
}

struct Read;

impl LongNif for Read {
    const NAME: &'static CStr = c"segment_read";

    fn run<'a>(env: Env<'a>, args: &[Term<'a>]) -> NifResult<Term<'a>> {
        let [segment, offset, len] = args else { return Err(Error::BadArg) };
        let segment: ResourceArc<SegmentResource> = segment.decode()?;
        let (segment, offset, len) = (segment.get()?, offset.decode()?, len.decode()?);
        if !segment.holds(offset, len) {
            return Err(Error::BadArg);
        }
        let Some(mut binary) = ffi::allocate(len) else { return Ok(reason::error(env, Errno::NOMEM)) };
        if len >= LARGE {
            py_shared::prepare(&mut binary);
        }
        Ok(match segment.read_at(offset, &mut binary) {
            Ok(()) => binary.release(env).to_term(env),
            Err(errno) => reason::error(env, errno),
        })
    }
}

/// Does on this scheduler what is short enough.
fn here<'a, T: LongNif>(env: Env<'a>, len: usize, args: &[Term<'a>]) -> NifResult<Answer<'a>> {
    let percent = 1 + 10 * len / SMALL;
    consume_timeslice(env, i32::try_from(percent).unwrap_or(100));
    T::run(env, args).map(Answer::Now)
}

/// How many bytes these binaries have, if those are few; this looks no further than that.
fn small_len(iovec: Term<'_>) -> NifResult<Option<usize>> {
    let mut len = 0_usize;
    for (index, piece) in Pieces(iovec).enumerate() {
        len = len.saturating_add(piece?.len());
        if len > SMALL || index >= FEW {
            return Ok(None);
        }
    }
    Ok(Some(len))
}

/// The binaries of a list, which may prove to be something else.
struct Pieces<'a>(Term<'a>);

impl<'a> Iterator for Pieces<'a> {
    type Item = NifResult<Binary<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty_list() {
            return None;
        }
        Some(self.0.list_get_cell().and_then(|(head, tail)| {
            self.0 = tail;
            head.decode()
        }))
    }
}

/// A socket that blocks would hold up a scheduler.
fn with_socket<R>(number: i32, run: impl FnOnce(BorrowedFd<'_>) -> Result<R>) -> NifResult<Result<R>> {
    let result = ffi::with_descriptor(number, |socket| match fcntl_getfl(socket) {
        Ok(flags) if flags.contains(OFlags::NONBLOCK) => Some(run(socket)),
        Ok(_) => None,
        Err(errno) => Some(Err(errno)),
    });
    result.flatten().ok_or(Error::BadArg)
}

fn answer<T: Encoder>(env: Env<'_>, result: Result<T>) -> Term<'_> {
    result.map_or_else(|errno| reason::error(env, errno), |value| value.encode(env))
}

fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    NewBinary::from_slice(env, bytes).into()
}
