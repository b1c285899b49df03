//! The documentation as its readers get it: pages, and the code, links and anchors in them.
//!
//! Finds and takes apart. What has to be true of it is in `tests/it/docs.rs`, and how code is tried in `docs::code`.

pub mod code;

use crate::repository;
use crate::third_party::entries;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A page of Markdown.
pub struct Page {
    /// Its path from the top of the repository.
    pub path: String,
    /// Its text, as it stands in the file.
    pub text: String,
}

/// A block of code.
pub struct Block {
    /// The first word after the fence, empty if there is none.
    pub language: String,
    /// The line of the page that the fence is in, from 1.
    pub line: usize,
    /// What is said to be there already, in a comment `<!-- given: … -->` in front of it: readers do not see it.
    pub given: String,
    /// The code, with what mdBook includes.
    pub text: String,
    /// Whether it is not tried on its own: mdBook includes it from a file that is tried with those around it, or its fence
    /// says `ignore`, as rustdoc's do.
    pub is_part: bool,
}

/// Returns every page that people are led to: the README files, the book, and the map of the code.
pub fn pages() -> Vec<Page> {
    let mut files = vec![
        repository().join("README.md"),
        repository().join("runtime/ARCHITECTURE.md"),
    ];
    markdown_in(&repository().join("docs"), &mut files);
    for folder in ["guest-sdk", "examples"] {
        readmes_under(&repository().join(folder), &mut files);
    }
    files.iter().map(|file| Page::read(file)).collect()
}

impl Page {
    /// Makes up a page, to try a rule on.
    pub fn made_up(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("failed to read {}: {error}", file.display()));
        let path = file
            .strip_prefix(repository())
            .expect("a page lies in the repository");
        Self {
            path: path.display().to_string(),
            text,
        }
    }

    /// Tells whether it is a page of the book.
    pub fn in_book(&self) -> bool {
        self.path.starts_with("docs/")
    }

    /// Returns the folder that its links start from.
    pub fn folder(&self) -> PathBuf {
        let file = repository().join(&self.path);
        file.parent().expect("a page lies in a folder").to_owned()
    }

    /// Returns its blocks of code.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut comment = String::new();
        let mut open = false;
        for (event, at) in self.events() {
            match event {
                Event::Html(html) => comment = given(&html).unwrap_or_default(),
                Event::Start(Tag::CodeBlock(kind)) => {
                    open = true;
                    blocks.push(Block {
                        language: info(&kind).next().unwrap_or_default().to_owned(),
                        line: self.line(&at),
                        given: std::mem::take(&mut comment),
                        text: String::new(),
                        is_part: info(&kind).any(|word| word == "ignore"),
                    });
                }
                Event::End(TagEnd::CodeBlock) => open = false,
                Event::Text(text) if open => {
                    let block = blocks.last_mut().expect("it is open");
                    block.text += &text;
                }
                Event::Start(Tag::Paragraph | Tag::Heading { .. }) => comment.clear(),
                _ => {}
            }
        }
        for block in &mut blocks {
            block.is_part |= block.text.lines().any(|line| include(line).is_some());
            block.text = self.with_includes(&block.text);
        }
        blocks
    }

    /// Returns where its links lead, and the line that each is in.
    pub fn links(&self) -> Vec<(String, usize)> {
        let events = self.events().into_iter();
        let links = events.filter_map(|(event, at)| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some((dest_url.into_string(), self.line(&at)))
            }
            _ => None,
        });
        links.collect()
    }

    /// Returns what a link can name behind `#`: its headings, as GitHub and mdBook name them.
    pub fn anchors(&self) -> Vec<String> {
        let (mut anchors, mut heading) = (Vec::new(), None);
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (event, _) in self.events() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        *heading += &text;
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let before = seen.entry(anchor.clone()).or_default();
                    anchors.push(match *before {
                        0 => anchor,
                        before => format!("{anchor}-{before}"),
                    });
                    *before += 1;
                }
                _ => {}
            }
        }
        anchors
    }

    /// Returns the files that mdBook is to include, whether they are there or not.
    pub fn includes(&self) -> Vec<PathBuf> {
        let lines = self.text.lines();
        let included = lines.filter_map(include);
        included.map(|file| self.folder().join(file)).collect()
    }

    fn events(&self) -> Vec<(Event<'_>, Range<usize>)> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES)
            .into_offset_iter()
            .collect()
    }

    fn line(&self, at: &Range<usize>) -> usize {
        self.text[..at.start].lines().count().max(1)
    }

    /// Puts files where mdBook would; one that is not there stays as it is written, and is complained of elsewhere.
    fn with_includes(&self, text: &str) -> String {
        let lines = text.split_inclusive('\n');
        let included = lines.map(|line| {
            let file = include(line).map(|file| self.folder().join(file));
            file.and_then(|file| fs::read_to_string(file).ok())
                .unwrap_or_else(|| line.to_owned())
        });
        included.collect()
    }
}

/// Returns the file of a line `{{#include FILE}}`.
fn include(line: &str) -> Option<&str> {
    let inside = line
        .trim()
        .strip_prefix("{{#include ")?
        .strip_suffix("}}")?;
    Some(inside.trim())
}

/// Returns what a comment `<!-- given: … -->` says.
fn given(html: &str) -> Option<String> {
    let inside = html
        .trim()
        .strip_prefix("<!-- given:")?
        .strip_suffix("-->")?;
    Some(inside.trim().to_owned())
}

/// Returns the words after a fence.
fn info<'a>(kind: &'a CodeBlockKind<'_>) -> impl Iterator<Item = &'a str> {
    let info = match kind {
        CodeBlockKind::Fenced(info) => info,
        CodeBlockKind::Indented => "",
    };
    info.split(|char: char| char == ',' || char.is_whitespace())
}

fn anchor(heading: &str) -> String {
    let chars = heading.trim().chars().filter_map(|char| match char {
        ' ' => Some('-'),
        char if char.is_alphanumeric() || "-_".contains(char) => Some(char),
        _ => None,
    });
    chars.flat_map(char::to_lowercase).collect()
}

fn markdown_in(folder: &Path, files: &mut Vec<PathBuf>) {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "md");
    files.extend(entries(folder).into_iter().filter(is_markdown));
}

fn readmes_under(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_made = ["target", "node_modules"].contains(&&*name) || name.starts_with('.');
        if path.is_dir() && !is_made {
            readmes_under(&path, files);
        } else if name == "README.md" {
            files.push(path);
        }
    }
}
