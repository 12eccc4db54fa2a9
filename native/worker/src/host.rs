//! Messages from Python code, which the BEAM delivers.

use py_core::convert::{Write, from_python};
use py_core::wire::{Address, Host, Inbox as CoreInbox};
use py_core::{Fault, Interpreter, Kind};
use pyo3::prelude::*;

use crate::etf::{VERSION, Writer};
use crate::frames::outgoing;
use crate::inbox::Inbox;
use crate::outbox::Frame;

/// Where in a frame it is said to whom it goes, and that there are references in it.
const SEND_KIND: usize = 5;
const REFERRING: u8 = 2;

pub struct Worker(pub &'static Inbox);

impl Host for Worker {
    fn forget(&self, number: u64) {
        self.0.out.put(&Frame::new(outgoing::FORGET).u64(number));
    }

    fn send(
        &self,
        interpreter: &'static Interpreter,
        to: Address<'_>,
        message: &Bound<'_, PyAny>,
    ) -> Result<bool, Fault> {
        let (kind, to) = match to {
            Address::Pid(etf) => {
                if !Writer::default().opaque(etf) {
                    return Err(Fault::new(Kind::Encode, "dest is no Pid"));
                }
                (0, etf)
            }
            Address::Name(name) => (1, name.as_bytes()),
        };
        let Ok(len) = u16::try_from(to.len()) else {
            return Ok(false);
        };
        let head = Frame::new(outgoing::SEND).u8(kind).bytes(&len.to_be_bytes()).bytes(to).u8(VERSION);
        let mut writer = Writer::new(head.0);
        if let Err(refusal) = from_python(interpreter, message, &mut writer, &|| true) {
            interpreter.drop_objects(message.py(), &writer.objects);
            return Err(refusal.into_fault(Kind::Decode, "message"));
        }
        if !writer.objects.is_empty() {
            writer.bytes[SEND_KIND] |= REFERRING;
        }
        self.0.out.put(&Frame(writer.bytes));
        Ok(true)
    }

    fn inbox(&self) -> Option<&dyn CoreInbox> {
        Some(&self.0)
    }
}
