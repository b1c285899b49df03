//! What is done with locks in PostgreSQL, as SQL.
//!
//! A row is a key's, and stays after a release, so that the next token is higher; if it is tidied away, the clock has come
//! further than any token that was ever in it. A lock is held while its row has an owner and its lease goes on.

use super::line::CHANNEL;
use tokio_postgres::{Client, Error};

/// Waits until nobody else takes or prolongs locks of these keys. $1: the space, $2: the keys.
const ALONE: &str = "\
    SELECT pg_advisory_xact_lock(hash) FROM (\
        SELECT DISTINCT hashtextextended($1::text || '/' || key, 2003989870) AS hash \
        FROM unnest($2::text[]) AS it (key) ORDER BY hash) AS sorted";

/// Takes locks unless one of them is taken. $1: the space, $2: the keys, $3: the owner, $4: the lease in ms, $5: this server,
/// $6: whether it waits, for a single key, $7: for how many ms it is next then. Returns the token, or how long the longest
/// lease goes on.
///
/// Who finds a single lock taken notes itself as next for a moment, so that the one who had it before, whose next request is
/// here first, does not have it always.
const TAKE: &str = "\
    WITH found AS MATERIALIZED (\
        SELECT it.key, token, CASE WHEN owner IS NOT NULL AND until > clock_timestamp() THEN until END AS until, \
            $6::boolean AND next_server <> $5::text AND next_until > clock_timestamp() AS others_turn \
        FROM unnest($2::text[]) AS it (key) \
        LEFT JOIN wrun.locks ON locks.space = $1::text AND locks.key = it.key), \
    verdict AS MATERIALIZED (\
        SELECT max(until) AS until, max(until) IS NULL AND NOT coalesce(bool_or(others_turn), false) AS is_free, \
            greatest(coalesce(max(token), 0) + 1, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS token \
        FROM found), \
    taken AS (\
        INSERT INTO wrun.locks AS it (space, key, owner, token, until) \
        SELECT $1::text, found.key, $3::text, verdict.token, clock_timestamp() + $4::float8 * interval '1 millisecond' \
        FROM found, verdict WHERE is_free \
        ON CONFLICT (space, key) DO UPDATE SET owner = excluded.owner, token = excluded.token, until = excluded.until, \
            next_server = NULL, next_until = NULL), \
    marked AS (\
        UPDATE wrun.locks AS it SET next_server = $5::text, next_until = clock_timestamp() + $7::float8 * interval '1 millisecond' \
        FROM verdict WHERE $6::boolean AND verdict.until IS NOT NULL AND it.space = $1::text AND it.key = ANY($2::text[]) \
            AND (it.next_until IS NULL OR it.next_until <= clock_timestamp())) \
    SELECT CASE WHEN is_free THEN token END, \
        ceil(extract(epoch FROM until - clock_timestamp()) * 1000)::bigint FROM verdict";

/// Makes locks last for so long from now. $1: the space, $2: the keys, $3: the owner, $4: ms. Returns how many were its.
const EXTEND: &str = "\
    WITH extended AS (\
        UPDATE wrun.locks SET until = clock_timestamp() + $4::float8 * interval '1 millisecond' \
        WHERE space = $1::text AND key = ANY($2::text[]) AND owner = $3::text AND until > clock_timestamp() RETURNING 1) \
    SELECT count(*) FROM extended";

/// Releases what is the owner's, and tells those who wait. $1: the space, $2: the keys, $3: the owner. Returns how many
/// were its until now.
const RELEASE: &str = "\
    WITH released AS (\
        UPDATE wrun.locks SET owner = NULL \
        WHERE space = $1::text AND key = ANY($2::text[]) AND owner = $3::text RETURNING key, until > clock_timestamp() AS had), \
    told AS MATERIALIZED (SELECT had, pg_notify('CHANNEL', $1::text || ' ' || key) FROM released) \
    SELECT count(*) FILTER (WHERE had) FROM told";

/// Releases what an earlier state process of this server left behind. $1: the space, $2: what its owners begin with, $3:
/// what those of now begin with. Returns how many there were.
const SWEEP: &str = "\
    WITH released AS (\
        UPDATE wrun.locks SET owner = NULL \
        WHERE space = $1::text AND starts_with(owner, $2::text) AND NOT starts_with(owner, $3::text) RETURNING key), \
    told AS MATERIALIZED (SELECT pg_notify('CHANNEL', $1::text || ' ' || key) FROM released) \
    SELECT count(*) FROM told";

/// The statements of one connection.
pub(super) struct Statements {
    pub(super) alone: tokio_postgres::Statement,
    pub(super) take: tokio_postgres::Statement,
    pub(super) extend: tokio_postgres::Statement,
    pub(super) release: tokio_postgres::Statement,
    pub(super) sweep: tokio_postgres::Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let told = |statement: &str| statement.replace("CHANNEL", CHANNEL);
        Ok(Self {
            alone: client.prepare(ALONE).await?,
            take: client.prepare(TAKE).await?,
            extend: client.prepare(EXTEND).await?,
            release: client.prepare(&told(RELEASE)).await?,
            sweep: client.prepare(&told(SWEEP)).await?,
        })
    }
}
