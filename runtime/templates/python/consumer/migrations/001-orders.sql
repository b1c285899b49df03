CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    details TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'done'))
);
