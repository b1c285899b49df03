CREATE TABLE stock (
    item TEXT PRIMARY KEY,
    left INTEGER NOT NULL CHECK (left >= 0)
);

INSERT INTO stock (item, left) VALUES ('ticket', 100);

CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    item TEXT NOT NULL REFERENCES stock (item),
    sold_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
