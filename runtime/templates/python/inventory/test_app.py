"""Runs on ordinary Python: PYTHONPATH=vendor python3 -m unittest"""

import unittest
from unittest.mock import Mock

from app import buy, main
from wrun_sdk import http


class Buying(unittest.TestCase):
    def test_takes_one(self) -> None:
        tx = Mock()
        tx.query_opt.return_value = 3
        tx.query_one.return_value = 1
        response = buy(tx, "ticket")
        self.assertEqual((response.status, response.body), (200, b'{"order":1,"left":2}'))

    def test_takes_nothing_from_an_empty_stock(self) -> None:
        tx = Mock()
        tx.query_opt.return_value = 0
        response = buy(tx, "ticket")
        self.assertEqual((response.status, response.body), (409, b'{"error":"sold out"}'))
        tx.execute.assert_not_called()

    def test_knows_no_other_item(self) -> None:
        tx = Mock()
        tx.query_opt.return_value = None
        self.assertEqual(buy(tx, "castle").status, 404)


class Restocking(unittest.TestCase):
    def test_wants_a_number(self) -> None:
        request = http.Request("POST", "/restock/ticket", "n=many")
        self.assertEqual(main(request).status, 404)


if __name__ == "__main__":
    unittest.main()
