//! Whether an output is still what its sources make, for languages whose tools always start from the beginning.
//!
//! Goes by content and not by time, so that a copy or a checkout of the same sources is built once.

use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An output and the sources that it is made from, as they were at one moment.
#[derive(Debug)]
pub(super) struct Fresh {
    output: PathBuf,
    inputs: String,
    record: PathBuf,
    recorded: Option<String>,
}

impl Fresh {
    /// Looks at all files in `folder`, except what is called like one of `skip` wherever it is, and at what was recorded
    /// when `output` was built. A change of `recipe`, which says how it is built, counts like one of a file.
    pub(super) fn look(
        folder: &Path,
        output: &Path,
        recipe: &str,
        skip: &[&str],
    ) -> io::Result<Self> {
        let mut files = Vec::new();
        collect(folder, skip, &mut HashSet::new(), &mut files)?;
        files.sort();
        let mut hash = Sha256::new();
        add(&mut hash, recipe.as_bytes());
        for file in files {
            let name = file.strip_prefix(folder).unwrap_or(&file);
            add(&mut hash, name.as_os_str().as_encoded_bytes());
            add(&mut hash, &fs::read(&file)?);
        }
        let mut record = output.as_os_str().to_owned();
        record.push(".inputs");
        let record = PathBuf::from(record);
        Ok(Self {
            output: output.to_path_buf(),
            inputs: hex(hash),
            recorded: fs::read_to_string(&record).ok(),
            record,
        })
    }

    /// Tells whether the output is there and as it was built from these sources.
    pub(super) fn is_fresh(&self) -> bool {
        let recorded = self.recorded.as_deref();
        recorded.is_some_and(|recorded| self.line().is_ok_and(|line| line == recorded))
    }

    /// Records that the output was built from the sources as they were when they were looked at.
    pub(super) fn keep(&self) -> io::Result<()> {
        fs::write(&self.record, self.line()?)
    }

    /// Returns what is recorded. The output is part of it: a build that failed half-way may have left another one.
    fn line(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        hash.update(fs::read(&self.output)?);
        Ok(format!("{} {}\n", self.inputs, hex(hash)))
    }
}

/// Adds one item so that no other items make the same hash.
fn add(hash: &mut Sha256, item: &[u8]) {
    hash.update((item.len() as u64).to_le_bytes());
    hash.update(item);
}

fn hex(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Collects the files in `folder` and the folders in it, each folder once: a link may lead back to one that was `seen`.
fn collect(
    folder: &Path,
    skip: &[&str],
    seen: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    if !seen.insert(folder.canonicalize()?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if skip.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, skip, seen, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A folder with two sources and an output that was built from them.
    fn built() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("src")).unwrap();
        fs::create_dir_all(folder.path().join("dist")).unwrap();
        fs::write(folder.path().join("src/a.py"), "a").unwrap();
        fs::write(folder.path().join("b.toml"), "b").unwrap();
        fs::write(output(&folder), "built").unwrap();
        look(&folder).keep().unwrap();
        folder
    }

    fn output(folder: &TempDir) -> PathBuf {
        folder.path().join("dist/app.wasm")
    }

    fn look_at(folder: &TempDir, recipe: &str) -> Fresh {
        Fresh::look(folder.path(), &output(folder), recipe, &["dist", "cache"]).unwrap()
    }

    fn look(folder: &TempDir) -> Fresh {
        look_at(folder, "tool 1")
    }

    #[test]
    fn output_is_fresh_until_a_source_or_the_recipe_changes() {
        let folder = built();
        assert!(look(&folder).is_fresh());
        assert!(!look_at(&folder, "tool 2").is_fresh());
        fs::write(folder.path().join("src/a.py"), "A").unwrap();
        assert!(!look(&folder).is_fresh());
        fs::write(folder.path().join("src/a.py"), "a").unwrap();
        assert!(look(&folder).is_fresh());
    }

    #[test]
    fn file_that_is_new_gone_or_renamed_is_a_change() {
        let folder = built();
        let (a, new) = (folder.path().join("src/a.py"), folder.path().join("c"));
        fs::write(&new, "").unwrap();
        assert!(!look(&folder).is_fresh());
        fs::remove_file(&new).unwrap();
        assert!(look(&folder).is_fresh());
        fs::rename(&a, &new).unwrap();
        assert!(!look(&folder).is_fresh());
    }

    #[test]
    fn skipped_names_do_not_count_wherever_they_are() {
        let folder = built();
        fs::create_dir(folder.path().join("src/cache")).unwrap();
        fs::write(folder.path().join("src/cache/x"), "x").unwrap();
        fs::write(folder.path().join("dist/x"), "x").unwrap();
        assert!(look(&folder).is_fresh());
    }

    #[test]
    fn linked_folder_counts_and_a_link_that_leads_back_does_no_harm() {
        let (folder, linked) = (built(), tempfile::tempdir().unwrap());
        symlink(folder.path(), folder.path().join("src/back")).unwrap();
        symlink(linked.path(), folder.path().join("vendor")).unwrap();
        assert!(look(&folder).is_fresh());
        fs::write(linked.path().join("sdk.py"), "").unwrap();
        assert!(!look(&folder).is_fresh());
    }

    #[test]
    fn output_that_is_gone_or_another_is_not_fresh() {
        let folder = built();
        fs::write(output(&folder), "half").unwrap();
        assert!(!look(&folder).is_fresh());
        fs::remove_file(output(&folder)).unwrap();
        assert!(!look(&folder).is_fresh());
    }

    #[test]
    fn sources_that_change_during_a_build_are_built_again() {
        let folder = built();
        fs::write(folder.path().join("src/a.py"), "A").unwrap();
        let before = look(&folder);
        fs::write(folder.path().join("src/a.py"), "AA").unwrap();
        fs::write(output(&folder), "built from A").unwrap();
        before.keep().unwrap();
        assert!(!look(&folder).is_fresh());
    }
}
