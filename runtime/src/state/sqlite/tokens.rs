//! Reads a statement's tokens, as far as the engine must understand them before SQLite does.
//!
//! `$1` becomes `?1`, because SQLite would bind it by name and not by number. A `FOR UPDATE` at the end is cut off, because
//! SQLite has no row locks and needs none. Names that begin with `_wrun_` are found where the authorizer is not asked.
//! Whether the statement makes sense is for SQLite to say.

use crate::state::db::{DbError, PARAMS_MAX, SQL_MAX};

/// What the engine's own tables begin with.
pub(super) const OWN_PREFIX: &str = "_wrun_";

/// A statement as SQLite gets it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Parsed {
    pub(super) sql: String,
    /// It ended with `FOR UPDATE` or the like.
    pub(super) locks: bool,
}

/// Reads a guest's statement.
pub(super) fn parse(sql: &str) -> Result<Parsed, DbError> {
    if sql.len() > SQL_MAX {
        return Err(DbError::TooLarge(format!(
            "the statement is longer than {SQL_MAX} bytes"
        )));
    }
    if sql.as_bytes().contains(&0) {
        return Err(DbError::Invalid("the statement contains NUL".to_owned()));
    }
    let tokens: Vec<Token> = Tokens::new(sql).collect();
    let Some(first) = tokens.first() else {
        return Err(DbError::Invalid("there is no statement".to_owned()));
    };
    // The body of a trigger has statements of its own.
    let is_trigger = first.is("create") && tokens.iter().take(3).any(|token| token.is("trigger"));
    if !is_trigger
        && tokens
            .windows(2)
            .any(|pair| pair[0].text == ";" && pair[1].text != ";")
    {
        return Err(DbError::Invalid("there are several statements".to_owned()));
    }
    // The authorizer would be asked only once it runs.
    if first.is("vacuum") {
        return Err(DbError::Denied("VACUUM is not for guests".to_owned()));
    }
    if first.is("create") || first.is("alter") {
        refuse_own_names(&tokens)?;
    }
    let end = if first.is("select") || first.is("with") || first.is("values") {
        before_locking_clauses(&tokens)
    } else {
        None
    };
    let locks = end.is_some();
    let kept = &sql[..end.unwrap_or(sql.len())];
    Ok(Parsed {
        sql: number_placeholders(kept, &tokens)?,
        locks,
    })
}

/// Tells whether a statement looks as if it only reads. SQLite has the last word.
pub(super) fn looks_like_read(sql: &str) -> bool {
    Tokens::new(sql).next().is_some_and(|first| {
        ["select", "with", "values", "explain", "pragma"]
            .iter()
            .any(|word| first.is(word))
    })
}

/// Refuses a text, of several statements perhaps, that names a table of the engine's own.
pub(super) fn check_names(sql: &str) -> Result<(), DbError> {
    refuse_own_names(&Tokens::new(sql).collect::<Vec<_>>())
}

fn refuse_own_names(tokens: &[Token<'_>]) -> Result<(), DbError> {
    // SQLite takes a string for a name where only a name can be.
    let named = |token: &&Token<'_>| {
        matches!(token.kind, Kind::Word | Kind::Quoted) && is_own_name(token.name())
    };
    match tokens.iter().find(named) {
        None => Ok(()),
        Some(token) => Err(DbError::Denied(format!(
            "{} is a name that wrun keeps for itself",
            token.text
        ))),
    }
}

/// Tells whether a name is one of the engine's own.
pub(super) fn is_own_name(name: &str) -> bool {
    name.get(..OWN_PREFIX.len())
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(OWN_PREFIX))
}

/// Returns where the text ends without its locking clauses, if it has any.
fn before_locking_clauses(tokens: &[Token<'_>]) -> Option<usize> {
    let mut rest = tokens;
    while let [head @ .., last] = rest
        && last.text == ";"
    {
        rest = head;
    }
    let mut end = None;
    while let Some(at) = rest.iter().rposition(|token| token.is("for"))
        && is_locking_clause(&rest[at + 1..])
    {
        end = Some(rest[at].start);
        rest = &rest[..at];
    }
    end
}

/// Tells whether these tokens, after `FOR`, are the rest of a locking clause and nothing else.
fn is_locking_clause(tokens: &[Token<'_>]) -> bool {
    let strengths: [&[&str]; 4] = [
        &["update"],
        &["share"],
        &["no", "key", "update"],
        &["key", "share"],
    ];
    let Some(mut rest) = strengths.iter().find_map(|words| after(tokens, words)) else {
        return false;
    };
    if let Some(tables) = after(rest, &["of"]) {
        let names = tables
            .iter()
            .take_while(|token| !token.is("nowait") && !token.is("skip"))
            .count();
        let named = tables[..names].iter().all(|token| {
            matches!(token.kind, Kind::Word | Kind::Quoted) || [",", "."].contains(&token.text)
        });
        if names == 0 || !named {
            return false;
        }
        rest = &tables[names..];
    }
    rest.is_empty()
        || after(rest, &["nowait"]).is_some_and(<[_]>::is_empty)
        || after(rest, &["skip", "locked"]).is_some_and(<[_]>::is_empty)
}

/// Returns what follows these words, if the tokens begin with them.
fn after<'t, 's>(tokens: &'t [Token<'s>], words: &[&str]) -> Option<&'t [Token<'s>]> {
    let begins =
        tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word));
    begins.then(|| &tokens[words.len()..])
}

/// Writes `?1` for `$1`. Parameters with names are refused: their values come in a list.
fn number_placeholders(sql: &str, tokens: &[Token<'_>]) -> Result<String, DbError> {
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for token in tokens.iter().filter(|token| token.kind == Kind::Parameter) {
        if token.start >= sql.len() {
            break;
        }
        let number = &token.text[1..];
        let plain = number.is_empty() && token.text == "?";
        let in_range = number.bytes().all(|byte| byte.is_ascii_digit())
            && number
                .parse()
                .is_ok_and(|number: usize| (1..=PARAMS_MAX).contains(&number));
        if !plain && !in_range {
            return Err(DbError::Invalid(format!(
                "parameters are $1 to ${PARAMS_MAX}, or ?, not {}",
                token.text
            )));
        }
        out.push_str(&sql[copied..token.start]);
        out.push('?');
        copied = token.start + 1;
    }
    out.push_str(&sql[copied..]);
    Ok(out)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// A keyword, a name or a number.
    Word,
    /// A name in quotes, or a string.
    Quoted,
    Parameter,
    Symbol,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl<'a> Token<'a> {
    /// Tells whether it is this keyword, given in lower case.
    fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Returns the name without its quotes.
    fn name(&self) -> &'a str {
        match self.kind {
            Kind::Quoted => self.text.get(1..).unwrap_or_default(),
            _ => self.text,
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

    /// Goes past the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &str) {
        self.at = self.sql.as_bytes()[self.at..]
            .windows(end.len())
            .position(|window| window == end.as_bytes())
            .map_or(self.sql.len(), |found| self.at + found + end.len());
    }

    fn skip_blanks(&mut self) {
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_past("\n"),
                (Some(b'/'), Some(b'*')) => {
                    self.at += 2;
                    self.skip_past("*/");
                }
                _ => return,
            }
        }
    }

    /// Goes past a text in quotes, in which the quote itself is written twice.
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == quote {
                if quote == b']' || self.peek(0) != Some(quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let start = self.at;
        let kind = match self.peek(0)? {
            quote @ (b'\'' | b'"' | b'`') => {
                self.skip_quoted(quote);
                Kind::Quoted
            }
            b'[' => {
                self.skip_quoted(b']');
                Kind::Quoted
            }
            b'?' | b'$' | b':' | b'@' => {
                self.at += 1;
                self.skip_while(is_word);
                Kind::Parameter
            }
            byte if is_word(byte) => {
                self.skip_while(|byte| is_word(byte) || byte == b'$');
                Kind::Word
            }
            _ => {
                self.at += 1;
                Kind::Symbol
            }
        };
        Some(Token {
            kind,
            text: &self.sql[start..self.at],
            start,
        })
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> String {
        parse(text).unwrap().sql
    }

    #[test]
    fn placeholders_are_numbered_outside_of_quotes_and_comments() {
        for (given, expected) in [
            ("SELECT $1", "SELECT ?1"),
            ("SELECT $2, $1", "SELECT ?2, ?1"),
            ("SELECT ?, ?2", "SELECT ?, ?2"),
            ("SELECT '$1', $1", "SELECT '$1', ?1"),
            ("SELECT 'it''s $1', $1", "SELECT 'it''s $1', ?1"),
            ("SELECT \"a $1\" FROM t", "SELECT \"a $1\" FROM t"),
            ("SELECT \"a\"\"$1\", $1", "SELECT \"a\"\"$1\", ?1"),
            ("SELECT `$1`, [$1], $1", "SELECT `$1`, [$1], ?1"),
            ("SELECT $1 -- $2\n, $3", "SELECT ?1 -- $2\n, ?3"),
            ("SELECT /* $1 ' */ $1", "SELECT /* $1 ' */ ?1"),
            ("SELECT a$1 FROM t", "SELECT a$1 FROM t"),
            ("SELECT $1+$2", "SELECT ?1+?2"),
            ("SELECT 'open $1", "SELECT 'open $1"),
            ("SELECT /* open $1", "SELECT /* open $1"),
            ("SELECT 'ä$1', $1", "SELECT 'ä$1', ?1"),
            ("SELECT d->>'$.a', $1", "SELECT d->>'$.a', ?1"),
            ("SELECT x'00', $1000", "SELECT x'00', ?1000"),
        ] {
            assert_eq!(sql(given), expected, "{given}");
        }
    }

    #[test]
    fn parameters_with_names_or_bad_numbers_are_invalid() {
        for text in [
            "SELECT $name",
            "SELECT :name",
            "SELECT @name",
            "SELECT $0",
            "SELECT ?0",
            "SELECT $1001",
            "SELECT $1a",
            "SELECT $",
            "SELECT $99999999999999999999",
        ] {
            assert!(matches!(parse(text), Err(DbError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn locking_clauses_at_the_end_are_cut_off() {
        for (given, expected) in [
            ("SELECT 1 FOR UPDATE", "SELECT 1 "),
            (
                "select a from t where b = $1 for update;",
                "select a from t where b = ?1 ",
            ),
            ("SELECT 1 FOR SHARE", "SELECT 1 "),
            ("SELECT 1 FOR UPDATE NOWAIT", "SELECT 1 "),
            ("SELECT 1 FOR UPDATE SKIP LOCKED ;;", "SELECT 1 "),
            ("SELECT 1 FOR UPDATE OF t, s.u SKIP LOCKED", "SELECT 1 "),
            ("SELECT 1 FOR NO KEY UPDATE", "SELECT 1 "),
            ("SELECT 1 FOR KEY SHARE OF \"t\"", "SELECT 1 "),
            ("SELECT 1 FOR UPDATE OF a FOR SHARE OF b", "SELECT 1 "),
            (
                "WITH x AS (SELECT 1) SELECT * FROM x FOR UPDATE -- yes",
                "WITH x AS (SELECT 1) SELECT * FROM x ",
            ),
        ] {
            let parsed = parse(given).unwrap();
            assert_eq!(parsed.sql, expected, "{given}");
            assert!(parsed.locks, "{given}");
        }
    }

    #[test]
    fn what_only_looks_like_a_locking_clause_stays() {
        for text in [
            "SELECT 1",
            "SELECT 'x FOR UPDATE'",
            "SELECT 1 -- FOR UPDATE",
            "SELECT 1 FOR",
            "SELECT 1 FOR UPDATE OF",
            "SELECT 1 FOR UPDATE NOWAIT NOWAIT",
            "SELECT \"for\" update",
            "SELECT 1 FOR UPDATE LIMIT 1",
            "DELETE FROM t WHERE a FOR UPDATE",
            "CREATE TRIGGER x AFTER UPDATE ON t FOR EACH ROW BEGIN SELECT 1; END",
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed.sql, text);
            assert!(!parsed.locks, "{text}");
        }
    }

    #[test]
    fn definitions_that_name_the_engines_tables_are_denied() {
        for text in [
            "CREATE TABLE _wrun_x (a)",
            "create table \"_WRUN_x\" (a)",
            "CREATE TABLE t (a REFERENCES _wrun_message(queue))",
            "CREATE TABLE t (a REFERENCES '_wrun_message')",
            "CREATE VIEW v AS SELECT * FROM [_wrun_meta]",
            "ALTER TABLE t RENAME TO `_wrun_t`",
            "/* */ CREATE INDEX _wrun_i ON t (a)",
        ] {
            assert!(matches!(parse(text), Err(DbError::Denied(_))), "{text}");
        }
        for text in [
            "INSERT INTO t VALUES ('_wrun_x')",
            "CREATE TABLE wrun_x (a)",
            "CREATE TABLE a_wrun_x (a)",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn vacuum_is_denied() {
        for text in ["VACUUM", "vacuum into 'x'"] {
            assert!(matches!(parse(text), Err(DbError::Denied(_))), "{text}");
        }
    }

    #[test]
    fn nothing_too_much_and_several_are_refused() {
        for text in [
            "",
            "  ",
            "-- nothing",
            "/* nothing",
            "SELECT 1; SELEC",
            "CREATE TABLE t (a); DROP TABLE t",
        ] {
            assert!(matches!(parse(text), Err(DbError::Invalid(_))), "{text}");
        }
        assert!(matches!(parse("SELECT '\0'"), Err(DbError::Invalid(_))));
        let long = format!("SELECT '{}'", "x".repeat(SQL_MAX));
        assert!(matches!(parse(&long), Err(DbError::TooLarge(_))));
    }

    #[test]
    fn reads_are_told_by_their_first_word() {
        assert!(looks_like_read(" -- x\n select 1"));
        assert!(looks_like_read("WITH x AS (SELECT 1) SELECT 1"));
        assert!(!looks_like_read("UPDATE t SET a = 1"));
        assert!(!looks_like_read(""));
    }
}
