"""Locks and durations, with the host replaced."""

import unittest
from datetime import timedelta
from unittest.mock import Mock

from . import fake_host
from .fake_host import Err
from wrun_sdk import _millis, lock


class Durations(unittest.TestCase):
    def test_short_time_does_not_become_none(self) -> None:
        for duration, ms in ((0, 0), (0.0001, 1), (0.002, 2), (2.5, 2500), (timedelta(microseconds=1), 1)):
            with self.subTest(duration=duration):
                self.assertEqual(_millis.whole(duration), ms)

    def test_long_time_does_not_wrap(self) -> None:
        self.assertEqual(_millis.short(timedelta(days=365)), 2**32 - 1)

    def test_what_is_no_duration_is_refused(self) -> None:
        for duration in (-1, float("nan"), float("inf"), timedelta(seconds=-1)):
            with self.subTest(duration=duration), self.assertRaises(ValueError):
                _millis.whole(duration)


class Locks(unittest.TestCase):
    def setUp(self) -> None:
        self.raw = Mock()
        self.guard = self.raw.acquire.return_value
        self.space = lock.Space(self.raw)

    def test_block_holds_all_of_the_keys(self) -> None:
        with self.space.acquire("a", "b", wait=2.0) as guard:
            self.assertIs(guard.token, self.guard.token())
            self.guard.release.assert_not_called()
        keys, options = self.raw.acquire.call_args.args
        self.assertEqual((keys, options), (["a", "b"], fake_host.lock.Options(2000, None, None)))
        self.guard.release.assert_called_once_with()

    def test_block_that_lost_its_lock_says_so(self) -> None:
        self.guard.release.side_effect = Err(fake_host.lock.Error_Lost())
        with self.assertRaises(lock.Lost), self.space.acquire("a"):
            pass

    def test_error_in_the_block_comes_first(self) -> None:
        self.guard.release.side_effect = Err(fake_host.lock.Error_Lost())
        with self.assertRaises(LookupError), self.space.acquire("a"):
            raise LookupError

    def test_guard_is_released_once(self) -> None:
        with self.space.acquire("a") as guard:
            guard.release()
        self.guard.release.assert_called_once_with()

    def test_errors_have_their_types(self) -> None:
        for error, kind, text in [
            (fake_host.lock.Error_Timeout(), lock.Timeout, "timed out waiting for a lock"),
            (fake_host.lock.Error_Denied("x"), lock.Denied, "lock space denied: x"),
            (fake_host.lock.Error_Other("x"), lock.Error, "x"),
        ]:
            self.raw.acquire.side_effect = Err(error)
            with self.subTest(error=error), self.assertRaises(lock.Error) as raised:
                self.space.acquire("a")
            self.assertIs(type(raised.exception), kind)
            self.assertEqual(str(raised.exception), text)


if __name__ == "__main__":
    unittest.main()
