//! Which labels are bound to a server, and where its URL comes from: flags over environment over file.
//!
//! A URL may hold a password. So what is kept here is where it stands; it is read when it is needed, by `resolve`, and
//! wiped afterwards. What may be shown of it is `shown`. Whether somebody answers there is for the state process to find.

mod name;
mod url;

use super::shared::{Bound, Shared};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use name::{KINDS, Kind, Name, VARIABLE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use url::{has_password, scheme, shown};
use zeroize::Zeroizing;

pub use url::each_url;

/// The largest file with a binding, or bindings, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// A URL, which is wiped when it is dropped.
pub type Secret = Zeroizing<String>;

/// Bindings as flags give them.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
pub struct BindingArgs {
    /// Keep a database in PostgreSQL (db.LABEL=postgres://…), MariaDB or MySQL (db.LABEL=mysql://…), a queue in
    /// PostgreSQL (queue.LABEL=postgres://…), Redis (queue.LABEL=redis://…), RabbitMQ (queue.LABEL=amqp://…), NATS
    /// (queue.LABEL=nats://…) or Kafka (queue.LABEL=kafka://…), locks in Redis (lock.LABEL=redis://…), in the majority of
    /// several (lock.LABEL=redis://…,redis://…,redis://…) or in PostgreSQL (lock.LABEL=postgres://…); or have a replica
    /// of a database's server take what only reads (replica.LABEL=postgres://…); in place of the URL there may be
    /// env:NAME or file:PATH, which hold it; repeatable
    #[arg(long = "bind", value_name = "KIND.LABEL=URL")]
    pub bind: Vec<String>,
    /// Read further bindings from this file: under [db], [lock], [queue] and [replica], LABEL = "URL"
    #[arg(long, value_name = "FILE")]
    pub bindings: Option<PathBuf>,
}

/// What is bound, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bindings(BTreeMap<Name, Binding>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Binding {
    source: Source,
    bound: Bound,
}

/// Where a URL stands.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Source {
    /// In `--bind`; without a password.
    Flag(String),
    /// In a variable of this name, which may name another place.
    Variable(String),
    /// In this file, alone.
    File(PathBuf),
    /// In the file of bindings.
    Listed { file: PathBuf, name: Name },
}

/// The file of bindings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    db: BTreeMap<String, String>,
    #[serde(default)]
    lock: BTreeMap<String, String>,
    #[serde(default)]
    queue: BTreeMap<String, String>,
    #[serde(default)]
    replica: BTreeMap<String, String>,
}

impl Bindings {
    /// Finds the bindings of what is granted, and checks that each can be read.
    pub fn load(args: &BindingArgs, shared: &Shared) -> Result<Self, Failure> {
        let mut sources = BTreeMap::new();
        if let Some(file) = &args.bindings {
            for name in read_list(file)?.into_keys() {
                let listed = Source::Listed {
                    file: file.clone(),
                    name: name.clone(),
                };
                sources.insert(name, listed);
            }
        }
        sources.extend(from_environment(shared)?);
        sources.extend(from_flags(&args.bind)?);
        let mut bindings = BTreeMap::new();
        for (name, source) in sources {
            let Name { kind, label } = &name;
            if !kind.labels(shared).contains(&label) {
                let (noun, section) = kind.words();
                let flag = kind.flag();
                return Err(Failure::new(
                    ExitCode::Config,
                    format!("{source} binds {noun} {label:?}, which is not granted"),
                )
                .hint(format!(
                    "add [{section}.{label}] to wrun.toml, or --{flag} {label}; or leave the binding out"
                )));
            }
            let bound = look_at(&name, &source)?;
            bindings.insert(name, Binding { source, bound });
        }
        let bindings = Self(bindings);
        bindings.check_replicas()?;
        Ok(bindings)
    }

    /// A replica takes over some of what goes to its primary, so that one has to be bound, too.
    fn check_replicas(&self) -> Result<(), Failure> {
        for (name, binding) in &self.0 {
            if name.kind != Kind::Replica {
                continue;
            }
            let primary = Name {
                kind: Kind::Db,
                ..name.clone()
            };
            let what = match self.0.get(&primary) {
                Some(bound) if bound.bound.backend == binding.bound.backend => continue,
                Some(_) => format!("is no replica of {primary}, which is of another kind"),
                None => format!("is bound, and {primary} is not"),
            };
            let source = &binding.source;
            return Err(
                Failure::new(ExitCode::Config, format!("{name} ({source}) {what}")).hint(format!(
                    "bind {primary} to the primary server, as with --bind {primary}=URL, or leave {name} out"
                )),
            );
        }
        Ok(())
    }

    /// Tells whether everything is embedded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names of what is bound, such as `db.default`, and where it is.
    pub fn list(&self) -> impl Iterator<Item = (String, &Bound)> {
        let all = self.0.iter();
        all.map(|(name, binding)| (name.to_string(), &binding.bound))
    }

    /// Notes at each label where it is.
    pub fn apply(&self, shared: &mut Shared) {
        let bound = |kind, label: &String| {
            let label = label.clone();
            let binding = self.0.get(&Name { kind, label });
            binding.map(|binding| binding.bound.clone())
        };
        for (label, database) in &mut shared.databases {
            database.bound = bound(Kind::Db, label);
            database.replica = bound(Kind::Replica, label);
        }
        for (label, space) in &mut shared.locks {
            space.bound = bound(Kind::Lock, label);
        }
        for (label, queue) in &mut shared.queues {
            queue.bound = bound(Kind::Queue, label);
        }
    }

    /// Reads the URLs, which are secret, by the names of what they bind.
    pub fn resolve(&self) -> Result<BTreeMap<String, Secret>, Failure> {
        self.0
            .iter()
            .map(|(name, binding)| Ok((name.to_string(), binding.source.read()?)))
            .collect()
    }
}

impl Source {
    /// Reads the URL.
    fn read(&self) -> Result<Secret, Failure> {
        let text = match self {
            Self::Flag(url) => Zeroizing::new(url.clone()),
            Self::Variable(name) => read_variable(name)?,
            Self::File(path) => read_file(path)?,
            Self::Listed { file, name } => {
                let gone = || {
                    let what = format!("{}: {name} is gone", file.display());
                    Failure::new(ExitCode::Config, what).hint("put it back, or restart the server")
                };
                read_list(file)?.remove(name).ok_or_else(gone)?
            }
        };
        match (Self::elsewhere(&text), self) {
            // From a flag it is a source of its own already.
            (Some(Self::Variable(name)), _) => read_variable(&name),
            (Some(Self::File(path)), _) => read_file(&path),
            _ => Ok(text),
        }
    }

    /// Returns the place that `env:NAME` or `file:PATH` names.
    fn elsewhere(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("env", name)) => Some(Self::Variable(name.to_owned())),
            Some(("file", path)) => Some(Self::File(path.into())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(_) => f.write_str("--bind"),
            Self::Variable(name) => write!(f, "{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Listed { file, .. } => write!(f, "{}", file.display()),
        }
    }
}

/// Reads `KIND.LABEL=URL`.
fn from_flags(flags: &[String]) -> Result<BTreeMap<Name, Source>, Failure> {
    let mut sources = BTreeMap::new();
    for flag in flags {
        let wrong = |what: String| {
            Failure::new(ExitCode::Usage, what)
                .hint("it is --bind db.LABEL=URL, lock.LABEL=URL, queue.LABEL=URL or replica.LABEL=URL, such as --bind db.default=env:DATABASE_URL")
        };
        // The whole of it may be a secret that was put into the wrong place.
        let (text, url) = flag
            .split_once('=')
            .ok_or_else(|| wrong("--bind has no =".to_owned()))?;
        let name = Name::parse(text)
            .ok_or_else(|| wrong(format!("--bind {text:?} is nothing that can be bound")))?;
        let source = Source::elsewhere(url).unwrap_or_else(|| Source::Flag(url.to_owned()));
        if matches!(source, Source::Flag(_)) && has_password(url) {
            return Err(Failure::new(
                ExitCode::Usage,
                format!("--bind {name} holds a password, which `ps` would show to everybody"),
            )
            .hint(format!(
                "use --bind {name}=env:NAME or file:PATH, the variable {}, or --bindings FILE",
                name.variable()
            )));
        }
        if sources.insert(name, source).is_some() {
            return Err(wrong(format!("--bind {text} is given twice")));
        }
    }
    Ok(sources)
}

/// Finds the variables that bind something.
fn from_environment(shared: &Shared) -> Result<BTreeMap<Name, Source>, Failure> {
    let granted = |kind: Kind| {
        let labels = kind.labels(shared).into_iter();
        labels.map(move |label| Name {
            kind,
            label: label.clone(),
        })
    };
    let granted: Vec<Name> = KINDS.into_iter().flat_map(granted).collect();
    let mut sources = BTreeMap::new();
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE)) else {
            continue;
        };
        let mut meant = granted.iter().filter(|it| it.variable() == name);
        let it = match (meant.next(), meant.next()) {
            (Some(it), None) => it,
            (None, _) => {
                return Err(Failure::new(
                    ExitCode::Config,
                    format!("{name} binds what is not granted"),
                )
                .hint("unset it, or grant that: WRUN_BIND_DB_MY_SHOP binds database my-shop, WRUN_BIND_LOCK_… a lock space, WRUN_BIND_QUEUE_… a queue"));
            }
            (Some(one), Some(other)) => {
                return Err(Failure::new(
                    ExitCode::Config,
                    format!("{name} could bind {one} and {other}"),
                )
                .hint("use --bind, or --bindings FILE"));
            }
        };
        sources.insert(it.clone(), Source::Variable(name.to_owned()));
    }
    Ok(sources)
}

/// Reads the URL once, and returns what may be known of it.
fn look_at(name: &Name, source: &Source) -> Result<Bound, Failure> {
    let url = source.read()?;
    let urls = each_url(&url);
    let (noun, _) = name.kind.words();
    let wrong = |what: String| {
        Failure::new(ExitCode::Config, format!("{name} ({source}) {what}")).hint(format!(
            "known for a {noun}: {}, env:NAME, file:PATH",
            name.kind.example()
        ))
    };
    let mut backends = Vec::new();
    for url in &urls {
        let Some(scheme) = scheme(url) else {
            return Err(wrong("is no URL".to_owned()));
        };
        let known = name.kind.backend(scheme);
        let unknown = || wrong(format!("has the unknown scheme {scheme}://"));
        backends.push(known.ok_or_else(unknown)?);
    }
    let backend = backends.first().copied().unwrap_or_default();
    if backends.iter().any(|it| *it != backend) {
        return Err(wrong("names servers of several kinds".to_owned()));
    }
    if urls.len() > 1 && backend != "redis" {
        return Err(wrong("names several servers".to_owned()));
    }
    if urls.len().is_multiple_of(2) {
        let what = format!(
            "names {} servers: a majority takes an odd number",
            urls.len()
        );
        return Err(wrong(what));
    }
    Ok(Bound {
        backend: backend.to_owned(),
        shown: shown(&url),
    })
}

fn read_variable(name: &str) -> Result<Secret, Failure> {
    let missing = |error: std::env::VarError| {
        let why = match error {
            std::env::VarError::NotPresent => "is not set",
            std::env::VarError::NotUnicode(_) => "is not UTF-8",
        };
        Failure::new(ExitCode::Config, format!("the variable {name} {why}")).hint(format!(
            "set {name} to the URL, or change the binding that names it"
        ))
    };
    std::env::var(name).map(trimmed).map_err(missing)
}

fn read_file(path: &Path) -> Result<Secret, Failure> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
        .or_fail(ExitCode::NoInput, || {
            format!("{}: cannot be read for its bindings", path.display())
        })
        .map_err(|failure| failure.hint("name a file that holds the URL and that wrun may read"))?;
    Ok(text.trim().to_owned().into())
}

fn read_list(file: &Path) -> Result<BTreeMap<Name, Secret>, Failure> {
    let text = read_file(file)?;
    // What the parser says shows the line, and the line may hold a password.
    let listed: Listed = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        Failure::new(
            ExitCode::Config,
            format!("{}: line {line} is no binding", file.display()),
        )
        .hint("bindings stand under [db], [lock], [queue] or [replica], as LABEL = \"URL\"")
    })?;
    let sections = [
        (Kind::Db, listed.db),
        (Kind::Lock, listed.lock),
        (Kind::Queue, listed.queue),
        (Kind::Replica, listed.replica),
    ];
    let all = sections.into_iter().flat_map(|(kind, labels)| {
        let name = move |(label, url): (String, String)| (Name { kind, label }, url.into());
        labels.into_iter().map(name)
    });
    Ok(all.collect())
}

fn trimmed(text: String) -> Secret {
    let text = Zeroizing::new(text);
    text.trim().to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SharedArgs;
    use crate::config::shared::SharedKeys;

    fn shared(labels: &[&str]) -> Shared {
        let args = SharedArgs {
            databases: labels.iter().map(|label| (*label).to_owned()).collect(),
            locks: vec!["default".to_owned()],
            queues: vec!["jobs".to_owned()],
            ..SharedArgs::default()
        };
        Shared::merge(&args, SharedKeys::default(), Path::new(".")).unwrap()
    }

    fn load(flags: &[&str]) -> Result<Bindings, Failure> {
        let args = BindingArgs {
            bind: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            bindings: None,
        };
        Bindings::load(&args, &shared(&["default", "my-shop"]))
    }

    #[test]
    fn file_holds_the_url_alone_or_lists_several_and_the_flag_wins() {
        let folder = tempfile::tempdir().unwrap();
        let (alone, list) = (folder.path().join("url"), folder.path().join("list.toml"));
        std::fs::write(&alone, "postgres://shop:s3cret@one/shop\n").unwrap();
        std::fs::write(
            &list,
            "[db]\ndefault = \"postgres://two/shop\"\nmy-shop = \"postgres://three/shop\"\n",
        )
        .unwrap();
        let args = BindingArgs {
            bind: vec![format!("db.default=file:{}", alone.display())],
            bindings: Some(list),
        };
        let mut shared = shared(&["default", "my-shop"]);
        let bindings = Bindings::load(&args, &shared).unwrap();
        bindings.apply(&mut shared);
        let shown = |label: &str| shared.databases[label].bound.clone().unwrap().shown;
        assert_eq!(shown("default"), "postgres://one/shop");
        assert_eq!(shown("my-shop"), "postgres://three/shop");
        let resolved = bindings.resolve().unwrap();
        assert_eq!(&**resolved["db.default"], "postgres://shop:s3cret@one/shop");
        assert!(!format!("{bindings:?}").contains("s3cret"));
    }

    #[test]
    fn what_cannot_be_a_binding_is_refused_with_a_hint_and_without_its_secret() {
        for (flags, word) in [
            (&["db.default"][..], "--bind db.LABEL=URL"),
            (&["topic.default=amqp://x"], "--bind db.LABEL=URL"),
            (&["queue.jobs=mqtt://x"], "amqp://"),
            (&["db.default=amqp://x"], "postgres://"),
            (&["queue.jobs=amqp://me:s3cret@x"], "WRUN_BIND_QUEUE_JOBS"),
            (&["queue.nowhere=postgres://x/y"], "[queues.nowhere]"),
            (&["queue.jobs=mysql://x/y"], "redis://"),
            (&["queue.jobs=redis://:s3cret@x"], "WRUN_BIND_QUEUE_JOBS"),
            (&["db.default=mssql://x/y"], "mysql://"),
            (&["db.default=redis://x"], "postgres://"),
            (&["lock.default=mysql://x/y"], "redis://"),
            (&["lock.default=redis://x,redis://y"], "redis://A,redis://B"),
            (
                &["lock.default=redis://x,postgres://y/z,redis://z"],
                "redis://A,redis://B",
            ),
            (
                &["lock.default=postgres://x/y,postgres://y/y,postgres://z/y"],
                "redis://A,redis://B",
            ),
            (
                &["lock.default=redis://x,redis://y,redis://:s3cret@z"],
                "WRUN_BIND_LOCK_DEFAULT",
            ),
            (&["lock.nowhere=redis://x"], "[locks.nowhere]"),
            (
                &["lock.default=redis://:s3cret@x"],
                "WRUN_BIND_LOCK_DEFAULT",
            ),
            (&["db.default=s3cret"], "postgres://"),
            (&["db.nowhere=postgres://x/y"], "[databases.nowhere]"),
            (&["replica.nowhere=postgres://x/y"], "[databases.nowhere]"),
            (&["replica.default=redis://x"], "mysql://"),
            (&["replica.default=postgres://x/y"], "--bind db.default=URL"),
            (
                &["db.default=postgres://x/y", "replica.default=mysql://y/y"],
                "leave replica.default out",
            ),
            (
                &[
                    "db.default=postgres://x/y",
                    "replica.default=postgres://a:s3cret@y/y",
                ],
                "WRUN_BIND_REPLICA_DEFAULT",
            ),
            (&["db.default=env:WRUN_TEST_NOT_SET"], "WRUN_TEST_NOT_SET"),
            (&["db.default=file:/nowhere/at-all"], "name a file"),
            (&["db.default=postgres://a:s3cret@x/y"], "env:NAME"),
            (
                &["db.default=postgres://x/y?password=s3cret"],
                "WRUN_BIND_DB_DEFAULT",
            ),
            (
                &["db.default=postgres://x/y", "db.default=postgres://x/z"],
                "--bind db.LABEL=URL",
            ),
        ] {
            let failure = load(flags).unwrap_err();
            let hint = failure.hint.clone().unwrap();
            assert!(hint.contains(word), "{flags:?}: {hint}");
            assert!(!format!("{failure:?}").contains("s3cret"), "{failure:?}");
        }
    }

    #[test]
    fn label_of_a_variable_is_in_upper_case() {
        let variable = |text| Name::parse(text).unwrap().variable();
        assert_eq!(variable("db.my-shop"), "WRUN_BIND_DB_MY_SHOP");
        assert_eq!(variable("lock.my-shop"), "WRUN_BIND_LOCK_MY_SHOP");
    }

    #[test]
    fn locks_are_in_one_redis_in_several_or_in_postgresql() {
        for (url, backend, shown) in [
            ("redis://a/1", "redis", "redis://a/1"),
            (
                "redis://me@a,rediss://b,valkey://c:1?x=y",
                "redis",
                "redis://a,rediss://b,valkey://c:1",
            ),
            ("postgres://me@a/shop", "postgres", "postgres://a/shop"),
        ] {
            let bindings = load(&[&format!("lock.default={url}")]).unwrap();
            let (_, bound) = bindings.list().next().unwrap();
            assert_eq!((&*bound.backend, &*bound.shown), (backend, shown));
        }
    }

    #[test]
    fn replica_is_bound_beside_its_primary_from_wherever_its_url_is() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.toml");
        let text = "[replica]\nmy-shop = \"postgres://reader:s3cret@two/shop\"\n";
        std::fs::write(&list, text).unwrap();
        let args = BindingArgs {
            bind: vec!["db.my-shop=postgres://one/shop".to_owned()],
            bindings: Some(list),
        };
        let mut shared = shared(&["default", "my-shop"]);
        Bindings::load(&args, &shared).unwrap().apply(&mut shared);
        let shown = |bound: &Option<Bound>| bound.clone().unwrap().shown;
        let database = &shared.databases["my-shop"];
        assert_eq!(shown(&database.bound), "postgres://one/shop");
        assert_eq!(shown(&database.replica), "postgres://two/shop");
        assert_eq!(shared.databases["default"].replica, None);
    }

    #[test]
    fn lock_space_database_and_queue_are_bound_apart() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.toml");
        let text = "[lock]\ndefault = \"redis://one\"\n[queue]\njobs = \"postgres://three/shop\"\n";
        std::fs::write(&list, text).unwrap();
        let args = BindingArgs {
            bind: vec!["db.default=postgres://two/shop".to_owned()],
            bindings: Some(list),
        };
        let mut shared = shared(&["default"]);
        Bindings::load(&args, &shared).unwrap().apply(&mut shared);
        let backend = |bound: &Option<Bound>| bound.clone().unwrap().backend;
        assert_eq!(backend(&shared.databases["default"].bound), "postgres");
        assert_eq!(backend(&shared.locks["default"].bound), "redis");
        assert_eq!(backend(&shared.queues["jobs"].bound), "postgres");
    }
}
