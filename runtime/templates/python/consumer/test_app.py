"""Runs on ordinary Python: PYTHONPATH=vendor python3 -m unittest"""

import unittest
from unittest.mock import Mock

from app import finish, main, place
from wrun_sdk import http, queue


class Ordering(unittest.TestCase):
    def test_sends_what_it_notes(self) -> None:
        tx, orders = Mock(), Mock()
        tx.query_one.return_value = 7
        response = place(tx, orders, {"item": "lamp"})
        self.assertEqual((response.status, response.body), (202, b'{"id":7}'))
        orders.send_in.assert_called_once_with(tx, {"id": 7})

    def test_wants_json(self) -> None:
        self.assertEqual(main(http.Request("POST", "/orders", body=b"{")).status, 400)


class Handling(unittest.TestCase):
    delivery = queue.Delivery(id="orders-1", body=b'{"id":7}')

    def test_finishes_an_order(self) -> None:
        tx = Mock()
        tx.mark_processed.return_value = True
        finish(tx, self.delivery)
        self.assertEqual(tx.execute.call_args.args[1], 7)

    def test_does_nothing_the_second_time(self) -> None:
        tx = Mock()
        tx.mark_processed.return_value = False
        finish(tx, self.delivery)
        tx.execute.assert_not_called()


if __name__ == "__main__":
    unittest.main()
