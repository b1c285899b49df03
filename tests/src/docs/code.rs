//! Tries code of the documentation with the tools of its language: compiles Rust, parses the rest.
//!
//! A tool that is missing is told on stderr and its language left out, unless `WRUN_TEST_ALL=1` makes that an error.

use super::{Block, Page};
use crate::guests::cargo;
use crate::repository;
use crate::third_party::{leave_out, succeeds};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a page's Rust may use without saying so: its names, and `?` outside of a function.
const PRELUDE: &str = "//! What Rust in the documentation may use without saying so.

pub use wrun_sdk::db::{self, Database, Statement, Transaction, TxOptions};
pub use wrun_sdk::http::{Request, Response, StatusCode};
pub use wrun_sdk::lock;
pub use wrun_sdk::queue::{self, Delivery, Message};
pub use wrun_sdk::{consumer, http};
";

/// What the documentation's Rust is compiled with.
const DEPENDENCIES: &str = "anyhow = \"1\"
serde = { version = \"1\", features = [\"derive\"] }
serde_json = \"1\"
";

/// Compiles all Rust of `pages` against the SDK for wasm, and returns the compiler's errors, each with the page and the
/// line of its block in front.
///
/// # Panics
///
/// If cargo does not get as far as compiling.
pub fn rust_errors(pages: &[Page]) -> Vec<String> {
    let folder = repository().join("target/docs");
    let blocks: Vec<(String, Block)> = pages
        .iter()
        .flat_map(|page| {
            let blocks = page.blocks().into_iter();
            blocks.map(|block| (page.path.clone(), block))
        })
        .filter(|(_, block)| block.language == "rust" && !block.is_part)
        .collect();
    write_package(&folder, &blocks);
    let output = cargo()
        .args(["check", "--examples", "--keep-going", "--quiet"])
        .args(["--target", "wasm32-wasip2", "--target-dir", "target"])
        .args(["--message-format", "short"])
        .current_dir(&folder)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<String> = said
        .lines()
        .filter(|line| line.contains(": error"))
        .filter_map(|line| place(line, &blocks))
        .collect();
    assert!(output.status.success() || !errors.is_empty(), "{said}");
    errors
}

/// Puts page and line in the place of the file that a message begins with.
fn place(message: &str, blocks: &[(String, Block)]) -> Option<String> {
    let (file, rest) = message.strip_prefix("examples/block")?.split_once(".rs:")?;
    let (path, block) = blocks.get(file.parse::<usize>().ok()?)?;
    Some(format!("{path}:{}: {rest}", block.line))
}

/// Writes a package with an example for each block. What is there already and the same stays untouched, so that cargo does
/// not compile it again.
fn write_package(folder: &Path, blocks: &[(String, Block)]) {
    let mut manifest = format!(
        "[package]\nname = \"docs\"\nedition = \"2024\"\nautoexamples = false\n\n[workspace]\n\n\
         [dependencies]\n{DEPENDENCIES}wrun-sdk = {{ path = {:?} }}\n",
        repository().join("guest-sdk")
    );
    for index in 0..blocks.len() {
        write!(
            manifest,
            "\n[[example]]\nname = \"block{index}\"\ncrate-type = [\"cdylib\"]\n"
        )
        .expect("a string takes everything");
    }
    write_if_new(&folder.join("Cargo.toml"), &manifest);
    write_if_new(&folder.join("src/lib.rs"), PRELUDE);
    for (index, (_, block)) in blocks.iter().enumerate() {
        let file = folder.join(format!("examples/block{index}.rs"));
        write_if_new(&file, &program(block));
    }
    let lock = folder.join("Cargo.lock");
    if !lock.exists() {
        fs::copy(repository().join("guest-sdk/Cargo.lock"), lock).expect("the SDK's lock file");
    }
}

/// Makes a block a whole file: as it is if it has an entry point, else as the body of a function. Either way its first line
/// is the second one.
fn program(block: &Block) -> String {
    let Block { given, text, .. } = block;
    let is_whole = ["#[wrun_sdk::", "fn main"]
        .iter()
        .any(|entry| text.contains(entry));
    if is_whole {
        format!("#![allow(unused)] use docs::*; {given}\n{text}")
    } else {
        format!(
            "#![allow(unused)] use docs::*; fn block() -> anyhow::Result<()> {{ {given}\n{text}\nOk(()) }}\n"
        )
    }
}

/// Takes the types out of a module on stdin and parses it; what it imports is not looked for.
const PARSE_MODULE: &str = "const { stripTypeScriptTypes } = require('node:module');
const { SourceTextModule } = require('node:vm');
new SourceTextModule(stripTypeScriptTypes(require('node:fs').readFileSync(0, 'utf8')))";

/// A program that reads one block from stdin and says on stderr why it is not valid code.
pub struct Parser {
    languages: &'static [&'static str],
    program: &'static str,
    args: &'static [&'static str],
}

/// Returns a parser of Python, or `None` if there is no Python.
pub fn python() -> Option<Parser> {
    if !succeeds(Command::new("python3").arg("--version")) {
        leave_out::<()>("Python of the docs", "python3", "apt install python3");
        return None;
    }
    Some(Parser {
        languages: &["python", "py"],
        program: "python3",
        args: &["-c", "import ast, sys; ast.parse(sys.stdin.read())"],
    })
}

/// Returns a parser of JavaScript and TypeScript, or `None` if there is no Node.js that can take the types out.
pub fn javascript() -> Option<Parser> {
    let can_strip = "if (!require('node:module').stripTypeScriptTypes) process.exit(1)";
    if !succeeds(Command::new("node").args(["-e", can_strip])) {
        let what = "Node.js 22.13 or later";
        leave_out::<()>("JavaScript of the docs", what, "npm install node@22");
        return None;
    }
    Some(Parser {
        languages: &["js", "javascript", "ts", "typescript"],
        program: "node",
        args: &[
            "--no-warnings",
            "--experimental-vm-modules",
            "-e",
            PARSE_MODULE,
        ],
    })
}

impl Parser {
    /// Returns what is wrong with the code on a page.
    pub fn errors(&self, page: &Page) -> Vec<String> {
        let blocks = page.blocks().into_iter();
        let parsed = blocks
            .filter(|block| self.languages.contains(&block.language.as_str()))
            .filter_map(|block| {
                let said = self.parse(&block.text).err()?;
                Some(format!("{}:{}: {said}", page.path, block.line))
            });
        parsed.collect()
    }

    fn parse(&self, text: &str) -> Result<(), String> {
        let mut child = Command::new(self.program)
            .args(self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it ran a moment ago");
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that ends before it has read everything says why on stderr.
        let _ = stdin.write_all(text.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("a child ends");
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn write_if_new(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    let folder = path.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
}
