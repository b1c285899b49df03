"""Runs on ordinary Python: PYTHONPATH=vendor python3 -m unittest"""

import unittest

from app import main
from wrun_sdk import http


class Answers(unittest.TestCase):
    def test_greets(self) -> None:
        self.assertEqual(main(http.Request(path="/")).body, b"Hello from {{name}}!\n")
        self.assertEqual(main(http.Request(path="/hello/Ada")).body, b"Hello, Ada!\n")

    def test_knows_no_other_page(self) -> None:
        self.assertEqual(main(http.Request(path="/elsewhere")).status, 404)
        self.assertEqual(main(http.Request(method="POST")).status, 404)


if __name__ == "__main__":
    unittest.main()
