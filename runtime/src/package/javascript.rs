//! JavaScript and TypeScript: an npm package.
//!
//! Calls the jco that the package itself depends on, with the WIT and the bundling of its `@wrun/sdk`. npm is called only
//! where something is not installed yet.

use super::fresh::Fresh;
use super::stdout;
use crate::config::{MANIFEST, Manifest};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// The file that makes a folder an npm package.
const PACKAGE: &str = "package.json";

/// The component, in the package's folder.
const OUTPUT: &str = "dist/app.wasm";

/// What is looked for if `package.json` names no entry module.
const ENTRIES: [&str; 2] = ["src/app.ts", "src/app.js"];

/// Packages that every project depends on, and what adds one that is missing.
const JCO: (&str, &str) = (
    "@bytecodealliance/jco",
    "npm install --save-dev --save-exact @bytecodealliance/jco@1.35.0",
);
const SDK: (&str, &str) = ("@wrun/sdk", "npm install ./vendor/wrun-sdk");

/// What jco needs.
const NODE_MAJOR_MIN: u32 = 20;

/// What is no source.
const SKIPPED: [&str; 4] = ["node_modules", "dist", ".git", ".wrun"];

/// Builds the package in `folder` and returns the component's file.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let settings = Settings::read(folder)?;
    let entry = entry(folder, &settings)?;
    let world = world(folder, &settings)?;
    install(folder)?;
    let (jco, sdk) = (installed(folder, JCO)?, installed(folder, SDK)?);
    let output = folder.join(OUTPUT);
    let recipe = format!("jco {} {}", entry.display(), world.name());
    let unreadable = || format!("cannot read {}", folder.display());
    let fresh =
        Fresh::look(folder, &output, &recipe, &SKIPPED).or_fail(ExitCode::NoInput, unreadable)?;
    if fresh.is_fresh() {
        return Ok(output);
    }
    check_node()?;
    let unwritable = || format!("cannot write {}", output.display());
    fs::create_dir_all(folder.join("dist")).or_fail(ExitCode::CannotCreate, unwritable)?;
    let mut command = Command::new("node");
    command
        // The stacks are jco's own, and hide what it has to say.
        .arg("--stack-trace-limit=0")
        .arg(jco.join("dist/jco.js"))
        .arg("componentize")
        .arg(entry)
        .args(["--bundle", "--bundle-config"])
        .arg(sdk.join("bundle.js"))
        .arg("--wit")
        .arg(sdk.join("wit"))
        .args(["--world-name", world.name(), "--out", OUTPUT])
        .env("WRUN_WORLD", world.name());
    if !run(&mut command, folder)? {
        let message = format!("jco could not build {}", folder.display());
        return Err(Failure::new(ExitCode::BadComponent, message)
            .hint("see its messages: the last says why"));
    }
    fresh.keep().or_fail(ExitCode::CannotCreate, unwritable)?;
    Ok(output)
}

/// `"wrun"` in `package.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The entry module.
    entry: Option<PathBuf>,
    /// What the component exports.
    world: Option<World>,
}

/// What a component exports: worlds of the SDK's WIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum World {
    Http,
    Consumer,
    HttpConsumer,
}

impl World {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Consumer => "consumer",
            Self::HttpConsumer => "http-consumer",
        }
    }
}

impl Settings {
    fn read(folder: &Path) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Package {
            #[serde(default)]
            wrun: Settings,
        }
        let file = folder.join(PACKAGE);
        let text = fs::read_to_string(&file).or_fail(ExitCode::NoInput, || {
            format!("cannot read {}", file.display())
        })?;
        let package: Package = serde_json::from_str(&text)
            .or_fail(ExitCode::Config, || file.display().to_string())
            .map_err(|failure| {
                failure.hint("\"wrun\" in it may have \"entry\", a path, and \"world\": \"http\", \"consumer\" or \"http-consumer\"")
            })?;
        Ok(package.wrun)
    }
}

/// Returns the entry module, relative to `folder`.
fn entry(folder: &Path, settings: &Settings) -> Result<PathBuf, Failure> {
    let candidates = match &settings.entry {
        Some(entry) => vec![entry.clone()],
        None => ENTRIES.map(PathBuf::from).to_vec(),
    };
    let found = candidates.iter().find(|entry| folder.join(entry).is_file());
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = candidates
            .iter()
            .map(|name| name.to_string_lossy())
            .collect();
        let message = format!("{} has no {}", folder.display(), names.join(" or "));
        Failure::new(ExitCode::NoInput, message).hint(format!(
            "name the entry module in {PACKAGE}: \"wrun\": {{ \"entry\": \"PATH\" }}"
        ))
    })
}

/// Returns what the component is to export: a consumer, too, if its manifest has it consume anything.
fn world(folder: &Path, settings: &Settings) -> Result<World, Failure> {
    if let Some(world) = settings.world {
        return Ok(world);
    }
    let manifest = folder.join(MANIFEST);
    let consumes = manifest.is_file() && !Manifest::read(&manifest)?.shared().consumers.is_empty();
    Ok(if consumes {
        World::HttpConsumer
    } else {
        World::Http
    })
}

/// Has npm install what the package depends on, unless it did since that was last changed.
fn install(folder: &Path) -> Result<(), Failure> {
    if is_installed(folder) {
        return Ok(());
    }
    check_node()?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund"]);
    if run(&mut npm, folder)? {
        return Ok(());
    }
    let message = format!("npm could not install what {} needs", folder.display());
    Err(Failure::new(ExitCode::Unavailable, message)
        .hint("see its messages, or run `npm install` there"))
}

fn is_installed(folder: &Path) -> bool {
    let modified = |name: &str| -> io::Result<SystemTime> {
        fs::metadata(folder.join(name)).and_then(|metadata| metadata.modified())
    };
    // npm writes this file at the end of every installation.
    let Ok(installed) = modified("node_modules/.package-lock.json") else {
        return false;
    };
    let is_older = |name: &str| modified(name).map_or(true, |changed| changed <= installed);
    is_older(PACKAGE) && is_older("package-lock.json")
}

/// Returns where a package is installed. In a workspace that is a folder further up.
fn installed(folder: &Path, (name, remedy): (&str, &str)) -> Result<PathBuf, Failure> {
    let folder = folder.canonicalize().or_fail(ExitCode::NoInput, || {
        format!("cannot read {}", folder.display())
    })?;
    let places = folder
        .ancestors()
        .map(|above| above.join("node_modules").join(name));
    let found = places.into_iter().find(|place| place.is_dir());
    found.ok_or_else(|| {
        let message = format!(
            "{} does not depend on {name}",
            folder.join(PACKAGE).display()
        );
        Failure::new(ExitCode::Config, message).hint(format!("run `{remedy}` there"))
    })
}

/// Checks that there is a Node.js that jco runs on.
fn check_node() -> Result<(), Failure> {
    let unavailable = |message: String| Failure::new(ExitCode::Unavailable, message);
    let output = Command::new("node")
        .arg("--version")
        .output()
        .map_err(|error| {
            unavailable(format!("cannot run node: {error}"))
                .hint("install Node.js and npm, for example with `apt install nodejs npm`")
        })?;
    let version = String::from_utf8_lossy(&output.stdout);
    let version = version.trim();
    if major(version).is_some_and(|major| major >= NODE_MAJOR_MIN) {
        return Ok(());
    }
    Err(unavailable(format!(
        "Node.js {version} is too old: jco needs {NODE_MAJOR_MIN} or later"
    ))
    .hint("`npm install --global node@22` installs a newer one beside it"))
}

/// Returns the major number of a version such as `v22.1.0`.
fn major(version: &str) -> Option<u32> {
    version
        .trim_start_matches('v')
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// Runs a tool in `folder` and tells whether it succeeded. What it has to say goes to stdout.
fn run(command: &mut Command, folder: &Path) -> Result<bool, Failure> {
    let status = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout()?)
        .stderr(stdout()?)
        .status();
    let status = status.map_err(|error| {
        let tool = command.get_program().to_string_lossy();
        Failure::new(ExitCode::Unavailable, format!("cannot run {tool}: {error}"))
            .hint("install Node.js and npm, for example with `apt install nodejs npm`")
    })?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn project(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    fn world_of(package: &str, manifest: &str) -> World {
        let folder = project(&[(PACKAGE, package), (MANIFEST, manifest)]);
        let settings = Settings::read(folder.path()).unwrap();
        world(folder.path(), &settings).unwrap()
    }

    #[test]
    fn component_consumes_if_its_manifest_says_so_or_its_package() {
        let consumes = "[databases.default]\n[queues.a]\n[consumers.a]\n";
        assert_eq!(world_of("{}", "component = \".\"\n"), World::Http);
        assert_eq!(world_of("{}", consumes), World::HttpConsumer);
        let package = r#"{"wrun":{"world":"consumer"}}"#;
        assert_eq!(world_of(package, ""), World::Consumer);
    }

    #[test]
    fn entry_is_what_the_package_names_or_a_usual_file() {
        let folder = project(&[("src/app.js", ""), ("other.ts", "")]);
        let named = |entry: &str| Settings {
            entry: Some(entry.into()),
            world: None,
        };
        let found = |settings| entry(folder.path(), &settings);
        assert_eq!(found(Settings::default()).unwrap(), Path::new("src/app.js"));
        assert_eq!(found(named("other.ts")).unwrap(), Path::new("other.ts"));
        let failure = found(named("none.ts")).unwrap_err();
        assert!(failure.message.ends_with("has no none.ts"), "{failure}");
    }

    #[test]
    fn unknown_setting_is_an_error_that_names_the_known_ones() {
        let folder = project(&[(PACKAGE, r#"{"wrun":{"word":"http"}}"#)]);
        let failure = Settings::read(folder.path()).unwrap_err();
        assert!(
            failure.message.contains("unknown field `word`"),
            "{failure}"
        );
        assert!(failure.hint.unwrap().contains("\"world\""));
    }

    #[test]
    fn package_that_is_not_installed_is_an_error_with_its_remedy() {
        let folder = project(&[("node_modules/@wrun/sdk/bundle.js", ""), ("a/b.js", "")]);
        assert!(installed(folder.path(), SDK).is_ok());
        assert!(
            installed(&folder.path().join("a"), SDK).is_ok(),
            "further up"
        );
        let failure = installed(folder.path(), JCO).unwrap_err();
        assert!(failure.hint.unwrap().contains("npm install --save-dev"));
    }

    #[test]
    fn installation_is_stale_once_the_package_changes() {
        let folder = project(&[(PACKAGE, "{}")]);
        assert!(!is_installed(folder.path()));
        fs::create_dir(folder.path().join("node_modules")).unwrap();
        let lock = fs::File::create(folder.path().join("node_modules/.package-lock.json")).unwrap();
        assert!(is_installed(folder.path()));
        lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_installed(folder.path()));
    }

    #[test]
    fn versions_of_node_are_compared_by_number() {
        assert_eq!(major("v20.1.0"), Some(20));
        assert_eq!(major("v100.0.0-nightly"), Some(100));
        assert_eq!(major(""), None);
    }
}
