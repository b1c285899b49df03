CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO counters VALUES ('locked', 0), ('unlocked', 0), ('fenced', 0), ('tries', 0);
CREATE TABLE letters (id TEXT, attempt INTEGER NOT NULL, what JSON NOT NULL);
CREATE TABLE typed (
  whole INTEGER, huge INTEGER, real_ REAL, text_ TEXT, blob_ BLOB, flag BOOLEAN, at TIMESTAMP, document JSON,
  price DECIMAL TEXT, day DATE, moment TIME, uid UUID, absent TEXT
);
CREATE TABLE numbers (n INTEGER PRIMARY KEY CHECK (n < 1000000));
