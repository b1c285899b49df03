"""Values, rows and transactions, with the host replaced."""

import unittest
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from unittest.mock import MagicMock, Mock, patch
from uuid import UUID

from . import fake_host
from .fake_host import Err
from wrun_sdk import db, queue
from wrun_sdk.db import values


class Values(unittest.TestCase):
    def test_every_type_comes_back_as_it_was(self) -> None:
        for value in [
            None,
            True,
            -(2**63),
            0.1,
            "größe",
            b"\x00\xff",
            Decimal("-12.50"),
            date(2024, 2, 29),
            time(23, 59, 59, 5),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
            UUID("ffeeddcc-4455-6677-8899-aabbccddeeff"),
            {"a": [1, None, "ü"]},
        ]:
            with self.subTest(value=value):
                back = values.from_host(values.to_host(value))
                self.assertEqual(back, value)
                self.assertIs(type(back), type(value))

    def test_parameters_have_the_type_that_sql_has_for_them(self) -> None:
        self.assertEqual(values.to_host(True), fake_host.db.Value_Boolean(True))
        self.assertEqual(values.to_host(Decimal("1E+3")), fake_host.db.Value_Decimal("1000"))
        noon = datetime(1970, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(values.to_host(noon), fake_host.db.Value_TimestampUs(10 * 3600 * 1_000_000))
        self.assertEqual(values.to_host(db.Json("a")), fake_host.db.Value_Json('"a"'))
        self.assertEqual(values.to_host(bytearray(b"a")), fake_host.db.Value_Blob(b"a"))

    def test_what_sql_cannot_hold_is_refused(self) -> None:
        for value in [datetime(2024, 1, 1), time(1, tzinfo=timezone.utc), Decimal("NaN")]:
            with self.subTest(value=value), self.assertRaises(ValueError):
                values.to_host(value)
        with self.assertRaises(TypeError):
            values.to_host(object())

    def test_what_python_cannot_hold_stays_as_it_came(self) -> None:
        self.assertEqual(values.from_host(fake_host.db.Value_Date("0000-01-01")), "0000-01-01")
        self.assertEqual(values.from_host(fake_host.db.Value_TimestampUs(2**62)), 2**62)
        self.assertEqual(values.from_host(fake_host.db.Value_Json("{")), "{")
        self.assertEqual(values.from_host(fake_host.db.Value_Other(("point", "(1,2)"))), "(1,2)")


@dataclass
class Item:
    id: int
    name: str


class Rows(unittest.TestCase):
    def setUp(self) -> None:
        self.raw = Mock()
        self.database = db.Database(self.raw)

    def returns(self, columns: str, *rows: list[object]) -> None:
        self.raw.query.return_value = fake_host.rows(columns, *([values.to_host(value) for value in row] for row in rows))

    def test_row_is_what_the_caller_wants(self) -> None:
        self.returns("id name", [1, "lamp"])
        self.assertEqual(self.database.query("…"), [{"id": 1, "name": "lamp"}])
        self.assertEqual(self.database.query_one("…", into=tuple), (1, "lamp"))
        self.assertEqual(self.database.query_opt("…", into=Item), Item(1, "lamp"))
        with self.assertRaises(db.UnexpectedRow):
            self.database.query("…", into=int)

    def test_only_column_is_of_the_type_that_is_asked_for(self) -> None:
        self.returns("n", [1])
        for into, expected in [(int, 1), (float, 1.0), (bool, True)]:
            with self.subTest(into=into):
                got: object = self.database.query_one("…", into=into)
                self.assertEqual((got, type(got)), (expected, into))
        for into in (str, bytes, datetime):
            with self.subTest(into=into), self.assertRaises(db.UnexpectedRow):
                self.database.query_one("…", into=into)

    def test_rows_are_counted(self) -> None:
        self.returns("n")
        self.assertIsNone(self.database.query_opt("…"))
        with self.assertRaises(db.RowCount):
            self.database.query_one("…")
        self.returns("n", [1], [2])
        with self.assertRaises(db.RowCount):
            self.database.query_opt("…")

    def test_row_that_a_class_does_not_take_is_named(self) -> None:
        self.returns("id", [1])
        with self.assertRaisesRegex(db.UnexpectedRow, "name"):
            self.database.query("…", into=Item)

    def test_batch_has_rows_and_effects(self) -> None:
        self.raw.batch.return_value = [
            fake_host.db.Step_Done(fake_host.db.Done(1, 7)),
            fake_host.db.Step_Rows(fake_host.rows("n", [values.to_host(1)])),
        ]
        steps = self.database.batch([db.Statement("…", 1)], isolation="repeatable read", timeout=0.5)
        self.assertEqual(steps, [db.Done(1, 7), [{"n": 1}]])
        statements, options, fences = self.raw.batch.call_args.args
        self.assertEqual(statements, [fake_host.db.Statement("…", [fake_host.db.Value_Integer(1)])])
        self.assertEqual(options, fake_host.db.TxOptions(False, fake_host.Isolation.REPEATABLE_READ, 500))
        self.assertEqual(fences, [])


def refused(retryable: bool) -> Err:
    return Err(fake_host.db.Error_Db(fake_host.db.DbError("40001", "conflict", None, retryable)))


@patch("wrun_sdk.db.transaction.time.sleep")
class Transactions(unittest.TestCase):
    def setUp(self) -> None:
        self.raw = Mock()
        self.database = db.Database(self.raw)
        self.tx = self.raw.begin.return_value

    def test_work_is_committed_once(self, _sleep: Mock) -> None:
        self.assertEqual(self.database.transaction(lambda tx: 7), 7)
        self.tx.commit.assert_called_once_with()
        self.tx.rollback.assert_not_called()

    def test_work_that_raises_is_rolled_back_and_not_tried_again(self, _sleep: Mock) -> None:
        work = Mock(side_effect=LookupError)
        with self.assertRaises(LookupError):
            self.database.transaction(work)
        work.assert_called_once()
        self.tx.commit.assert_not_called()
        self.tx.rollback.assert_called_once_with()

    def test_conflict_is_tried_again_up_to_five_times(self, sleep: Mock) -> None:
        self.tx.execute.side_effect = refused(retryable=True)
        with self.assertRaises(db.Refused) as raised:
            self.database.transaction(lambda tx: tx.execute("…"))
        self.assertEqual((raised.exception.code, raised.exception.retryable), ("40001", True))
        self.assertEqual((self.raw.begin.call_count, sleep.call_count), (6, 5))
        self.assertEqual(self.tx.rollback.call_count, 6)

    def test_conflict_is_tried_again_also_if_the_work_raises_an_error_of_its_own(self, _sleep: Mock) -> None:
        self.tx.execute.side_effect = [refused(retryable=True), fake_host.db.Done(1, None)]

        def work(tx: db.Transaction) -> int:
            try:
                return tx.execute("…").affected
            except db.Error:
                raise LookupError from None

        self.assertEqual(self.database.transaction(work), 1)

    def test_conflict_at_the_commit_or_the_beginning_is_tried_again(self, _sleep: Mock) -> None:
        self.tx.commit.side_effect = [refused(retryable=True), None]
        self.raw.begin.side_effect = [Err(fake_host.db.Error_Unavailable("…")), self.tx, self.tx]
        self.assertEqual(self.database.transaction(lambda tx: 7), 7)

    def test_error_that_stays_is_not_tried_again(self, _sleep: Mock) -> None:
        self.tx.execute.side_effect = refused(retryable=False)
        with self.assertRaises(db.Refused):
            self.database.transaction(lambda tx: tx.execute("…"))
        self.raw.begin.assert_called_once()

    def test_unknown_outcome_is_never_tried_again(self, _sleep: Mock) -> None:
        self.tx.execute.side_effect = refused(retryable=True)
        self.tx.commit.side_effect = Err(fake_host.db.Error_OutcomeUnknown())

        def work(tx: db.Transaction) -> None:
            try:
                tx.execute("…")
            except db.Error:
                pass

        with self.assertRaises(db.OutcomeUnknown):
            self.database.transaction(work)
        self.raw.begin.assert_called_once()

    def test_message_that_could_not_be_sent_is_a_reason_to_try_again(self, _sleep: Mock) -> None:
        raw = Mock()
        raw.send_in.side_effect = [Err(fake_host.queue.Error_Unavailable("…")), ["1"]]
        jobs = queue.Queue(raw)
        self.assertEqual(self.database.transaction(lambda tx: jobs.send_in(tx, {})), "1")

    def test_block_is_not_tried_again(self, _sleep: Mock) -> None:
        self.tx.execute.side_effect = refused(retryable=True)
        with self.assertRaises(db.Refused), self.database.begin() as tx:
            tx.execute("…")
        self.tx.rollback.assert_called_once_with()

    def test_block_that_ended_the_transaction_itself_is_left_alone(self, _sleep: Mock) -> None:
        with self.database.begin() as tx:
            tx.rollback()
        self.tx.commit.assert_not_called()

    def test_cursor_fetches_page_by_page_and_ends(self, _sleep: Mock) -> None:
        cursor = self.tx.open_cursor.return_value = MagicMock()
        cursor.columns.return_value = [fake_host.db.Column("n", "")]
        one, two, three = ([values.to_host(n)] for n in (1, 2, 3))
        cursor.next.side_effect = [[one, two], [three], []]
        with self.database.begin() as tx:
            rows = tx.rows("…", into=int)
            self.assertEqual(list(rows), [1, 2, 3])
            self.assertEqual(list(rows), [])


if __name__ == "__main__":
    unittest.main()
