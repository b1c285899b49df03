//! wrun's own tables, and migrations: each file once, whoever else starts at the same time.
//!
//! On a connection of its own, which holds a lock of the server's meanwhile. A file is one transaction only as far as the
//! server lets it be: CREATE and ALTER commit.

use super::Mysql;
use super::connection::Connection;
use super::kinds::text;
use super::outbox::LANES;
use super::tokens;
use crate::failure::Failure;
use crate::state::db::DbError;
use crate::state::migrations::hash_of;
use crate::state::remote::Fault;
use crate::state::remote::ready::{Recorded, apply_new, make_ready};
use std::path::Path;

/// Keeps others out, in this database. Returns 1, or 0 after a minute.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('wrun:', LEFT(SHA2(DATABASE(), 256), 40)), 60)";

/// How long a migration, and the wait for those who use a table, may take.
const LIMITS: &str = "SET lock_wait_timeout=60 /*M! , max_statement_time=540 */ /*!50708 , max_execution_time=540000 */";

/// The version of the tables; a database with a higher one was made for a newer wrun.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _wrun_meta (
        name VARBINARY(64) PRIMARY KEY, value BIGINT NOT NULL) ENGINE=InnoDB;
    CREATE TABLE IF NOT EXISTS _wrun_migrations (
        name VARBINARY(255) PRIMARY KEY, sha256 VARBINARY(64) NOT NULL,
        at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB;
    CREATE TABLE IF NOT EXISTS _wrun_processed (
        id VARBINARY(512) PRIMARY KEY, at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        KEY by_time (at)) ENGINE=InnoDB;
    CREATE TABLE IF NOT EXISTS _wrun_fences (
        name VARBINARY(1024) PRIMARY KEY, token BIGINT UNSIGNED NOT NULL,
        at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), KEY by_time (at)) ENGINE=InnoDB;
    CREATE TABLE IF NOT EXISTS _wrun_outbox_lanes (id SMALLINT UNSIGNED PRIMARY KEY) ENGINE=InnoDB";

/// Comes last, so that the lanes are there if this is.
const OUTBOX: &str = "
    CREATE TABLE IF NOT EXISTS _wrun_outbox (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, queue VARBINARY(512) NOT NULL, name VARBINARY(512),
        content_type VARBINARY(512), headers MEDIUMBLOB, body LONGBLOB NOT NULL, dedup_id VARBINARY(512) NOT NULL,
        delay_ms BIGINT UNSIGNED NOT NULL, size BIGINT UNSIGNED NOT NULL,
        at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), KEY by_queue (queue, id)) ENGINE=InnoDB;
    INSERT IGNORE INTO _wrun_meta VALUES ('format', 1)";

/// How many tables there are.
const TABLES_KNOWN: i64 = 6;

impl Mysql {
    /// Makes wrun's tables, if they are missing, and applies what was not applied yet; returns the names of these files.
    pub async fn prepare(&self, folder: Option<&Path>) -> Result<Vec<String>, Failure> {
        let rights = "the URL's user has to be allowed to make tables: GRANT ALL ON that database";
        let (connection, recorded) = make_ready(&self.pool, "database", rights, set_up).await?;
        let Some(folder) = folder else {
            return Ok(Vec::new());
        };
        let hint = "what is before the statement that failed may have taken effect, for CREATE and ALTER commit: undo \
            that, or write IF NOT EXISTS, correct the file and start again";
        let apply = async |name: &str, sql: &str| apply(&connection, name, sql).await;
        apply_new(folder, &recorded, hint, apply).await
    }
}

/// Makes the tables; returns the names of the files that were applied, and their hashes.
async fn set_up(on: &Connection) -> Result<Recorded, DbError> {
    let told = |fault: Fault| fault.told;
    on.execute(LIMITS).await.map_err(told)?;
    if one(on, LOCK).await? != Some(1) {
        let what = "another server applies its migrations, and has for a minute";
        return Err(DbError::Timeout(what.to_owned()));
    }
    let known = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
        AND TABLE_NAME IN ('_wrun_meta', '_wrun_migrations', '_wrun_processed', '_wrun_fences', '_wrun_outbox', '_wrun_outbox_lanes')";
    if one(on, known).await? != Some(TABLES_KNOWN) {
        make_tables(on).await.map_err(told)?;
    }
    let format = one(on, "SELECT value FROM _wrun_meta WHERE name = 'format'").await?;
    match format {
        Some(format) if format > FORMAT => {
            return Err(DbError::Other(format!(
                "its tables _wrun_… have format {format} and were made by a newer wrun, this one knows {FORMAT}"
            )));
        }
        Some(_) => {}
        None => make_tables(on).await.map_err(told)?,
    }
    let rows = on.rows::<(String, String)>("SELECT name, sha256 FROM _wrun_migrations");
    let rows = rows.await.map_err(|error| Fault::from(error).told)?;
    Ok(rows.into_iter().collect())
}

async fn make_tables(on: &Connection) -> Result<(), Fault> {
    on.execute(TABLES).await?;
    let lanes: Vec<String> = (0..LANES).map(|lane| format!("({lane})")).collect();
    let lanes = lanes.join(", ");
    on.execute(&format!(
        "INSERT IGNORE INTO _wrun_outbox_lanes VALUES {lanes}"
    ))
    .await?;
    on.execute(OUTBOX).await
}

async fn one(on: &Connection, sql: &str) -> Result<Option<i64>, DbError> {
    let rows = on.rows::<Option<i64>>(sql).await;
    let rows = rows.map_err(|error| Fault::from(error).told)?;
    Ok(rows.into_iter().next().flatten())
}

async fn apply(on: &Connection, name: &str, sql: &str) -> Result<(), DbError> {
    tokens::check_migration(sql)?;
    let record = format!(
        "INSERT INTO _wrun_migrations (name, sha256) VALUES ({}, {}); COMMIT",
        text(name),
        text(&hash_of(sql))
    );
    let applied = async {
        on.execute("START TRANSACTION").await?;
        on.execute(sql).await?;
        on.execute(&record).await
    };
    // If it failed, the end of the connection undoes what has not been committed.
    applied.await.map_err(|fault| fault.told)
}
