//! Gives each of the programs its memory map, where the linker script of `cortex-m-rt` looks for it.

use std::path::{Path, PathBuf};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (program, folder) in [("mps2", "program"), ("panics", "program"), ("loader", "loader")] {
        let (map, to) = (Path::new(folder).join("memory.x"), out.join(folder));
        std::fs::create_dir_all(&to).expect("OUT_DIR can be written");
        std::fs::copy(&map, to.join("memory.x")).expect("the memory map can be copied");
        println!("cargo:rustc-link-arg-bin={program}=-L{}", to.display());
        println!("cargo:rustc-link-arg-bin={program}=-Tlink.x");
        println!("cargo:rerun-if-changed={}", map.display());
    }
    println!("cargo:rerun-if-env-changed=NODE_NAME");
    println!("cargo:rerun-if-env-changed=NODE_KEY");
    println!("cargo:rerun-if-env-changed=NODE_WEARS_AFTER");
}
