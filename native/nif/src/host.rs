//! Messages from Python code to processes.

use py_core::convert::from_python;
use py_core::wire::{Address, Host};
use py_core::{Fault, Interpreter, Kind};
use pyo3::prelude::*;

use crate::atoms;
use crate::ffi::Builder;
use crate::terms::TermWriter;

pub struct Node;

impl Host for Node {
    fn forget(&self, number: u64) {
        let mut builder = Builder::new();
        builder.push_atom(atoms::py_forget());
        builder.push(number);
        builder.end_tuple(2);
        if let Some(dispatcher) = builder.find(atoms::py_callbacks()) {
            builder.send(&dispatcher);
        }
    }

    fn send(
        &self,
        interpreter: &'static Interpreter,
        to: Address<'_>,
        message: &Bound<'_, PyAny>,
    ) -> Result<bool, Fault> {
        let mut builder = Builder::new();
        let to = match to {
            Address::Pid(etf) if builder.push_etf(etf) => {
                let local = builder.top_pid();
                if local.is_some() {
                    builder.pop();
                }
                local
            }
            Address::Pid(_) => return Err(Fault::new(Kind::Encode, "dest is no Pid")),
            Address::Name(name) => {
                let process = builder.existing_atom(name).and_then(|name| builder.find(name));
                let Some(process) = process else {
                    return Ok(false);
                };
                Some(process)
            }
        };
        let mut writer = TermWriter { builder: &mut builder, interpreter, pool: None };
        from_python(interpreter, message, &mut writer, &|| true)
            .map_err(|refusal| refusal.into_fault(Kind::Decode, "message"))?;
        if let Some(local) = to {
            return Ok(builder.send(&local));
        }
        builder.end_tuple(2);
        builder.push_atom(atoms::py_forward());
        builder.swap();
        builder.end_tuple(2);
        // `enif_send` reaches only this node; the process of this name reaches all.
        let forwarder = builder.find(atoms::py_output_process());
        Ok(forwarder.is_some_and(|forwarder| builder.send(&forwarder)))
    }
}
