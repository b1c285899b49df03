//! Handles messages and nothing else. Each leaves a row in the table `handled`.

use wrun_sdk::db;
use wrun_sdk::queue::Delivery;
use wrun_test_state::handled;

#[wrun_sdk::consumer]
fn main(delivery: Delivery) -> Result<(), db::Error> {
    let db = db::open("default")?;
    let row = handled::begin(&db, &delivery, 1)?;
    handled::end(&db, row)
}
