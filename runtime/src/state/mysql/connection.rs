//! One connection: has each statement prepared once, runs it, and gathers its rows within their limit.
//!
//! A statement that fails is undone by the server, without its transaction. A connection on which something was stopped is
//! not used again: nobody knows which answer would be the next on it.

use super::cursor::{Cursor, Query};
use super::error::{is_taken, of_commit, whole};
use super::kinds::Kinds;
use super::tokens::{self, Parsed};
use super::{Address, begin, convert, fences};
use crate::state::db::{
    Column, DbError, Done, Fence, Isolation, PARAMS_MAX, RESULT_MAX, Row, Rows, Statement, Step,
    TxOptions, Want,
};
use crate::state::remote::{self, Fault, Opening, Then, VALUE_COST, too_large};
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Params};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long the server may take to stop what it was asked to stop.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Notes that work is done.
const NOTE: &str = "INSERT INTO _wrun_processed (id) VALUES (?)";

/// Tells whether the transaction is still the one that was begun, by the savepoint that it has.
const STILL_THERE: &str = "RELEASE SAVEPOINT _wrun; SAVEPOINT _wrun";

/// Forgets work that was done long ago, and tokens that nobody can hold a lower one than: no lease is longer than a day.
/// Not serializable, so that it meets nobody.
const TIDY: [&str; 2] = [
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     DELETE FROM _wrun_processed WHERE at < now() - INTERVAL 30 DAY",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     DELETE FROM _wrun_fences WHERE at < now() - INTERVAL 7 DAY",
];

/// A connection.
pub(in crate::state) struct Connection {
    /// A cursor has it while it reads.
    conn: Arc<Mutex<Conn>>,
    killer: Killer,
    is_mariadb: bool,
    /// Nothing can be done with it any more.
    is_broken: Cell<bool>,
    leaves_traces: Cell<bool>,
    kinds: Kinds,
    cursors: RefCell<HashMap<u64, Cursor>>,
}

/// Stops, on a connection of its own, what the server does for another one.
#[derive(Clone)]
pub(super) struct Killer {
    opts: Opts,
    id: u32,
}

impl Killer {
    /// Stops its statement, or ends all of it.
    pub(super) async fn kill(&self, what: &str) {
        let killed = async {
            let mut conn = Conn::new(self.opts.clone()).await?;
            conn.query_drop(format!("KILL {what} {}", self.id)).await?;
            conn.disconnect().await
        };
        // If the server does not come to know, the statement ends by its own time limit.
        let _ = timeout(CANCEL_MAX, killed).await;
    }
}

impl Connection {
    /// Connects; the error is why that cannot be.
    pub(super) async fn open(address: &Address) -> Result<Self, String> {
        let connected = async {
            let mut conn = Conn::new(address.opts.clone()).await?;
            let version = conn.query_first::<String, _>("SELECT VERSION()").await?;
            Ok((conn, version.unwrap_or_default()))
        };
        let silent = |_| "it does not answer".to_owned();
        let connected = timeout(CONNECT_MAX, connected).await.map_err(silent)?;
        let (conn, version) = connected.map_err(|error: mysql_async::Error| whole(&error))?;
        let is_mariadb = version.contains("MariaDB");
        address.note_mariadb(is_mariadb);
        Ok(Self {
            killer: Killer {
                opts: address.opts.clone(),
                id: conn.id(),
            },
            conn: Arc::new(Mutex::new(conn)),
            is_mariadb,
            is_broken: Cell::new(false),
            leaves_traces: Cell::new(false),
            kinds: Kinds::default(),
            cursors: RefCell::default(),
        })
    }

    /// Returns what commits. MariaDB is not to stop that in the middle.
    fn commit_statement(&self) -> &'static str {
        match self.is_mariadb {
            true => "SET max_statement_time=0; COMMIT",
            false => "COMMIT",
        }
    }

    /// Returns what ends the transaction. On MySQL the connection may then be idle again for as long as it likes.
    fn rollback_statement(&self) -> &'static str {
        match self.is_mariadb {
            true => "ROLLBACK",
            false => "ROLLBACK; SET wait_timeout=28800",
        }
    }

    /// Runs statements of wrun's own.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), Fault> {
        let done = self.conn.lock().await.query_drop(sql).await;
        self.seen(done.map_err(Fault::from))
    }

    /// Runs one of wrun's own that returns rows.
    pub(super) async fn rows<T>(&self, sql: &str) -> Result<Vec<T>, mysql_async::Error>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        self.conn.lock().await.query(sql).await
    }

    /// Notes whether the connection is of any more use.
    pub(super) fn seen<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        if matches!(&result, Err(fault) if fault.is_broken()) {
            self.is_broken.set(true);
        }
        result
    }

    /// Has cursors that have the connection read on to their ends, so that something else can be done.
    async fn settle(&self) {
        let open: Vec<Cursor> = self.cursors.borrow().values().cloned().collect();
        for cursor in open {
            cursor.settle().await;
        }
    }

    /// Has a statement prepared.
    async fn prepare(
        &self,
        conn: &mut Conn,
        parsed: &Parsed,
        statement: &Statement,
    ) -> Result<Query, Fault> {
        let (sql, values) = assemble(parsed, statement)?;
        let prepared = conn.prep(sql).await?;
        let columns = prepared.columns();
        let special = match self.is_mariadb {
            true => self.kinds.of(&columns, conn).await?,
            false => vec![None; columns.len()],
        };
        if parsed.leaves_traces {
            self.leaves_traces.set(true);
        }
        let params = match values.is_empty() {
            true => Params::Empty,
            false => Params::Positional(values),
        };
        Ok(Query {
            prepared,
            params,
            special,
        })
    }

    async fn perform(
        &self,
        parsed: &Parsed,
        statement: &Statement,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, Fault> {
        self.settle().await;
        let mut conn = self.conn.lock().await;
        let query = self.prepare(&mut conn, parsed, statement).await?;
        let mut result = conn.exec_iter(&query.prepared, query.params).await?;
        let described = result.columns().unwrap_or_else(|| Arc::from([]));
        let wants_rows = want == Want::Rows || want == Want::Either && !described.is_empty();
        let (mut rows, mut count) = (Vec::new(), 0);
        while let Some(row) = result.next().await? {
            count += 1;
            if !wants_rows {
                continue;
            }
            let (row, size) = super::cursor::read(row, &query.special);
            let size = size + VALUE_COST * row.len();
            let fits = room.checked_sub(size);
            let Some(rest) = fits.filter(|_| size <= RESULT_MAX) else {
                self.killer.kill("QUERY").await;
                // The answer has to be read to its end, which is near.
                while let Ok(Some(_)) = result.next().await {}
                drop(result);
                absorb(&mut conn).await?;
                return Err(too_large(size).into());
            };
            *room = rest;
            rows.push(row);
        }
        result.drop_result().await?;
        if wants_rows {
            let columns = super::cursor::columns(&described, &query.special);
            return Ok(Step::Rows(Rows { columns, rows }));
        }
        let affected = match (described.is_empty(), parsed.is_query) {
            (true, _) => conn.affected_rows(),
            (false, true) => 0,
            // What RETURNING returns.
            (false, false) => count,
        };
        let id = conn.last_insert_id().filter(|id| *id > 0);
        Ok(Step::Done(Done {
            affected,
            last_id: id.and_then(|id| i64::try_from(id).ok()),
        }))
    }

    /// Refuses to go on if the server says that there is no transaction any more.
    async fn check_transaction(&self) -> Result<(), Fault> {
        let conn = self.conn.lock().await;
        let flags = conn.last_ok_packet().map(|ok| ok.status_flags());
        match flags.is_none_or(|flags| flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS)) {
            true => Ok(()),
            false => Err(Fault {
                told: DbError::Denied(
                    "the statement has committed the transaction, which has ended".to_owned(),
                ),
                then: Then::TransactionIsOver,
            }),
        }
    }

    async fn run_each(
        &self,
        statements: &[(Parsed, &Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let mut room = RESULT_MAX;
        let mut steps = Vec::with_capacity(statements.len());
        remote::Connection::begin_within(self, options, fences).await?;
        for (parsed, statement, want) in statements {
            steps.push(self.perform(parsed, statement, *want, &mut room).await?);
            match parsed.commits {
                Some(_) => self.kinds.forget(),
                None => self.check_transaction().await?,
            }
        }
        Ok(steps)
    }

    async fn run_read(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let parsed = statements.iter().map(|(statement, want)| {
            let parsed = read(statement)?;
            Ok((parsed, statement, *want))
        });
        let parsed = parsed.collect::<Result<Vec<_>, DbError>>()?;
        let is_alone = parsed.len() == 1 && fences.is_empty();
        if let Some(verb) = parsed
            .iter()
            .find_map(|(parsed, ..)| parsed.commits.as_ref())
            && !is_alone
        {
            return Err(committing(verb).into());
        }
        // Who only reads sees a snapshot, and waits for nobody. If there is more to a query than one can see, the server says
        // so: a function may write.
        let is_plain = fences.is_empty()
            && options.isolation == Isolation::Serializable
            && parsed.iter().all(|(parsed, ..)| parsed.is_plain);
        if is_plain && !options.read_only {
            let reading = TxOptions {
                read_only: true,
                ..options
            };
            match self.run_each(&parsed, reading, fences).await {
                Err(fault) if writes(&fault) => self.execute(self.rollback_statement()).await?,
                ran => return ran,
            }
        }
        self.run_each(&parsed, options, fences).await
    }
}

impl remote::Connection for Connection {
    const KNOWS_ITS_END: bool = false;

    fn is_closed(&self) -> bool {
        self.is_broken.get()
    }

    async fn ping(&self) -> bool {
        let pinged = self.conn.lock().await.ping().await;
        self.seen(pinged.map_err(Fault::from)).is_ok()
    }

    async fn clean(&self) -> bool {
        self.cursors.take();
        if self.execute(self.rollback_statement()).await.is_err() {
            return false;
        }
        match self.leaves_traces.take() {
            true => matches!(self.conn.lock().await.reset().await, Ok(true)),
            false => true,
        }
    }

    async fn cancel(&self) {
        self.is_broken.set(true);
        self.cursors.take();
        self.killer.kill("CONNECTION").await;
    }

    /// The client does.
    fn forget(&self) {
        self.kinds.forget();
    }

    async fn begin_within(&self, options: TxOptions, fences: &[Fence]) -> Result<(), Fault> {
        let begun = match fences.is_empty() || options.read_only {
            true => self.execute(&begin(options)).await,
            false => fences::begin_within(self, &begin(options), fences).await,
        };
        self.seen(begun)
    }

    async fn guarded<T>(
        &self,
        opening: Opening,
        work: impl AsyncFn(&Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Opening::Begin(options) = opening
            && let Err(mut fault) = self.execute(&begin(options)).await
        {
            if fault.then == Then::GoesOn {
                fault.then = Then::TransactionIsOver;
            }
            return Err(fault);
        }
        let mut fault = match self.seen(work(self).await) {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        let is_servers = matches!(fault.told, DbError::Engine { .. });
        if !is_servers || fault.then != Then::GoesOn {
            return Err(fault);
        }
        self.settle().await;
        if let Err(gone) = self.execute(STILL_THERE).await {
            fault.then = match gone.is_broken() {
                true => Then::ConnectionIsBroken,
                false => Then::TransactionIsOver,
            };
        }
        Err(fault)
    }

    async fn run_all(
        &self,
        statements: &[(Statement, Want)],
        options: TxOptions,
        fences: &[Fence],
    ) -> Result<Vec<Step>, Fault> {
        let ran = self.run_read(statements, options, fences).await;
        self.seen(ran)
    }

    async fn run(
        &self,
        statement: &Statement,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, Fault> {
        let parsed = read(statement)?;
        if let Some(verb) = &parsed.commits {
            return Err(committing(verb).into());
        }
        let step = self.perform(&parsed, statement, want, room).await?;
        self.check_transaction().await?;
        Ok(step)
    }

    async fn note(&self, id: &str) -> Result<bool, Fault> {
        self.settle().await;
        let noted = self
            .conn
            .lock()
            .await
            .exec_drop(NOTE, (id.as_bytes(),))
            .await;
        match noted {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn declare(&self, cursor: u64, statement: &Statement) -> Result<Vec<Column>, Fault> {
        let parsed = read(statement)?;
        if !parsed.is_query {
            return Err(DbError::Invalid("a cursor is for a query".to_owned()).into());
        }
        self.settle().await;
        let mut conn = self.conn.clone().lock_owned().await;
        let query = self.prepare(&mut conn, &parsed, statement).await?;
        let (opened, columns) = Cursor::open(conn, query, self.killer.clone()).await?;
        self.cursors.borrow_mut().insert(cursor, opened);
        Ok(columns)
    }

    async fn fetch(&self, cursor: u64, rows: usize) -> Result<Vec<Row>, Fault> {
        let open = self.cursors.borrow().get(&cursor).cloned();
        match open {
            Some(open) => open.fetch(rows).await,
            None => Err(DbError::Closed.into()),
        }
    }

    async fn close_cursor(&self, cursor: u64) -> Result<(), Fault> {
        self.cursors.borrow_mut().remove(&cursor);
        Ok(())
    }

    async fn commit(&self) -> Result<(), DbError> {
        self.cursors.take();
        let commit = self.commit_statement();
        let committed = self.conn.lock().await.query_drop(commit).await;
        committed.map_err(|error| of_commit(&error))
    }

    async fn rollback(&self) {
        self.cursors.take();
        // If it fails, the connection is not lent again.
        let _ = self.execute(self.rollback_statement()).await;
    }

    async fn tidy(&self) {
        for sql in TIDY {
            // If it fails there is a next time.
            let _ = self.execute(sql).await;
        }
    }
}

/// Waits until what was to stop a statement that had ended has stopped something else instead.
pub(super) async fn absorb(conn: &mut Conn) -> Result<(), Fault> {
    if conn.query_drop("DO 0").await.is_ok() {
        return Ok(());
    }
    Ok(conn.query_drop("DO 0").await?)
}

fn read(statement: &Statement) -> Result<Parsed, DbError> {
    let count = statement.params.len();
    if count > PARAMS_MAX {
        return Err(DbError::TooLarge(format!(
            "there are {count} parameters, at most {PARAMS_MAX} are allowed"
        )));
    }
    tokens::parse(&statement.sql, count)
}

/// Returns a statement with its parameters in their places, and these.
fn assemble(
    parsed: &Parsed,
    statement: &Statement,
) -> Result<(String, Vec<mysql_async::Value>), DbError> {
    let mut sql = String::with_capacity(statement.sql.len());
    let mut values = Vec::with_capacity(parsed.places.len());
    for (at, piece) in parsed.pieces.iter().enumerate() {
        sql.push_str(piece);
        if let Some(value) = parsed
            .places
            .get(at)
            .and_then(|at| statement.params.get(*at))
        {
            let (raw, place) = convert::parameter(value)?;
            values.push(raw);
            sql.push_str(&place);
        }
    }
    Ok((sql, values))
}

fn committing(verb: &str) -> DbError {
    DbError::Denied(format!(
        "{verb} commits what is before it: it is for a migration, or for a call of its own outside of transactions"
    ))
}

fn writes(fault: &Fault) -> bool {
    matches!(&fault.told, DbError::Engine { code, .. } if code == "25006")
}
