//! Files over sockets: what arrives, and what does not.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use py_shared::{HEADER_MAX, NotReceived, Segment, receive_fd, send_fd};
use rustix::cmsg_space;
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

fn pair() -> (UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_nonblocking(true).unwrap();
    (here, there)
}

fn again() -> Option<NotReceived> {
    Some(NotReceived::System(Errno::AGAIN))
}

#[test]
fn a_segment_arrives_with_its_header() {
    let (here, there) = pair();
    let segment = Segment::create(1).unwrap();
    segment.write_at(0, b"shared").unwrap();
    send_fd(&here, b"id", segment.as_fd()).unwrap();
    drop(segment);

    let (header, file) = receive_fd(&there).unwrap();
    assert_eq!(header, b"id");
    let file = file.unwrap();
    assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    let mut bytes = [0; 6];
    Segment::adopt(file).unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"shared");
    assert_eq!(receive_fd(&there).err(), again());
}

#[test]
fn frames_with_and_without_a_file_keep_apart() {
    let (mut here, there) = pair();
    let segment = Segment::create(1).unwrap();
    here.write_all(b"\x05plain").unwrap();
    send_fd(&here, b"", segment.as_fd()).unwrap();
    send_fd(&here, &[7; HEADER_MAX], segment.as_fd()).unwrap();
    here.write_all(b"\x00\x01a").unwrap();

    let received: Vec<_> = std::iter::from_fn(|| receive_fd(&there).ok()).collect();
    let seen: Vec<_> = received.iter().map(|(header, file)| (header.as_slice(), file.is_some())).collect();
    let longest = [7; HEADER_MAX];
    assert_eq!(seen, [(&b"plain"[..], false), (b"", true), (&longest, true), (b"", false), (b"a", false)]);
}

#[test]
fn a_header_that_is_too_long_is_refused() {
    let (here, there) = pair();
    let segment = Segment::create(1).unwrap();
    assert_eq!(send_fd(&here, &[0; HEADER_MAX + 1], segment.as_fd()), Err(Errno::MSGSIZE));
    assert_eq!(receive_fd(&there).err(), again());
}

#[test]
fn a_full_socket_says_so_and_loses_nothing() {
    let (here, there) = pair();
    let segment = Segment::create(1).unwrap();
    let full = (0_u32..).map(|i| (i, send_fd(&here, &i.to_le_bytes(), segment.as_fd())));
    let (sent, error) = full.into_iter().find(|(_, result)| result.is_err()).unwrap();
    // Too many that nobody has received is ETOOMANYREFS, which a busy machine may meet first.
    assert!(matches!(error, Err(Errno::AGAIN | Errno::TOOMANYREFS)), "{error:?}");
    for i in 0..sent {
        assert_eq!(receive_fd(&there).unwrap().0, i.to_le_bytes());
    }
    assert_eq!(receive_fd(&there).err(), again());
}

#[test]
fn a_closed_socket_says_so() {
    let (here, there) = pair();
    let segment = Segment::create(1).unwrap();
    send_fd(&here, b"last", segment.as_fd()).unwrap();
    drop(here);
    assert_eq!(receive_fd(&there).unwrap().0, b"last");
    assert_eq!(receive_fd(&there).err(), Some(NotReceived::Closed));
    assert_eq!(send_fd(&there, b"", segment.as_fd()), Err(Errno::PIPE));
}

#[test]
fn what_is_no_frame_is_refused() {
    let (mut here, there) = pair();
    here.write_all(b"\x05abc").unwrap();
    assert_eq!(receive_fd(&there).err(), Some(NotReceived::Malformed));

    let segment = Segment::create(1).unwrap();
    for count in [2, 3] {
        let files = vec![segment.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(&here, &[IoSlice::new(b"\x01a")], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(receive_fd(&there).err(), Some(NotReceived::Malformed));
    }
}

#[test]
fn a_socket_that_blocks_waits() {
    let (here, there) = UnixStream::pair().unwrap();
    let receiver = thread::spawn(move || receive_fd(&there).unwrap());
    let segment = Segment::create(1).unwrap();
    send_fd(&here, b"later", segment.as_fd()).unwrap();
    assert_eq!(receiver.join().unwrap().0, b"later");
}
