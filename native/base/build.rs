fn main() {
    // Threads of Python outlive any code that could unload this library.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
}
