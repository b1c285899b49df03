//! Which files a project consists of: the folders and files that are worth watching, and what in them is not.

use crate::config::{Config, MANIFEST, Manifest, ServeArgs, Source};
use cargo_metadata::MetadataCommand;
use ignore::{DirEntry, WalkBuilder};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Bound::{Included, Unbounded};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Folders that are made from the sources beside them.
const MADE: [&str; 5] = ["__pycache__", "dist", "node_modules", "target", "venv"];

/// Where to look. All paths are absolute.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Folders with all that is in them.
    folders: BTreeSet<PathBuf>,
    /// Files, which need not be there.
    files: BTreeSet<PathBuf>,
    /// The server's own folder, which changes with every request.
    state: Option<PathBuf>,
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every folder in which something may change.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Every file that matters.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Roots {
    /// Returns where the files of what `args` name are; `config` is what they led to, if they led to anything.
    pub(super) fn of(args: &ServeArgs, config: Option<&Config>) -> Self {
        let mut roots = Self::default();
        roots.add(&args.path);
        let manifest = match &args.config {
            Some(file) => file.clone(),
            None if args.path.is_dir() => args.path.join(MANIFEST),
            None => args.path.clone(),
        };
        let is_manifest = manifest.extension().is_some_and(|it| it == "toml");
        let folder = manifest.parent().filter(|_| is_manifest);
        if let Some(folder) = folder {
            roots.add(&manifest);
            // Also if the component is not there yet, without which there are no settings.
            let component = Manifest::read(&manifest).ok().and_then(|it| it.component);
            component.iter().for_each(|it| roots.add(&folder.join(it)));
            if args.path == manifest {
                roots.add(folder);
            }
        }
        if let Some(config) = config {
            match &config.source {
                Source::File(path) | Source::Package(path) => roots.add(path),
            }
            let databases = config.shared.databases.values();
            databases
                .filter_map(|database| database.migrations.as_ref())
                .for_each(|folder| roots.add(folder));
            roots.state = Some(absolute(&config.state.path));
        }
        roots
    }

    /// Takes over what only a look at good settings could tell.
    pub(super) fn inherit(&mut self, before: Self) {
        self.state = self.state.take().or(before.state);
    }

    /// Adds the Cargo packages that the one in `folder` is built from, as far as they are on this machine.
    pub(super) fn add_packages(&mut self, folder: &Path) {
        let metadata = MetadataCommand::new()
            .current_dir(folder)
            // Building has fetched what is needed; if it has not, the next build will.
            .other_options(["--offline".to_owned()])
            .exec();
        for package in metadata.into_iter().flat_map(|metadata| metadata.packages) {
            let folder = package
                .manifest_path
                .parent()
                .filter(|_| package.source.is_none());
            folder
                .into_iter()
                .for_each(|folder| self.add(folder.as_std_path()));
        }
    }

    fn add(&mut self, path: &Path) {
        let set = if path.is_dir() {
            &mut self.folders
        } else {
            &mut self.files
        };
        set.insert(absolute(path));
    }

    /// Returns what there is now.
    pub(super) fn find(&self) -> Found {
        let mut found = Found::default();
        for folder in &self.folders {
            let state = self.state.clone();
            let own = own_output();
            let walk = WalkBuilder::new(folder)
                .standard_filters(false)
                .hidden(true)
                .git_ignore(true)
                .require_git(false)
                .filter_entry(move |entry| {
                    let is_own = entry.ino().is_some_and(|number| own.contains(&number));
                    is_source(entry) && !is_own && Some(entry.path()) != state.as_deref()
                })
                .build();
            for entry in walk.filter_map(Result::ok) {
                let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
                let set = if is_folder {
                    &mut found.folders
                } else {
                    &mut found.files
                };
                set.insert(entry.into_path());
            }
        }
        for file in &self.files {
            // Until it is there, the nearest folder that is tells of the next one.
            let folder = file.ancestors().skip(1).find(|folder| folder.is_dir());
            found.folders.extend(folder.map(Path::to_path_buf));
            found.files.insert(file.clone());
        }
        found
    }
}

impl Found {
    /// Tells whether `path` is a file that matters, or a folder with one.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        let mut from = self.files.range::<Path, _>((Included(path), Unbounded));
        from.next().is_some_and(|file| file.starts_with(path))
    }
}

/// Tells whether a person writes what is there: not a compiler, and not an editor for itself.
fn is_source(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
    let is_made = is_folder
        && MADE
            .iter()
            .any(|made| entry.file_name() == OsStr::new(made));
    entry.depth() == 0 || !(is_made || name.ends_with('~') || name.starts_with('#'))
}

/// Returns the inode numbers of the files, if they are files, that this process itself writes to: each build would be
/// followed by another one.
fn own_output() -> Vec<u64> {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let metadata = [stdout, stderr].map(|fd| File::from(fd?).metadata());
    let files = metadata.into_iter().flatten().filter(Metadata::is_file);
    files.map(|file| file.ino()).collect()
}

/// Returns the path without symbolic links, as far as it is there.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let real = path.ancestors().find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        Some(folder.canonicalize().ok()?.join(rest))
    });
    // Of the root alone it could not be said, and that is always there.
    real.unwrap_or(path).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn project(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().canonicalize().unwrap();
        for file in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        (parent, folder)
    }

    fn found(folder: &Path) -> Vec<String> {
        let args = ServeArgs {
            path: folder.to_path_buf(),
            ..ServeArgs::default()
        };
        let found = Roots::of(&args, Config::load(&args).ok().as_ref()).find();
        let name = |file: &PathBuf| file.strip_prefix(folder).unwrap().display().to_string();
        found.files.iter().map(name).collect()
    }

    #[test]
    fn sources_are_found_and_what_is_made_from_them_is_not() {
        let (_parent, folder) = project(&[
            "Cargo.toml",
            "src/lib.rs",
            "src/lib.rs~",
            "src/.lib.rs.swp",
            "src/#lib.rs#",
            "vendor/sdk/src/lib.rs",
            "vendor/sdk/target/x",
            "migrations/001.sql",
            "target/debug/app",
            "dist/app.wasm",
            "node_modules/a/index.js",
            "__pycache__/a.pyc",
            ".venv/x.py",
            ".git/index",
            ".wrun/control",
            "made/x.rs",
            "state/data/default.sqlite",
            "notes.log",
        ]);
        fs::write(folder.join(".gitignore"), "/made\n*.log\n").unwrap();
        fs::write(folder.join("wrun.toml"), "[serve]\nstate = \"state\"\n").unwrap();
        assert_eq!(
            found(&folder),
            [
                "Cargo.toml",
                "migrations/001.sql",
                "src/lib.rs",
                "vendor/sdk/src/lib.rs",
                "wrun.toml"
            ]
        );
    }

    #[test]
    fn component_that_the_manifest_names_is_found_wherever_it_is() {
        let (_parent, folder) = project(&["dist/app.wasm", "dist/app.js"]);
        fs::write(folder.join("wrun.toml"), "component = \"dist/app.wasm\"\n").unwrap();
        assert_eq!(found(&folder), ["dist/app.wasm", "wrun.toml"]);
        fs::remove_file(folder.join("dist/app.wasm")).unwrap();
        assert_eq!(
            found(&folder),
            ["dist/app.wasm", "wrun.toml"],
            "it will be there"
        );
    }

    #[test]
    fn component_alone_is_all_there_is() {
        let (_parent, folder) = project(&["app.wasm", "other.wasm"]);
        let args = ServeArgs {
            path: folder.join("app.wasm"),
            ..ServeArgs::default()
        };
        let found = Roots::of(&args, None).find();
        assert_eq!(found.files, BTreeSet::from([folder.join("app.wasm")]));
        assert_eq!(found.folders, BTreeSet::from([folder]));
    }

    #[test]
    fn folder_concerns_if_there_is_a_file_that_matters_in_it() {
        let (_parent, folder) = project(&["a/b/c.rs", "a-b"]);
        let args = ServeArgs {
            path: folder.clone(),
            ..ServeArgs::default()
        };
        let found = Roots::of(&args, None).find();
        for (path, concerns) in [
            ("a", true),
            ("a/b", true),
            ("a/b/c.rs", true),
            ("a/b/d", false),
            ("b", false),
        ] {
            assert_eq!(found.concerns(&folder.join(path)), concerns, "{path}");
        }
    }
}
