use std::env;

/// Nothing that ships is linked to libpython. The integration tests of this crate are programs of
/// their own and need one: `PY_TEST_LIBPYTHON` names the file.
fn main() {
    println!("cargo:rerun-if-env-changed=PY_TEST_LIBPYTHON");
    if let Ok(library) = env::var("PY_TEST_LIBPYTHON") {
        println!("cargo:rustc-link-arg-tests={library}");
    }
}
