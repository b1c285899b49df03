//! Applications in JavaScript and TypeScript, built by `wrun build` with what npm installs, and kept in
//! `target/third-party`.
//!
//! They are built again only when their sources, the SDK or what calls the tools change. If npm is missing the answer is
//! `None` and a line on stderr, unless `WRUN_TEST_ALL=1` makes that an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guests::{guests_folder, run};
use crate::launch::{Launch, Wrun};
use crate::repository;
use crate::third_party::{Recipe, in_folder, leave_out, plain_world, read, succeeds, texts, write};

const NODE_MAJOR_MIN: u32 = 20;

/// An application that is built.
#[derive(Clone, Debug)]
pub struct App {
    folder: PathBuf,
}

impl App {
    /// Returns its component.
    pub fn component(&self) -> PathBuf {
        self.folder.join("dist/app.wasm")
    }

    /// Prepares a server of it, or of its component in the form of `path`, with its manifest.
    pub fn serve(&self, wrun: &Wrun, path: &Path) -> Launch {
        wrun.serve(path)
            .flag("--config", self.folder.join("wrun.toml"))
    }
}

/// `examples/hello-js`: the smallest handler in JavaScript.
pub fn hello(wrun: &Wrun) -> Option<App> {
    let example = repository().join("examples/hello-js");
    let names = ["package.json", "src", "wrun.toml"];
    project(wrun, "hello-js", in_folder(&example, &names))
}

/// `tests/guests/plain`: hello with WASI alone, which other hosts have too.
pub fn plain() -> Option<PathBuf> {
    let source = guests_folder().join("plain");
    let mut sources = in_folder(&source, &["app.js", "package.json"]);
    sources.push(sdk().join("wit"));
    let recipe = Recipe {
        name: "js-plain",
        steps: "jco 1",
        sources,
        output: "app.wasm",
    };
    let folder = cook(&recipe, |folder| {
        plain_world(folder);
        run(Command::new("npm")
            .args(["install", "--silent"])
            .current_dir(folder));
        run(Command::new("npx")
            .args(["jco", "componentize", "app.js"])
            .args(["-w", "wit", "-n", "plain", "-o", "app.wasm"])
            .current_dir(folder));
    })?;
    Some(folder.join("app.wasm"))
}

/// `tests/guests/hono`: TypeScript and the framework Hono.
pub fn hono(wrun: &Wrun) -> Option<App> {
    let names = ["app.ts", "package.json", "wrun.toml"];
    project(
        wrun,
        "hono",
        in_folder(&guests_folder().join("hono"), &names),
    )
}

/// `tests/guests/javascript-state`: TypeScript that uses all of the SDK. Its test compiles the examples of the guide.
pub fn state(wrun: &Wrun) -> Option<App> {
    let guest = guests_folder().join("javascript-state");
    let names = [
        "examples.js",
        "migrations",
        "package.json",
        "src",
        "tsconfig.json",
        "wrun.toml",
    ];
    let mut sources = in_folder(&guest, &names);
    sources.push(repository().join("docs/guide-javascript.md"));
    project(wrun, "javascript-state", sources)
}

/// What `wrun new` makes; its own tests have passed.
pub fn template(wrun: &Wrun, lang: &str, template: &str) -> Option<App> {
    let source = repository()
        .join("runtime/templates")
        .join(lang)
        .join(template);
    let steps = steps("new, build, test", &[source, sdk()]);
    let recipe = Recipe {
        name: &format!("{lang}-{template}"),
        steps: &steps,
        sources: vec![],
        output: "app/dist/app.wasm",
    };
    cook(&recipe, |folder| {
        let args = ["new", "app", "--lang", lang, "--template", template];
        run(wrun.command().args(args).current_dir(folder));
        build(wrun, &folder.join("app"));
    })
    .map(|folder| App {
        folder: folder.join("app"),
    })
}

/// Builds an application of these files, with a copy of the SDK.
fn project(wrun: &Wrun, name: &str, mut sources: Vec<PathBuf>) -> Option<App> {
    sources.push(sdk());
    let recipe = Recipe {
        name,
        steps: &steps("build, test", &[]),
        sources,
        output: "dist/app.wasm",
    };
    cook(&recipe, |folder| {
        fs::create_dir(folder.join("vendor")).expect("a folder can be made");
        fs::rename(folder.join("js"), folder.join("vendor/wrun-sdk"))
            .expect("a folder can be renamed");
        let package = folder.join("package.json");
        let text = read(&package).replace("file:../../guest-sdk/js", "file:vendor/wrun-sdk");
        write(&package, &text);
        build(wrun, folder);
    })
    .map(|folder| App { folder })
}

/// Builds the application in `folder`, and runs its tests, if it has some.
fn build(wrun: &Wrun, folder: &Path) {
    run(wrun.command().arg("build").current_dir(folder));
    run(Command::new("npm")
        .args(["test", "--if-present"])
        .current_dir(folder));
    // It is large, and only the component is wanted from here on.
    fs::remove_dir_all(folder.join("node_modules")).expect("a folder can be removed");
}

/// Returns the folder of the recipe's output.
fn cook(recipe: &Recipe<'_>, build: impl FnOnce(&Path)) -> Option<PathBuf> {
    if !has_npm() {
        let what = format!("npm with Node.js {NODE_MAJOR_MIN} or later");
        return leave_out(recipe.name, &what, "apt install nodejs npm");
    }
    let mut output = recipe.cook(build);
    for _ in Path::new(recipe.output) {
        output.pop();
    }
    Some(output)
}

/// Returns what an output depends on beside its sources.
fn steps(what: &str, sources: &[PathBuf]) -> String {
    let tools = repository().join("runtime/src/package/javascript.rs");
    format!("{what}\n{}{}", texts(&[tools]), texts(sources))
}

fn sdk() -> PathBuf {
    repository().join("guest-sdk/js")
}

fn has_npm() -> bool {
    let Ok(node) = Command::new("node").arg("--version").output() else {
        return false;
    };
    let version = String::from_utf8_lossy(&node.stdout);
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= NODE_MAJOR_MIN)
        && succeeds(Command::new("npm").arg("--version"))
}
