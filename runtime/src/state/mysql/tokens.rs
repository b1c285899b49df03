//! Reads a statement's tokens, as far as it must be understood before MariaDB or MySQL gets it.
//!
//! `$1` becomes `?`, with its value once more where it is named twice; statements that steer the transaction or the
//! connection are refused, and so are those that name one of wrun's own tables. Both are a guard rail: what a guest may do
//! is up to the rights of the URL's user. Whether the statement makes sense is for the server to say.

use crate::state::db::{DbError, PARAMS_MAX, SQL_MAX};

/// What the names of wrun's own tables begin with.
pub(super) const OWN: &str = "_wrun_";

/// What begins statements that end or steer a transaction. A migration may not have them either.
const TRANSACTION: [&str; 9] = [
    "begin",
    "commit",
    "end",
    "lock",
    "release",
    "rollback",
    "savepoint",
    "start",
    "xa",
];

/// What begins other statements that are not for guests: they change the connection, which others use next, or the server;
/// or nobody can tell what they do to the transaction, as with CALL.
const CONNECTION: [&str; 44] = [
    "backup",
    "binlog",
    "cache",
    "call",
    "case",
    "change",
    "check",
    "clone",
    "close",
    "deallocate",
    "declare",
    "delimiter",
    "do",
    "execute",
    "fetch",
    "flush",
    "for",
    "get",
    "grant",
    "handler",
    "if",
    "import",
    "install",
    "kill",
    "load",
    "loop",
    "open",
    "prepare",
    "purge",
    "repair",
    "repeat",
    "reset",
    "resignal",
    "restart",
    "return",
    "revoke",
    "set",
    "shutdown",
    "signal",
    "stop",
    "uninstall",
    "unlock",
    "use",
    "while",
];

/// What begins statements that commit what is before them.
const COMMITTING: [&str; 7] = [
    "alter", "analyze", "create", "drop", "optimize", "rename", "truncate",
];

/// What begins statements that return rows and, unless one of `NOT_PLAIN` is in them, do nothing else.
const QUERIES: [&str; 8] = [
    "desc", "describe", "explain", "select", "show", "table", "values", "with",
];
const NOT_PLAIN: [&str; 5] = ["delete", "for", "into", "lock", "update"];

/// What guests neither create, alter nor drop: it belongs to the server and not to the database.
const SERVERS: [&str; 9] = [
    "database",
    "instance",
    "logfile",
    "resource",
    "role",
    "schema",
    "server",
    "tablespace",
    "user",
];

/// What writes files of the server's.
const FILES: [&str; 2] = ["dumpfile", "outfile"];

/// What a statement may leave on its connection: locks, temporary tables, and with an `@`, variables.
const LEFT_BEHIND: [&str; 2] = ["get_lock", "temporary"];

/// A statement as the server gets it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Parsed {
    /// The text, in pieces: between two of them is a parameter.
    pub(super) pieces: Vec<String>,
    /// Which parameter is in each place, counted from 0.
    pub(super) places: Vec<usize>,
    /// Whether all that it does is to return rows.
    pub(super) is_query: bool,
    /// Whether it is such a query, and takes no locks.
    pub(super) is_plain: bool,
    /// Whether it commits what is before it.
    pub(super) commits: Option<String>,
    /// Whether it may leave something behind that others must not find.
    pub(super) leaves_traces: bool,
}

/// Reads a guest's statement, which was given so many parameters.
pub(super) fn parse(sql: &str, given: usize) -> Result<Parsed, DbError> {
    if sql.len() > SQL_MAX {
        return Err(DbError::TooLarge(format!(
            "the statement is longer than {SQL_MAX} bytes"
        )));
    }
    if sql.as_bytes().contains(&0) {
        return Err(DbError::Invalid("the statement contains NUL".to_owned()));
    }
    let tokens = read(sql)?;
    if tokens
        .windows(2)
        .any(|pair| pair[0].text == ";" && pair[1].text != ";")
    {
        return Err(DbError::Invalid("there are several statements".to_owned()));
    }
    let words: Vec<&Token> = tokens
        .iter()
        .skip_while(|token| token.text == "(")
        .collect();
    let Some(first) = words.first().filter(|token| token.text != ";") else {
        return Err(DbError::Invalid("there is no statement".to_owned()));
    };
    let has = |list: &[&str]| {
        tokens
            .iter()
            .any(|token| list.iter().any(|it| token.is(it)))
    };
    if TRANSACTION.iter().chain(&CONNECTION).any(|it| first.is(it)) {
        let verb = first.text.to_ascii_uppercase();
        return Err(DbError::Denied(format!("{verb} is not for guests")));
    }
    refuse_servers(&words)?;
    refuse_own(&tokens)?;
    if has(&FILES) {
        return Err(DbError::Denied("files are not for guests".to_owned()));
    }
    let is_temporary = words.iter().take(4).any(|token| token.is("temporary"));
    let commits = COMMITTING.iter().any(|it| first.is(it)) && !is_temporary;
    let is_query = QUERIES.iter().any(|it| first.is(it));
    let (pieces, places) = cut(sql, &tokens, given)?;
    Ok(Parsed {
        pieces,
        places,
        is_query,
        is_plain: is_query && !has(&NOT_PLAIN) && !has(&LEFT_BEHIND),
        commits: commits.then(|| first.text.to_ascii_uppercase()),
        leaves_traces: has(&LEFT_BEHIND) || tokens.iter().any(|token| token.text == "@"),
    })
}

/// Refuses a migration that would steer transactions, or change wrun's own tables.
pub(super) fn check_migration(sql: &str) -> Result<(), DbError> {
    refuse_own(&read(sql)?)
}

fn refuse_servers(words: &[&Token<'_>]) -> Result<(), DbError> {
    let Some(first) = words.first() else {
        return Ok(());
    };
    let mut rest = words.iter().skip(1);
    let what = rest.find(|token| !token.is("or") && !token.is("replace"));
    let changes = ["alter", "create", "drop", "rename"];
    match what.filter(|what| SERVERS.iter().any(|it| what.is(it))) {
        Some(what) if changes.iter().any(|it| first.is(it)) => {
            let statement = format!("{} {}", first.text, what.text).to_ascii_uppercase();
            Err(DbError::Denied(format!("{statement} is not for guests")))
        }
        _ => Ok(()),
    }
}

fn refuse_own(tokens: &[Token<'_>]) -> Result<(), DbError> {
    let is_own = |token: &Token<'_>| {
        let name = match token.kind {
            Kind::Word => token.text,
            Kind::Quoted => token.text.trim_matches('`'),
            _ => return false,
        };
        let start = name.as_bytes().get(..OWN.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(OWN.as_bytes()))
    };
    match tokens.iter().any(is_own) {
        true => Err(DbError::Denied(format!(
            "names that begin with {OWN} are those of tables that wrun keeps for itself"
        ))),
        false => Ok(()),
    }
}

/// Cuts a statement where parameters are. A bare `?` is the one after the last.
fn cut(
    sql: &str,
    tokens: &[Token<'_>],
    given: usize,
) -> Result<(Vec<String>, Vec<usize>), DbError> {
    let (mut pieces, mut places) = (Vec::new(), Vec::new());
    let (mut copied, mut last) = (0, 0);
    for token in tokens {
        let number = match token.kind {
            Kind::Parameter => {
                let number = token.text[1..].parse().ok();
                let in_range = number.filter(|number| (1..=PARAMS_MAX).contains(number));
                in_range.ok_or_else(|| {
                    let text = token.text;
                    DbError::Invalid(format!(
                        "parameters are $1 to ${PARAMS_MAX}, or ?, not {text}"
                    ))
                })?
            }
            Kind::Question => last + 1,
            _ => continue,
        };
        last = last.max(number);
        pieces.push(sql[copied..token.start].to_owned());
        places.push(number - 1);
        copied = token.start + token.text.len();
    }
    pieces.push(sql[copied..].to_owned());
    match last == given {
        true => Ok((pieces, places)),
        false => Err(DbError::Invalid(format!(
            "the statement has {last} parameters, {given} were given"
        ))),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A keyword, a name or a number.
    Word,
    /// A name in backticks.
    Quoted,
    /// A string.
    Text,
    Parameter,
    Question,
    Symbol,
    /// A comment that is none: the server, or some version of it, executes what is in it.
    Executed,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    /// Tells whether it is this keyword, given in lower case.
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

fn read(sql: &str) -> Result<Vec<Token<'_>>, DbError> {
    let tokens: Vec<Token> = Tokens { sql, at: 0 }.collect();
    match tokens.iter().any(|token| token.kind == Kind::Executed) {
        true => Err(DbError::Denied(
            "comments that are executed, /*! and /*M!, are not for guests".to_owned(),
        )),
        false => Ok(tokens),
    }
}

/// The tokens of a text, without spaces and comments. It is read as with the mode that every session here has: `\` escapes,
/// and `"` begins a string.
struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl Tokens<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.as_bytes().get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, belongs: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&belongs) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.skip_while(is_blank);
            match (self.peek(0), self.peek(1), self.peek(2)) {
                (Some(b'#'), ..) => self.skip_while(|byte| byte != b'\n'),
                // Two minus signs without a blank after them are two minus signs.
                (Some(b'-'), Some(b'-'), next) if next.is_none_or(is_blank) => {
                    self.skip_while(|byte| byte != b'\n');
                }
                (Some(b'/'), Some(b'*'), Some(b'!')) => return,
                (Some(b'/'), Some(b'*'), Some(b'M')) if self.peek(3) == Some(b'!') => return,
                (Some(b'/'), Some(b'*'), _) => {
                    let end = self.sql[self.at + 2..].find("*/");
                    self.at = end.map_or(self.sql.len(), |end| self.at + end + 4);
                }
                _ => return,
            }
        }
    }

    /// Goes past what stands between two `quote`s; twice in a row it is part of that.
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && quote != b'`' {
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    break;
                }
                self.at += 1;
            }
        }
        self.at = self.at.min(self.sql.len());
    }

    fn kind(&mut self, first: u8) -> Kind {
        match first {
            b'\'' | b'"' => {
                self.skip_quoted(first);
                Kind::Text
            }
            b'`' => {
                self.skip_quoted(first);
                Kind::Quoted
            }
            b'/' if self.peek(1) == Some(b'*') => {
                self.at += 2;
                Kind::Executed
            }
            b'$' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
                Kind::Parameter
            }
            b'?' => {
                self.at += 1;
                Kind::Question
            }
            byte if is_of_word(byte) => {
                self.skip_while(is_of_word);
                Kind::Word
            }
            _ => {
                self.at += 1;
                Kind::Symbol
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let start = self.at;
        let kind = self.kind(self.peek(0)?);
        // What an escape skipped may have been the first byte of several.
        while !self.sql.is_char_boundary(self.at) {
            self.at += 1;
        }
        let text = &self.sql[start..self.at];
        Some(Token { kind, text, start })
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str, given: usize) -> (String, Vec<usize>) {
        let parsed = parse(sql, given).unwrap();
        (parsed.pieces.join("?"), parsed.places)
    }

    #[test]
    fn parameters_are_where_they_are_named_and_everything_else_stays() {
        for (sql, given, expected, places) in [
            ("SELECT $1, $2", 2, "SELECT ?, ?", &[0, 1][..]),
            ("SELECT $2, $1, $2", 2, "SELECT ?, ?, ?", &[1, 0, 1]),
            ("SELECT a=? AND b = ?", 2, "SELECT a=? AND b = ?", &[0, 1]),
            ("SELECT $3, ?", 4, "SELECT ?, ?", &[2, 3]),
            (
                "SELECT '?$1', \"$1\", `$1`, $1 -- $2",
                1,
                "SELECT '?$1', \"$1\", `$1`, ? -- $2",
                &[0],
            ),
            (
                "SELECT 'it''s \\' $1', $1",
                1,
                "SELECT 'it''s \\' $1', ?",
                &[0],
            ),
            (
                "SELECT `a``$1`, a$1 # $1\n, $1",
                1,
                "SELECT `a``$1`, a$1 # $1\n, ?",
                &[0],
            ),
            ("SELECT 1--$1 /* $2 ' */", 1, "SELECT 1--? /* $2 ' */", &[0]),
            (
                "SELECT größe FROM t WHERE ä = $1",
                1,
                "SELECT größe FROM t WHERE ä = ?",
                &[0],
            ),
        ] {
            let places = places.to_vec();
            assert_eq!(
                rewritten(sql, given),
                (expected.to_owned(), places),
                "{sql}"
            );
        }
    }

    #[test]
    fn what_steers_transaction_connection_or_server_is_denied() {
        for sql in [
            "BEGIN",
            "commit;",
            "/* */ ROLLBACK",
            "(COMMIT)",
            "SAVEPOINT a",
            "XA START 'x'",
            "LOCK TABLES t WRITE",
            "SET autocommit = 0",
            "USE mysql",
            "CALL p()",
            "PREPARE a FROM 'COMMIT'",
            "KILL 7",
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
            "SELECT 1 INTO OUTFILE '/tmp/x'",
            "CREATE OR REPLACE USER x",
            "DROP DATABASE x",
            "SELECT 1 /*! ; COMMIT */",
            "SELECT 1 /*M!100100 + 1 */",
            "/*!COMMIT*/",
            "DELETE FROM _wrun_processed",
            "SELECT * FROM shop.`_WRUN_fences`",
        ] {
            assert!(matches!(parse(sql, 0), Err(DbError::Denied(_))), "{sql}");
        }
        for sql in [
            "SELECT wrun FROM t",
            "CREATE TABLE user (a int)",
            "UPDATE t SET a = 1",
            "SELEC 1",
            "(SELECT 1)",
        ] {
            assert!(parse(sql, 0).is_ok(), "{sql}");
        }
    }

    #[test]
    fn what_is_no_single_statement_is_invalid() {
        for sql in [
            "",
            " ; ",
            "-- nothing",
            "# nothing",
            "SELECT 1; SELECT 2",
            "SELECT $0",
            "SELECT $1001",
            "SELECT \0",
            "SELECT $1",
        ] {
            assert!(matches!(parse(sql, 0), Err(DbError::Invalid(_))), "{sql:?}");
        }
        assert!(parse("SELECT ';';;", 0).is_ok());
    }

    #[test]
    fn statement_says_what_it_does_to_the_transaction() {
        let is_plain = |sql| parse(sql, 0).unwrap().is_plain;
        assert!(is_plain("SELECT 1") && is_plain("WITH a AS (SELECT 1) SELECT * FROM a"));
        for sql in [
            "SELECT a FROM t FOR UPDATE",
            "SELECT a FROM t LOCK IN SHARE MODE",
            "WITH a AS (SELECT 1) DELETE FROM t",
            "UPDATE t SET a = 1",
        ] {
            assert!(!is_plain(sql), "{sql}");
        }
        let commits = |sql| parse(sql, 0).unwrap().commits;
        assert_eq!(commits("create table t (a int)").as_deref(), Some("CREATE"));
        assert_eq!(commits("CREATE TEMPORARY TABLE t (a int)"), None);
        assert!(parse("SELECT @a := 1", 0).unwrap().leaves_traces);
        assert!(!parse("SELECT '@'", 0).unwrap().leaves_traces);
    }

    #[test]
    fn unfinished_quotes_and_comments_end_with_the_text() {
        for sql in [
            "SELECT '",
            "SELECT \"a",
            "SELECT `a",
            "SELECT /* *",
            "SELECT 'a\\",
            "SELECT '\\ä",
            "SELECT $",
            "SELECT $ä",
            "SELECT /*",
        ] {
            assert!(parse(sql, 0).is_ok(), "{sql}");
        }
    }
}
