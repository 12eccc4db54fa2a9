//! What the operating system says, in the words of `:inet` and `:file`.

use rustix::io::Errno;
use rustler::{Encoder, Env, Term};

mod atoms {
    rustler::atoms! {
        error, eagain, ebadf, econnreset, einval, emfile, enfile, enomem, enotconn, enotsock, eperm, epipe,
        esrch, etoomanyrefs, errno,
    }
}

/// `{:error, reason}`: an atom, or `{:errno, number}` for what is not expected.
pub fn error(env: Env<'_>, errno: Errno) -> Term<'_> {
    let name = match errno {
        Errno::AGAIN => atoms::eagain(),
        Errno::BADF => atoms::ebadf(),
        Errno::CONNRESET => atoms::econnreset(),
        Errno::INVAL => atoms::einval(),
        Errno::MFILE => atoms::emfile(),
        Errno::NFILE => atoms::enfile(),
        Errno::NOMEM => atoms::enomem(),
        Errno::NOTCONN => atoms::enotconn(),
        Errno::NOTSOCK => atoms::enotsock(),
        Errno::PERM => atoms::eperm(),
        Errno::PIPE => atoms::epipe(),
        Errno::SRCH => atoms::esrch(),
        Errno::TOOMANYREFS => atoms::etoomanyrefs(),
        other => return (atoms::error(), (atoms::errno(), other.raw_os_error())).encode(env),
    };
    (atoms::error(), name).encode(env)
}
