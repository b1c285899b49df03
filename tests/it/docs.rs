//! The documentation is true: its links lead somewhere, its code compiles, wrun takes its manifests and commands.
//!
//! Each rule is a function from pages to complaints, and is tried on a made-up page that breaks it.

use crate::{guest, wrun};
use std::fs;
use wrun_tests::docs::{Block, Page, code, pages};
use wrun_tests::{folder, repository};

/// The page that the book is put together by.
const SUMMARY: &str = "docs/SUMMARY.md";

/// What ends one command of a shell and may begin the next.
const BETWEEN_COMMANDS: [&str; 7] = ["|", "||", "&&", "&", ";", ">", "2>"];

/// The files that TOML on a page can be, besides `wrun.toml`; its first line is a comment with the name.
const OTHER_TOML: [&str; 2] = ["# Cargo.toml", "# pyproject.toml"];

/// Checks all pages, and that the rule complains of each block in `wrong` on a page of its own.
#[track_caller]
fn assert_rule(rule: impl Fn(&Page) -> Vec<String>, wrong: &[&str]) {
    for text in wrong {
        let page = Page::made_up("docs/made-up.md", text);
        assert!(!rule(&page).is_empty(), "the rule does not notice\n{text}");
    }
    let complaints: Vec<String> = pages().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Applies `check` to the blocks of these languages, and returns its complaints with page and line.
fn of_blocks(
    page: &Page,
    languages: &[&str],
    check: impl Fn(&Block) -> Result<(), String>,
) -> Vec<String> {
    let blocks = page.blocks().into_iter();
    let checked = blocks.filter(|block| languages.contains(&block.language.as_str()));
    checked
        .filter_map(|block| {
            let complaint = check(&block).err()?;
            Some(format!("{}:{}: {complaint}", page.path, block.line))
        })
        .collect()
}

/// Follows a link from a page, and says why it leads nowhere.
fn follow(page: &Page, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let text = match path {
        "" => page.text.clone(),
        path => {
            let file = page.folder().join(path);
            if page.in_book() && path.starts_with("..") {
                return Err(format!("{target} leads out of the book"));
            }
            if !file.exists() {
                return Err(format!("{target} is not there"));
            }
            fs::read_to_string(file).unwrap_or_default()
        }
    };
    let there = Page::made_up(path, &text).anchors();
    if anchor.is_empty() || there.iter().any(|known| known == anchor) {
        return Ok(());
    }
    Err(format!("{target} has no such heading"))
}

fn dead_links(page: &Page) -> Vec<String> {
    let links = page.links().into_iter();
    let dead = links.filter_map(|(target, line)| {
        let why = follow(page, &target).err()?;
        Some(format!("{}:{line}: {why}", page.path))
    });
    let missing = page.includes().into_iter().filter(|file| !file.exists());
    let missing = missing.map(|file| format!("{}: no {} to include", page.path, file.display()));
    dead.chain(missing).collect()
}

#[test]
fn links_lead_somewhere() {
    assert_rule(
        dead_links,
        &[
            "[x](nowhere.md)",
            "[x](#nothing)",
            "# Some thing\n[x](#some-thing-else)",
            "[x](state.md#nothing)",
            "[x](../README.md)",
            "```rust\n{{#include nowhere.rs}}\n```",
        ],
    );
    let good = "# Some `thing`: else\n## Twice\n## Twice\n[a](#some-thing-else) [b](#twice-1) [c](state.md)";
    assert_eq!(dead_links(&Page::made_up("docs/made-up.md", good)), [""; 0]);
}

/// Returns the pages of the book that the summary does not name.
fn unlisted(pages: &[Page]) -> Vec<&str> {
    let summary = pages.iter().find(|page| page.path == SUMMARY);
    let links = summary.expect("the book has a summary").links();
    let is_listed = |page: &Page| {
        let name = page.path.trim_start_matches("docs/");
        links.iter().any(|(target, _)| target == name)
    };
    let unlisted = pages
        .iter()
        .filter(|page| page.in_book() && page.path != SUMMARY && !is_listed(page));
    unlisted.map(|page| page.path.as_str()).collect()
}

#[test]
fn every_page_is_in_the_summary() {
    let mut all = pages();
    assert_eq!(unlisted(&all), [""; 0]);
    all.push(Page::made_up("docs/made-up.md", ""));
    assert_eq!(unlisted(&all), ["docs/made-up.md"]);
}

#[test]
fn rust_compiles() {
    let mut all = pages();
    let wrong = "```rust\nlet n: u64 = \"no number\";\n```";
    all.push(Page::made_up("docs/made-up.md", wrong));
    let (noticed, complaints): (Vec<_>, Vec<_>) = code::rust_errors(&all)
        .into_iter()
        .partition(|error| error.starts_with("docs/made-up.md"));
    assert_eq!(noticed.len(), 1, "the compiler does not notice\n{wrong}");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn python_parses() {
    if let Some(python) = code::python() {
        let wrong = "```python\ndef f(:\n```";
        assert_rule(|page| python.errors(page), &[wrong]);
    }
}

#[test]
fn javascript_and_typescript_parse() {
    if let Some(javascript) = code::javascript() {
        let wrong = ["```js\nlet = ;\n```", "```ts\nlet a: = 1;\n```"];
        assert_rule(|page| javascript.errors(page), &wrong);
        let right = "```js\nawait f();\n```\n\n```ts\nlet a: number = 1;\n```";
        let page = Page::made_up("docs/made-up.md", right);
        assert_eq!(javascript.errors(&page), [""; 0]);
    }
}

#[test]
fn json_parses() {
    let parse = |block: &Block| {
        let value: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
        value.map(drop).map_err(|error| error.to_string())
    };
    assert_rule(
        |page| of_blocks(page, &["json"], parse),
        &["```json\n{,}\n```"],
    );
}

#[test]
fn manifests_are_served() {
    let scratch = folder();
    let file = |name: &str| scratch.path().join(name);
    fs::create_dir(file("migrations")).expect("a folder");
    let (component, key) = (file("guest.cwasm"), file("key"));
    let compiled = wrun()
        .command()
        .arg("compile")
        .arg(guest("state_queue"))
        .arg("-o")
        .arg(&component)
        .arg("--key-file")
        .arg(&key)
        .status();
    assert!(compiled.is_ok_and(|status| status.success()));
    let serve = |block: &Block| {
        let text = &block.text;
        if OTHER_TOML.iter().any(|name| text.starts_with(name)) {
            let table: Result<toml::Table, _> = toml::from_str(text);
            return table.map(drop).map_err(|error| error.to_string());
        }
        fs::write(file("wrun.toml"), text).expect("a file");
        let launch = wrun()
            .serve(&component)
            .flag("--config", file("wrun.toml"))
            .flag("--key-file", &key);
        launch.serves()
    };
    let rule = |page: &Page| of_blocks(page, &["toml"], serve);
    assert_rule(
        rule,
        &[
            "```toml\n[limit]\nmemory = \"1MiB\"\n```",
            "```toml\n[consumers.orders]\n```",
            "```toml\n# Cargo.toml\n[package\n```",
        ],
    );
}

#[test]
fn sql_is_a_migration_that_applies() {
    let component = guest("state_db");
    let migrate = |page: &Page| {
        let scratch = folder();
        let blocks = page.blocks().into_iter();
        let sql: Vec<Block> = blocks.filter(|block| block.language == "sql").collect();
        if sql.is_empty() {
            return Vec::new();
        }
        let files = scratch.path().join("migrations");
        fs::create_dir(&files).expect("a folder");
        for (index, block) in sql.iter().enumerate() {
            fs::write(files.join(format!("{index:03}.sql")), &block.text).expect("a file");
        }
        let manifest = format!("[databases.default]\nmigrations = {files:?}\n");
        let served = wrun().serve(&component).manifest(manifest).serves();
        let complaint = served.map_err(|why| format!("{}: {why}", page.path));
        complaint.err().into_iter().collect()
    };
    assert_rule(
        migrate,
        &[
            "```sql\nCREATE TABEL a (n INTEGER);\n```",
            "```sql\nINSERT INTO a VALUES (1);\n```",
        ],
    );
}

/// Returns the command lines of wrun in a block for the shell, each as words.
fn commands(block: &Block) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    for line in block.text.replace("\\\n", " ").lines() {
        let words = shlex::split(line).ok_or_else(|| format!("{line:?} has an open quote"))?;
        for command in words.split(|word| BETWEEN_COMMANDS.contains(&word.as_str())) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let args = match words.as_slice() {
                ["wrun", args @ ..] | ["cargo", "run", "--release", "--", args @ ..] => args,
                _ => continue,
            };
            let args = args.iter().map(|word| (*word).to_owned());
            commands.push(std::iter::once("wrun".to_owned()).chain(args).collect());
        }
    }
    Ok(commands)
}

#[test]
fn command_lines_are_wruns() {
    let parse = |block: &Block| {
        for command in commands(block)? {
            let shown = command.join(" ");
            match wrun::cli::command().try_get_matches_from(command) {
                Err(error) if error.use_stderr() => return Err(format!("{shown}: {error}")),
                _ => {}
            }
        }
        Ok(())
    };
    assert_rule(
        |page| of_blocks(page, &["sh"], parse),
        &[
            "```sh\nwrun scale\n```",
            "```sh\nwrun ps # fine\ncurl x | wrun serve . --workers none\n```",
            "```sh\ncargo run --release -- stopp\n```",
            "```sh\nwrun serve 'a\n```",
        ],
    );
}

#[test]
fn recipes_are_in_the_justfile() {
    let justfile = fs::read_to_string(repository().join("justfile")).expect("there is one");
    let known = |name: &str| {
        let mut lines = justfile.lines();
        lines.any(|line| line.split([' ', ':']).next() == Some(name))
    };
    let check = |block: &Block| {
        let mut called = block
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("just "));
        let name = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
        match called.find(|rest| !known(&name(rest))) {
            Some(rest) => Err(format!("just {}: no such recipe", name(rest))),
            None => Ok(()),
        }
    };
    assert_rule(
        |page| of_blocks(page, &["sh"], check),
        &["```sh\njust nothing\n```"],
    );
}
