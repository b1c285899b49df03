//! Databases that are bound to PostgreSQL, and a network that is slow, silent, cut, or loses the answer to a commit.

use crate::wrun;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::postgres::Postgres;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::sale::{Report, Sale, Way};
use wrun_tests::server::Server;
use wrun_tests::{SOON, eventually};

/// A server of the inventory, its PostgreSQL, and what lies between them.
struct Shop {
    server: Server,
    proxy: Proxy,
    postgres: Postgres,
}

fn shop() -> Option<Shop> {
    let postgres = Postgres::for_test()?;
    postgres.create("shop");
    let proxy = Proxy::to(postgres.port());
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", proxy.port());
    let launch = wrun().serve(example("inventory")).workers(2);
    let server = launch.flag("--bind", format!("db.default={url}")).start();
    Some(Shop {
        server,
        proxy,
        postgres,
    })
}

const SALE: Sale = Sale {
    way: Way::Db,
    stock: 40,
    buyers: 60,
    victims: Victims::Nobody,
};

impl Shop {
    fn sold(&self) -> u32 {
        let sold = "SELECT count(*) FROM orders WHERE status = 'sold'";
        let sold = self.postgres.query("shop", sold);
        sold.parse().expect("a number")
    }

    /// Waits until so many are sold, or the sale is over.
    fn wait_for(&self, sold: u32, sale: &ScopedJoinHandle<'_, Report>) {
        eventually("some more are sold", SOON, || {
            (self.sold() >= sold || sale.is_finished()).then_some(())
        });
    }

    /// Orders one, as `id`; tells whether it was sold.
    fn buy(&self, id: &str) -> bool {
        let mut connection = self.server.connect();
        let answer = connection.exchange("POST", "/buy/db", &[("idempotency-key", id)], b"");
        answer.status == 200
    }
}

#[test]
fn sale_is_exact_while_the_way_to_the_server_is_slow_silent_and_cut() {
    let Some(shop) = shop() else { return };
    // A transaction takes five ways there and back: the sale takes seconds, however quick the machine is.
    let slow = Weather::Slow(Duration::from_millis(3));
    shop.proxy.be(slow);
    let report = thread::scope(|scope| {
        let sale = scope.spawn(|| SALE.hold(&shop.server));
        shop.wait_for(10, &sale);
        shop.proxy.be(Weather::Silent);
        let since = Instant::now();
        eventually("a second", SOON, || {
            (since.elapsed() >= Duration::from_secs(1)).then_some(())
        });
        shop.proxy.be(slow);
        shop.wait_for(20, &sale);
        shop.proxy.be(Weather::Cut);
        // Calls fail, and do not wait: until it is mended nobody would answer.
        assert_eq!(shop.server.get("/stats").status, 500);
        assert!(
            shop.server
                .log()
                .line_with("unavailable")
                .contains("PostgreSQL")
        );
        shop.proxy.be(Weather::Fair);
        sale.join().expect("the sale goes on")
    });
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.retries > 0, "{report:#?}");
}

#[test]
fn commits_whose_answers_are_lost_are_said_to_be_unknown_and_asking_again_under_the_same_name_is_safe()
 {
    let Some(shop) = shop() else { return };
    shop.proxy.be(Weather::LosesCommits(5));
    let report = SALE.hold(&shop.server);
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(shop.proxy.lost() > 0 && report.retries > 0, "{report:#?}");
    shop.server.log().line_with("outcome");
}

#[test]
fn who_asks_again_under_another_name_after_a_commit_of_unknown_outcome_has_bought_twice() {
    let Some(shop) = shop() else { return };
    shop.proxy.be(Weather::LosesCommits(5));
    let asked: Vec<bool> = (0..40)
        .map(|number| shop.buy(&format!("{number}")))
        .collect();
    shop.proxy.be(Weather::Fair);
    let acknowledged = asked.iter().filter(|sold| **sold).count();
    assert!(acknowledged < 40, "{asked:?}");
    assert!(shop.sold() as usize > acknowledged, "{asked:?}");
}
