//! Where the names of a request lead: what is asked for again is not looked for again.
//!
//! Only names and modules are kept. What a name stands for is looked up each time, and whether the
//! module is still the one that is imported: both may be replaced at any time.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::ffi::{self, Attached};

/// Names that meet in a place push each other out.
const PLACES: usize = 256;

/// The ids of two atoms: a module and something in it.
pub type Key = (u64, u64);

#[derive(Default)]
pub struct Routes(Attached<Vec<Option<(Key, Route)>>>);

struct Route {
    target: Py<PyString>,
    name: Py<PyString>,
    module: Py<PyAny>,
}

/// What a request names.
pub enum Function<'py> {
    Found(Bound<'py, PyAny>),
    Named(Names<'py>),
    /// An attribute of an object.
    Of(Bound<'py, PyAny>, Bound<'py, PyString>),
}

pub struct Names<'py> {
    pub target: Bound<'py, PyString>,
    pub name: Bound<'py, PyString>,
    /// Under which it is kept where it leads, if both are atoms.
    pub key: Option<Key>,
}

impl Routes {
    /// What two atoms name now, where it is a plain global of a module that they led to before and that
    /// still is the one imported.
    pub fn find<'py>(&self, py: Python<'py>, key: Key) -> Option<Bound<'py, PyAny>> {
        // Nothing is looked up in there: to compare keys may run Python code.
        let (target, name, module) = self.0.with(py, |places| {
            let (known, route) = places.get(place(key))?.as_ref()?;
            (*known == key).then(|| {
                let Route { target, name, module } = route;
                (target.bind(py).clone(), name.bind(py).clone(), module.bind(py).clone())
            })
        })?;
        // Of a class of its own, it may have something else under that name.
        let is_same = ffi::is_plain_module(&module) && ffi::is_imported_as(&target, &module);
        if is_same { ffi::global(&module, &name) } else { None }
    }

    /// Keeps the module that the first name led to; the second is one plain name in it.
    pub fn keep(&self, names: &Names<'_>, module: &Bound<'_, PyAny>) {
        let Some(key) = names.key.filter(|_| ffi::is_plain_module(module)) else { return };
        let route = Route {
            target: names.target.clone().unbind(),
            name: names.name.clone().unbind(),
            module: module.clone().unbind(),
        };
        let replaced = self.0.with(module.py(), |places| {
            if places.is_empty() {
                places.resize_with(PLACES, || None);
            }
            places[place(key)].replace((key, route))
        });
        // Not in there: it may be the last that holds a module.
        drop(replaced);
    }
}

fn place((target, name): Key) -> usize {
    let mixed = (target ^ name.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as usize % PLACES
}
