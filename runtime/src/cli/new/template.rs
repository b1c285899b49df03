//! What `wrun new` makes folders from: the files of `templates`, and of `guest-sdk` the part for a language, all embedded
//! in the binary.

use std::borrow::Cow;

/// What an application is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Language {
    /// Rust
    Rust,
    /// JavaScript
    Js,
    /// TypeScript
    Ts,
    /// Python
    Python,
}

/// What an application does at first; the same in every language.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Template {
    /// Answers HTTP requests, and keeps nothing
    Http,
    /// Sells a stock that cannot be oversold: a database, a transaction
    Inventory,
    /// Takes orders over HTTP and handles them later: a queue, a consumer
    Consumer,
}

/// Every file by its path: `templates/LANGUAGE/TEMPLATE/…`, and `sdk/…` as in `guest-sdk`.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Stands for the application's name, in texts and in the names of files.
const NAME: &str = "{{name}}";

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Ts => "ts",
            Self::Python => "python",
        }
    }

    /// Returns what to copy of the SDK, and where to: beginnings of paths.
    fn sdk(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Rust => &[
                ("sdk/Cargo.toml", "vendor/wrun-sdk/Cargo.toml"),
                ("sdk/macros/", "vendor/wrun-sdk/macros/"),
                ("sdk/src/", "vendor/wrun-sdk/src/"),
                ("sdk/wit/", "vendor/wrun-sdk/wit/"),
            ],
            Self::Js | Self::Ts => &[
                ("sdk/js/", "vendor/wrun-sdk/"),
                ("sdk/wit/deps/", "vendor/wrun-sdk/wit/deps/"),
            ],
            Self::Python => &[
                ("sdk/python/wrun_sdk/", "vendor/wrun_sdk/"),
                ("sdk/wit/deps/", "vendor/wrun_sdk/wit/deps/"),
            ],
        }
    }
}

impl Template {
    fn folder(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Inventory => "inventory",
            Self::Consumer => "consumer",
        }
    }

    /// Returns a first request to a server of it.
    pub(super) fn curl(self) -> &'static str {
        match self {
            Self::Http => "curl http://127.0.0.1:8080/hello/you",
            Self::Inventory => "curl -X POST http://127.0.0.1:8080/buy/ticket",
            Self::Consumer => "curl http://127.0.0.1:8080/orders -d '{\"item\": \"ticket\"}'",
        }
    }
}

/// Returns the files of an application called `name`, by their paths in its folder.
pub(super) fn files(
    language: Language,
    template: Template,
    name: &str,
) -> impl Iterator<Item = (String, Cow<'static, [u8]>)> {
    let own = format!("templates/{}/{}/", language.folder(), template.folder());
    EMBEDDED.iter().filter_map(move |(path, content)| {
        if let Some(path) = path.strip_prefix(&own) {
            let text = String::from_utf8_lossy(content).replace(NAME, name);
            return Some((own_path(path, name), Cow::Owned(text.into_bytes())));
        }
        let (from, to) = language
            .sdk()
            .iter()
            .find(|(from, _)| path.starts_with(from))?;
        Some((path.replacen(from, to, 1), Cow::Borrowed(*content)))
    })
}

/// Returns the path for a template's file. Git would heed a `.gitignore` among the templates, so it has another name there.
fn own_path(path: &str, name: &str) -> String {
    match path {
        "gitignore" => ".gitignore".to_owned(),
        path => path.replace(NAME, name),
    }
}
