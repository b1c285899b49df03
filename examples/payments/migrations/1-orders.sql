CREATE TABLE orders (
    id VARCHAR(100) PRIMARY KEY,
    customer VARCHAR(100) NOT NULL,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    status VARCHAR(10) NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'paid', 'failed'))
);

-- What the simulated payment provider did: one row each time that it took money. It has no key on purpose, so that an order
-- that is charged twice shows.
CREATE TABLE charge_log (
    order_id VARCHAR(100) NOT NULL,
    amount_cents INTEGER NOT NULL
);
