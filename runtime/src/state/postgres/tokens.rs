//! Reads a statement's tokens, as far as it must be understood before PostgreSQL gets it.
//!
//! A bare `?` becomes `$1`, `$2`, …; statements that steer the transaction or the connection are refused, and so are those
//! that name the schema `wrun`. Both are a guard rail: what a guest may do is up to the rights of the URL's user. Whether
//! the statement makes sense is for PostgreSQL to say.

use crate::state::db::{DbError, PARAMS_MAX, SQL_MAX};
use std::borrow::Cow;

/// The schema of wrun's own tables.
pub(super) const OWN_SCHEMA: &str = "wrun";

/// What begins statements that end or steer a transaction. A migration may not have them either.
const TRANSACTION: [&str; 9] = [
    "abort",
    "begin",
    "commit",
    "end",
    "prepare",
    "release",
    "rollback",
    "savepoint",
    "start",
];

/// What begins other statements that are not for guests: they change the connection, which others use next, or the server.
const CONNECTION: [&str; 21] = [
    "checkpoint",
    "close",
    "cluster",
    "copy",
    "deallocate",
    "declare",
    "discard",
    "do",
    "execute",
    "fetch",
    "import",
    "listen",
    "load",
    "move",
    "notify",
    "reassign",
    "reset",
    "security",
    "set",
    "unlisten",
    "vacuum",
];

/// What guests neither create, alter nor drop: it belongs to the server and not to the database.
const SERVERS: [&str; 9] = [
    "database",
    "group",
    "publication",
    "role",
    "server",
    "subscription",
    "system",
    "tablespace",
    "user",
];

/// A statement as PostgreSQL gets it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Parsed<'a> {
    pub(super) sql: Cow<'a, str>,
    /// Its first word.
    verb: &'a str,
}

impl Parsed<'_> {
    /// Tells whether all that it does is to return rows: then none was affected.
    pub(super) fn is_query(&self) -> bool {
        ["select", "values", "table", "show", "explain"]
            .iter()
            .any(|verb| self.verb.eq_ignore_ascii_case(verb))
    }
}

/// Reads a guest's statement.
pub(super) fn parse(sql: &str) -> Result<Parsed<'_>, DbError> {
    if sql.len() > SQL_MAX {
        return Err(DbError::TooLarge(format!(
            "the statement is longer than {SQL_MAX} bytes"
        )));
    }
    if sql.as_bytes().contains(&0) {
        return Err(DbError::Invalid("the statement contains NUL".to_owned()));
    }
    let tokens: Vec<Token> = Tokens::new(sql).collect();
    if tokens
        .windows(2)
        .any(|pair| pair[0].text == ";" && pair[1].text != ";")
    {
        return Err(DbError::Invalid("there are several statements".to_owned()));
    }
    let mut words = tokens.iter().skip_while(|token| token.text == "(");
    let Some(first) = words.next().filter(|token| token.text != ";") else {
        return Err(DbError::Invalid("there is no statement".to_owned()));
    };
    let second = words.next();
    let changes = ["create", "alter", "drop"]
        .iter()
        .any(|word| first.is(word));
    if TRANSACTION
        .iter()
        .chain(&CONNECTION)
        .any(|word| first.is(word))
    {
        let verb = first.text.to_ascii_uppercase();
        return Err(DbError::Denied(format!("{verb} is not for guests")));
    }
    if let Some(what) = second.filter(|what| changes && SERVERS.iter().any(|word| what.is(word))) {
        let (verb, what) = (first.text, what.text);
        let statement = format!("{verb} {what}").to_ascii_uppercase();
        return Err(DbError::Denied(format!("{statement} is not for guests")));
    }
    refuse_own_schema(&tokens)?;
    Ok(Parsed {
        sql: number_placeholders(sql, &tokens)?,
        verb: first.text,
    })
}

/// Refuses a migration that would end the transaction in which it is applied, or change wrun's own tables.
pub(super) fn check_migration(sql: &str) -> Result<(), DbError> {
    let tokens: Vec<Token> = Tokens::new(sql).collect();
    let mut begins = true;
    // The body of a function that is written in SQL ends with END.
    let has_bodies = tokens
        .windows(2)
        .any(|pair| pair[0].is("begin") && pair[1].is("atomic"));
    for token in &tokens {
        let steers = TRANSACTION.iter().any(|word| token.is(word));
        if begins && steers && !(has_bodies && token.is("end")) {
            let verb = token.text.to_ascii_uppercase();
            return Err(DbError::Denied(format!(
                "{verb} is not for migrations: each is one transaction"
            )));
        }
        begins = token.text == ";";
    }
    refuse_own_schema(&tokens)
}

fn refuse_own_schema(tokens: &[Token<'_>]) -> Result<(), DbError> {
    let named = |pair: &[Token<'_>]| pair[1].text == "." && pair[0].names(OWN_SCHEMA);
    match tokens.windows(2).any(named) {
        true => Err(DbError::Denied(format!(
            "{OWN_SCHEMA} is a schema that wrun keeps for itself"
        ))),
        false => Ok(()),
    }
}

/// Writes `$1` for `?`, and `?` for `??`, which is how to write PostgreSQL's operator of that name.
fn number_placeholders<'a>(sql: &'a str, tokens: &[Token<'_>]) -> Result<Cow<'a, str>, DbError> {
    let mut out = String::new();
    let (mut copied, mut last) = (0, 0);
    for token in tokens {
        let written = match token.kind {
            Kind::Parameter => {
                let number = token.text[1..].parse().ok();
                let in_range = number.filter(|number| (1..=PARAMS_MAX).contains(number));
                last = last.max(in_range.ok_or_else(|| {
                    let text = token.text;
                    DbError::Invalid(format!(
                        "parameters are $1 to ${PARAMS_MAX}, or ?, not {text}"
                    ))
                })?);
                continue;
            }
            Kind::Question if token.text == "?" => {
                last += 1;
                format!("${last}")
            }
            Kind::Question => "?".to_owned(),
            _ => continue,
        };
        out.push_str(&sql[copied..token.start]);
        out.push_str(&written);
        copied = token.start + token.text.len();
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(sql));
    }
    out.push_str(&sql[copied..]);
    Ok(Cow::Owned(out))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A keyword, a name or a number.
    Word,
    /// A name in quotes.
    Quoted,
    /// A string, whatever its quotes.
    Text,
    Parameter,
    /// `?` or `??`.
    Question,
    Symbol,
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

    /// Tells whether it is this name, with or without quotes.
    fn names(&self, name: &str) -> bool {
        match self.kind {
            Kind::Quoted => self.text.trim_matches('"') == name,
            _ => self.is(name),
        }
    }
}

/// The tokens of a text, without spaces and comments.
struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a str) -> Self {
        Self { sql, at: 0 }
    }

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
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| byte != b'\n'),
                (Some(b'/'), Some(b'*')) => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Goes past a comment, in which there may be others.
    fn skip_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (Some(b'*'), Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes past what stands between two `quote`s; twice in a row it is part of that.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' && escapes {
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

    /// Goes past `$tag$…$tag$` if that is here.
    fn skip_dollars(&mut self) -> bool {
        let rest = &self.sql[self.at..];
        let tag = rest[1..].find('$').map(|end| &rest[..end + 2]);
        let Some(tag) = tag.filter(|tag| tag[1..tag.len() - 1].bytes().all(is_of_word)) else {
            return false;
        };
        let end = rest[tag.len()..].find(tag);
        self.at += end.map_or(rest.len(), |end| end + 2 * tag.len());
        true
    }

    fn kind(&mut self, first: u8) -> Kind {
        match first {
            b'\'' => {
                self.skip_quoted(b'\'', false);
                Kind::Text
            }
            b'"' => {
                self.skip_quoted(b'"', false);
                Kind::Quoted
            }
            b'e' | b'E' if self.peek(1) == Some(b'\'') => {
                self.at += 1;
                self.skip_quoted(b'\'', true);
                Kind::Text
            }
            b'$' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => {
                self.at += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
                Kind::Parameter
            }
            b'$' if self.skip_dollars() => Kind::Text,
            b'?' if self.peek(1) == Some(b'?') => {
                self.at += 2;
                Kind::Question
            }
            b'?' if !matches!(self.peek(1), Some(b'|' | b'&')) => {
                self.at += 1;
                Kind::Question
            }
            // Operators that contain a question mark.
            b'?' | b'@' if matches!(self.peek(1), Some(b'|' | b'&' | b'?')) => {
                self.at += 2;
                Kind::Symbol
            }
            byte if is_of_word(byte) => {
                self.skip_while(|byte| is_of_word(byte) || byte == b'$');
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
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_question_marks_are_numbered_and_everything_else_stays() {
        for (sql, expected) in [
            ("SELECT $1, $2", "SELECT $1, $2"),
            ("SELECT a=? AND b = ?", "SELECT a=$1 AND b = $2"),
            ("SELECT $3, ?", "SELECT $3, $4"),
            (
                "SELECT '?', \"?\", $$?$$, $a$ ? $b$ $a$, ? -- ?",
                "SELECT '?', \"?\", $$?$$, $a$ ? $b$ $a$, $1 -- ?",
            ),
            ("SELECT E'\\'?', '\\', ?", "SELECT E'\\'?', '\\', $1"),
            ("SELECT /* ? /* ? */ ? */ ?", "SELECT /* ? /* ? */ ? */ $1"),
            (
                "SELECT a ?| b, a ?& b, a @? b, a ?? ?",
                "SELECT a ?| b, a ?& b, a @? b, a ? $1",
            ),
            (
                "SELECT größe FROM t WHERE ä = ?",
                "SELECT größe FROM t WHERE ä = $1",
            ),
        ] {
            assert_eq!(parse(sql).unwrap().sql, expected, "{sql}");
        }
    }

    #[test]
    fn what_steers_transaction_connection_or_server_is_denied() {
        for sql in [
            "BEGIN",
            "commit;",
            "/* */ ROLLBACK",
            "SAVEPOINT a",
            "SET SESSION x = 1",
            "COPY t TO PROGRAM 'x'",
            "LISTEN a",
            "DO $$ $$",
            "ALTER SYSTEM SET x = 1",
            "DROP DATABASE x",
            "(COMMIT)",
            "CREATE ROLE x",
            "DELETE FROM wrun.processed",
            "SELECT * FROM \"wrun\" . migrations",
            "DELETE FROM WRUN.processed",
        ] {
            assert!(matches!(parse(sql), Err(DbError::Denied(_))), "{sql}");
        }
        for sql in [
            "SELECT wrun FROM t",
            "ALTER TABLE t ADD begin int",
            "UPDATE t SET a = 1",
            "SELEC 1",
            "(SELECT 1)",
        ] {
            assert!(parse(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn what_is_no_single_statement_is_invalid() {
        for sql in [
            "",
            " ; ",
            "-- nothing",
            "SELECT 1; SELECT 2",
            "SELECT $0",
            "SELECT $1001",
            "SELECT \0",
        ] {
            assert!(matches!(parse(sql), Err(DbError::Invalid(_))), "{sql:?}");
        }
        assert!(parse("SELECT ';';;").is_ok());
    }

    #[test]
    fn unfinished_quotes_and_comments_end_with_the_text() {
        for sql in [
            "SELECT '",
            "SELECT \"a",
            "SELECT $a$ b",
            "SELECT /* /* */",
            "SELECT E'\\",
            "SELECT E'\\ä",
            "SELECT $",
            "SELECT $ä",
        ] {
            assert!(parse(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn migration_may_define_functions_and_not_end_its_transaction() {
        let function = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN; RETURN 1; END; $$; SELECT 1;";
        assert_eq!(check_migration(function), Ok(()));
        for sql in [
            "CREATE TABLE t (a int); COMMIT;",
            "BEGIN; SELECT 1;",
            "DROP TABLE wrun.migrations",
        ] {
            assert!(
                matches!(check_migration(sql), Err(DbError::Denied(_))),
                "{sql}"
            );
        }
    }
}
