CREATE TABLE stock (
    item TEXT PRIMARY KEY,
    remaining INTEGER NOT NULL CHECK (remaining >= 0)
);

INSERT INTO stock (item, remaining) VALUES ('ticket', 100);

CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    item TEXT NOT NULL REFERENCES stock (item),
    sold_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
