//! Python: a project that componentize-py makes a component of.
//!
//! The tool and the project's libraries live in `.venv`, in the project's folder, as `requirements.txt` wants them. What
//! the build runs and imports is told under `[tool.wrun]` in `pyproject.toml`.

use super::fresh::Fresh;
use super::stdout;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::log;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the component goes, in the project's folder.
const OUTPUT: &str = "dist/app.wasm";

/// The virtual environment.
const VENV: &str = ".venv";

/// What the virtual environment is to contain.
const REQUIREMENTS: &str = "requirements.txt";

/// In the virtual environment: the requirements that were installed into it.
const INSTALLED: &str = "wrun-requirements.txt";

/// Modules that come with the project without being installed.
const VENDOR: &str = "vendor";

/// What is no source.
const SKIPPED: [&str; 6] = [VENV, ".git", ".wrun", "__pycache__", "dist", "node_modules"];

/// What componentize-py 0.25 and its like need.
const PYTHON_MIN: (u32, u32) = (3, 10);

/// What a project without the tool has to ask for.
const TOOL_LINE: &str = "componentize-py==0.25.1";

/// Builds the project in `folder` and returns the component's file.
pub(super) fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let project = Project::read(folder)?;
    let output = folder.join(OUTPUT);
    let unreadable = || format!("cannot read {}", folder.display());
    let fresh = Fresh::look(folder, &output, "componentize-py 1", &SKIPPED)
        .or_fail(ExitCode::NoInput, unreadable)?;
    if fresh.is_fresh() {
        return Ok(output);
    }
    install(folder)?;
    fs::create_dir_all(folder.join("dist")).or_fail(ExitCode::CannotCreate, || {
        format!("cannot make {}", folder.join("dist").display())
    })?;
    project.componentize(folder)?;
    fresh.keep().or_fail(ExitCode::CannotCreate, || {
        format!("cannot write beside {}", output.display())
    })?;
    Ok(output)
}

/// `[tool.wrun]` in `pyproject.toml`.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Project {
    /// The module with the handlers.
    entry: String,
    world: World,
}

/// What the project handles: a world of the SDK.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum World {
    Http,
    Consumer,
    Both,
}

impl World {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Consumer => "consumer",
            Self::Both => "both",
        }
    }
}

impl Default for Project {
    fn default() -> Self {
        Self {
            entry: "app".to_owned(),
            world: World::Http,
        }
    }
}

impl Project {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("pyproject.toml");
        let text = fs::read_to_string(&path).or_fail(ExitCode::NoInput, || {
            format!("cannot read {}", path.display())
        })?;
        Self::parse(&text).map_err(|error| {
            let message = format!("{}: {}", path.display(), error.message());
            Failure::new(ExitCode::Config, message)
                .hint("[tool.wrun] has `entry`, a module, and `world`: http, consumer or both")
        })
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        #[derive(Deserialize)]
        struct Pyproject {
            tool: Option<Tools>,
        }
        #[derive(Deserialize)]
        struct Tools {
            wrun: Option<Project>,
        }
        let file: Pyproject = toml::from_str(text)?;
        Ok(file.tool.and_then(|tools| tools.wrun).unwrap_or_default())
    }

    /// Runs componentize-py, which imports the entry module: its errors are shown here and not at the first request.
    fn componentize(&self, folder: &Path) -> Result<(), Failure> {
        log::say(&format!("wrun: building {OUTPUT} with componentize-py"));
        let script = in_venv(folder, "bin/componentize-py");
        if !script.is_file() {
            let message = format!("{REQUIREMENTS} does not ask for componentize-py");
            return Err(Failure::new(ExitCode::Unavailable, message)
                .hint(format!("add the line `{TOOL_LINE}` to {REQUIREMENTS}")));
        }
        // The script itself names the interpreter by a path that ends with a move of the folder.
        let mut tool = Command::new(in_venv(folder, "bin/python"));
        tool.arg(script)
            .args(["-w", self.world.name(), "componentize", "-p", "."]);
        if folder.join(VENDOR).is_dir() {
            tool.args(["-p", VENDOR]);
        }
        tool.args([&self.entry, "-o", OUTPUT])
            .current_dir(folder)
            .env("VIRTUAL_ENV", in_venv(folder, ""))
            // Else its errors end with a backtrace of its own insides.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let output = tool.output().or_fail(ExitCode::Unavailable, || {
            "cannot run componentize-py".to_owned()
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = essence(&String::from_utf8_lossy(&output.stderr));
        log::say(&said);
        let message = format!("componentize-py could not build {}", folder.display());
        Err(Failure::new(ExitCode::BadComponent, message).hint(self.remedy(&said)))
    }

    /// Returns what to do about what componentize-py said.
    fn remedy(&self, said: &str) -> String {
        let lacks = |class: &str| said.contains(&format!("has no attribute '{class}'"));
        let needs = |decorator: &str| {
            let (world, entry) = (self.world.name(), &self.entry);
            format!(
                "world `{world}` in pyproject.toml needs a function with {decorator} in {entry}.py"
            )
        };
        if lacks("IncomingHandler") {
            needs("@http.handler")
        } else if lacks("Consumer") {
            needs("@queue.consumer")
        } else if said.contains("failed to read path for WIT") {
            format!("the package wrun_sdk is missing: it belongs in {VENDOR}")
        } else {
            "see its messages above".to_owned()
        }
    }
}

/// Makes the virtual environment what `requirements.txt` says, unless it is.
fn install(folder: &Path) -> Result<(), Failure> {
    let path = folder.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&path).map_err(|error| {
        Failure::new(
            ExitCode::NoInput,
            format!("cannot read {}: {error}", path.display()),
        )
        .hint(format!("it needs at least the line `{TOOL_LINE}`"))
    })?;
    let installed = in_venv(folder, INSTALLED);
    let python = in_venv(folder, "bin/python");
    let runs = succeeds(Command::new(&python).arg("--version"));
    if runs && fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    log::say(&format!("wrun: installing {REQUIREMENTS} into {VENV}"));
    if !runs {
        let system = python3()?;
        let mut venv = Command::new(system);
        run(folder, venv.args(["-m", "venv", "--clear", VENV]))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(["--quiet", "-r", REQUIREMENTS]);
    run(folder, &mut pip)?;
    fs::write(&installed, wanted).or_fail(ExitCode::CannotCreate, || {
        format!("cannot write {}", installed.display())
    })
}

/// Finds a Python that can make virtual environments.
fn python3() -> Result<&'static str, Failure> {
    const PYTHON: &str = "python3";
    let (major, minor) = PYTHON_MIN;
    let missing =
        |message: String, hint: &str| Failure::new(ExitCode::Unavailable, message).hint(hint);
    let newer = format!("install Python {major}.{minor} or later, as python3 in PATH");
    let version = Command::new(PYTHON)
        .args(["-c", "import sys; print(*sys.version_info[:2])"])
        .output()
        .map_err(|error| {
            let message = format!("cannot run {PYTHON}: {error}");
            missing(message, &format!("{newer}: apt install python3-venv"))
        })?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    if parse_version(&version).is_none_or(|found| found < PYTHON_MIN) {
        let found = version.replace(' ', ".");
        let message = format!("python3 is Python {found}, {major}.{minor} or later is needed");
        return Err(missing(message, &newer));
    }
    if !succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        let message = "python3 lacks the module venv or ensurepip".to_owned();
        return Err(missing(message, "run `apt install python3-venv`"));
    }
    Ok(PYTHON)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Runs a step in the folder; what it says goes to stdout.
fn run(folder: &Path, command: &mut Command) -> Result<(), Failure> {
    let status = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(stdout()?)
        .stderr(stdout()?)
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let message = format!(
        "cannot install {REQUIREMENTS} into {}",
        folder.join(VENV).display()
    );
    Err(Failure::new(ExitCode::Unavailable, message)
        .hint("see the messages above; pip needs the network at the first build"))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns a path in the virtual environment that is good from any folder.
fn in_venv(folder: &Path, path: &str) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    folder.join(VENV).join(path)
}

/// Returns what matters to a Python programmer of what componentize-py wrote: the traceback of the project's own code, with
/// the names of its files. componentize-py gives each folder that is searched for modules a number.
fn essence(stderr: &str) -> String {
    let (_, said) = stderr
        .split_once("AssertionError: ")
        .unwrap_or(("", stderr));
    let (said, _) = said.split_once("\n\nCaused by:").unwrap_or((said, ""));
    said.replace("File \"/0/", "File \"")
        .replace("File \"/1/", &format!("File \"{VENDOR}/"))
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_has_defaults() {
        let project = Project::parse("[project]\nname = \"shop\"\n").unwrap();
        assert_eq!(project, Project::default());
        let project = Project::parse("[tool.wrun]\nworld = \"both\"\n").unwrap();
        assert_eq!(
            (project.entry.as_str(), project.world),
            ("app", World::Both)
        );
    }

    #[test]
    fn project_with_a_mistake_is_refused() {
        for text in ["world = \"grpc\"", "wolrd = \"http\"", "entry = 1"] {
            assert!(Project::parse(&format!("[tool.wrun]\n{text}\n")).is_err());
        }
    }

    #[test]
    fn traceback_is_all_that_is_shown() {
        let stderr = "Traceback (most recent call last):\n  File \"/v/bin/componentize-py\", line 8, in <module>\n\
            AssertionError: Traceback (most recent call last):\n  File \"/0/app.py\", line 8, in <module>\n\
            ModuleNotFoundError: No module named 'nothing'\n\n\nCaused by:\n    ModuleNotFoundError: …\n";
        assert_eq!(
            essence(stderr),
            "Traceback (most recent call last):\n  File \"app.py\", line 8, in <module>\n\
             ModuleNotFoundError: No module named 'nothing'"
        );
        assert_eq!(essence("killed\n"), "killed");
    }

    #[test]
    fn missing_handler_is_named() {
        let said = "AttributeError: module 'app' has no attribute 'Consumer'";
        let hint = Project::default().remedy(said);
        assert!(hint.contains("@queue.consumer in app.py"), "{hint}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse_version("3 9").unwrap() < PYTHON_MIN);
        assert!(parse_version("3 14").unwrap() > PYTHON_MIN);
        assert_eq!(parse_version(""), None);
    }
}
