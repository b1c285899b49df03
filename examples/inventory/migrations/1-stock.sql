-- The one item that is for sale.
CREATE TABLE item (
    stock INTEGER NOT NULL,
    remaining INTEGER NOT NULL
);

INSERT INTO item (stock, remaining) VALUES (100, 100);

CREATE TABLE orders (
    id VARCHAR(100) PRIMARY KEY,
    status VARCHAR(10) NOT NULL CHECK (status IN ('pending', 'sold', 'rejected'))
);
