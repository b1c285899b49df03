//! Tells when a file of the project has changed: once for all that changes at about the same time.

use super::roots::{Found, Roots};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use notify::{Event, INotifyWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

/// After this long without a change, what belongs together is complete: an editor's write and rename, a checkout.
const QUIET: Duration = Duration::from_millis(150);

/// Nothing is waited for longer than this.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What a build may write beside the sources by itself.
const LOCK_FILES: [&str; 5] = [
    "Cargo.lock",
    "package-lock.json",
    "pnpm-lock.yaml",
    "uv.lock",
    "yarn.lock",
];

/// The files of a project, and what happens to them.
pub(super) struct Watch {
    watcher: INotifyWatcher,
    /// The paths that something happened to.
    events: UnboundedReceiver<PathBuf>,
    roots: Roots,
    /// What there was when it was last looked at.
    found: Found,
    /// The folders that the watcher watches.
    watched: BTreeSet<PathBuf>,
    /// What happened while a build ran.
    missed: Vec<PathBuf>,
}

impl Watch {
    /// Returns one that follows nothing yet.
    pub(super) fn new() -> Result<Self, Failure> {
        let (sender, events) = unbounded_channel();
        let report = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if event.need_rescan() {
                // There were too many: anything may have changed.
                let _ = sender.send(PathBuf::from("/"));
            }
            // Reading is what a build does, and no change.
            let is_change = !event.kind.is_access();
            // Nobody listens to the last of them.
            let _ = event
                .paths
                .into_iter()
                .filter(|_| is_change)
                .try_for_each(|path| sender.send(path));
        };
        let watcher = notify::recommended_watcher(report)
            .or_fail(ExitCode::System, || "cannot watch files".to_owned())?;
        Ok(Self {
            watcher,
            events,
            roots: Roots::default(),
            found: Found::default(),
            watched: BTreeSet::new(),
            missed: Vec::new(),
        })
    }

    /// Looks at `roots` from here on.
    pub(super) fn follow(&mut self, roots: Roots) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.roots, roots);
        self.roots.inherit(before);
        self.look()
    }

    /// Takes note of what a build has done; of a Cargo package, also where it has its parts from.
    pub(super) fn settle_build(&mut self, package: Option<&Path>) -> Result<(), Failure> {
        while let Ok(path) = self.events.try_recv() {
            self.missed.push(path);
        }
        let is_lock = |path: &PathBuf| LOCK_FILES.iter().any(|lock| path.ends_with(lock));
        self.missed.retain(|path| !is_lock(path));
        if let Some(folder) = package.filter(|folder| folder.join("Cargo.toml").is_file()) {
            self.roots.add_packages(folder);
        }
        Ok(())
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&mut self) -> Result<(), Failure> {
        loop {
            self.settle().await;
            let before = std::mem::take(&mut self.found);
            let paths = std::mem::take(&mut self.missed);
            for path in &paths {
                // A folder of that name may be another one now.
                self.watched.retain(|folder| !folder.starts_with(path));
            }
            self.look()?;
            if paths
                .iter()
                .any(|path| before.concerns(path) || self.found.concerns(path))
            {
                return Ok(());
            }
        }
    }

    /// Waits for an event, and then until no more come.
    async fn settle(&mut self) {
        if self.missed.is_empty() {
            self.missed.extend(self.events.recv().await);
        }
        let end = Instant::now() + SETTLE_MAX;
        while let Ok(Some(path)) =
            timeout_at(end.min(Instant::now() + QUIET), self.events.recv()).await
        {
            self.missed.push(path);
        }
    }

    /// Finds out what there is now, and watches all of it.
    fn look(&mut self) -> Result<(), Failure> {
        loop {
            self.found = self.roots.find();
            let folders: Vec<_> = self
                .found
                .folders
                .difference(&self.watched)
                .cloned()
                .collect();
            if folders.is_empty() {
                break;
            }
            // What appears in them before they are watched is found by looking again.
            for folder in folders {
                self.watch(&folder)?;
                self.watched.insert(folder);
            }
        }
        for folder in self
            .watched
            .extract_if(.., |folder| !self.found.folders.contains(folder))
        {
            let _ = self.watcher.unwatch(&folder);
        }
        Ok(())
    }

    fn watch(&mut self, folder: &Path) -> Result<(), Failure> {
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            // It went away meanwhile, which is an event of the one above it.
            Err(_) if !folder.is_dir() => Ok(()),
            result => result
                .or_fail(ExitCode::System, || {
                    format!("cannot watch {}", folder.display())
                })
                .map_err(|failure| {
                    failure
                        .hint("if there are too many, raise the sysctl fs.inotify.max_user_watches")
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServeArgs;
    use std::fs;
    use tempfile::TempDir;
    use tokio::time::timeout;

    /// Longer than any event takes.
    const SOON: Duration = Duration::from_secs(30);

    struct Project {
        folder: TempDir,
        watch: Watch,
    }

    impl Project {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut watch = Watch::new().unwrap();
            let args = ServeArgs {
                path: folder.path().to_path_buf(),
                ..ServeArgs::default()
            };
            watch.follow(Roots::of(&args, None)).unwrap();
            Self { folder, watch }
        }

        fn write(&self, file: &str) {
            let file = self.folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "text").unwrap();
        }

        async fn has_changed(&mut self) {
            let changed = timeout(SOON, self.watch.changed()).await;
            changed.expect("a change is noticed").unwrap();
        }

        async fn is_unchanged(&mut self) {
            let changed = timeout(4 * QUIET, self.watch.changed()).await;
            assert!(changed.is_err(), "nothing that matters has changed");
        }
    }

    #[tokio::test]
    async fn only_what_matters_is_a_change() {
        let mut project = Project::new();
        for file in ["target/app", "node_modules/a.js", ".git/index", "main.rs~"] {
            project.write(file);
        }
        project.is_unchanged().await;
        project.write("main.rs");
        project.has_changed().await;
        fs::read(project.folder.path().join("main.rs")).unwrap();
        project.is_unchanged().await;
    }

    #[tokio::test]
    async fn folders_are_watched_that_come_later_or_again() {
        let mut project = Project::new();
        for _ in 0..3 {
            project.write("a/b/c.rs");
            project.has_changed().await;
            project.write("a/b/d.rs");
            project.has_changed().await;
            fs::remove_dir_all(project.folder.path().join("a")).unwrap();
            project.has_changed().await;
        }
        project.is_unchanged().await;
    }

    #[tokio::test]
    async fn all_that_happens_during_a_build_is_one_change_after_it() {
        let mut project = Project::new();
        for file in 0..20 {
            project.write(&format!("src/{file}.rs"));
        }
        project.watch.settle_build(None).unwrap();
        project.has_changed().await;
        project.is_unchanged().await;
    }

    #[tokio::test]
    async fn lock_file_that_a_build_writes_is_no_change_and_any_other_is() {
        let mut project = Project::new();
        project.write("Cargo.lock");
        project.watch.settle().await;
        project.watch.settle_build(None).unwrap();
        project.is_unchanged().await;
        project.write("Cargo.lock");
        project.has_changed().await;
    }
}
