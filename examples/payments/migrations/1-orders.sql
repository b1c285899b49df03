CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'paid', 'failed'))
);

-- What the simulated payment provider did: one row each time that it took money. It has no unique key on purpose, so that
-- an order that is charged twice shows.
CREATE TABLE charge_log (
    id INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL,
    amount_cents INTEGER NOT NULL
);
