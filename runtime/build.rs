//! Lists the files that `wrun new` makes applications from, for `cli/new/template.rs` to embed: the templates, and the
//! SDK, of which every application gets a copy.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What tools leave in those folders; names that begin with a dot are left out, too.
const SKIPPED: [&str; 4] = ["Cargo.lock", "__pycache__", "node_modules", "target"];

fn main() -> io::Result<()> {
    // Asked for when it runs: the script may have been compiled in another clone that shares the target folder.
    let root = env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| io::Error::other("cargo sets CARGO_MANIFEST_DIR"))?;
    let root = Path::new(&root);
    let mut list = String::from("&[\n");
    add(&root.join("templates"), "templates", &mut list)?;
    // One by one, so that what is compiled to `target` there is no change of the whole.
    for path in entries(&root.join("../guest-sdk"))? {
        add(&path, &format!("sdk/{}", file_name(&path)), &mut list)?;
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("embedded.rs"), list)
}

/// Adds the file at `path` under this name, or all files in it.
fn add(path: &Path, name: &str, list: &mut String) -> io::Result<()> {
    // A folder changes when a file is new in it.
    println!("cargo::rerun-if-changed={}", path.display());
    if path.is_dir() {
        for path in entries(path)? {
            add(&path, &format!("{name}/{}", file_name(&path)), list)?;
        }
        return Ok(());
    }
    *list += &format!("({name:?}, include_bytes!({path:?})),\n");
    Ok(())
}

/// Returns what is in `folder` and belongs to it, in an order that does not change.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| {
        let name = file_name(path);
        !name.starts_with('.') && !SKIPPED.contains(&name.as_str())
    });
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
