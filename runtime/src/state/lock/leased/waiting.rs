//! Those who wait for keys that others hold elsewhere, and how they are told that one was released.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// Those who wait in one space. Clones are the same.
#[derive(Clone, Default)]
pub(in crate::state) struct Waiting(Rc<RefCell<HashMap<String, Vec<Rc<Notify>>>>>);

impl Waiting {
    /// Returns what is told when one of these keys is released.
    pub(super) fn news(&self, keys: &[String]) -> News {
        let news = Rc::new(Notify::new());
        let mut waiting = self.0.borrow_mut();
        for key in keys {
            waiting.entry(key.clone()).or_default().push(news.clone());
        }
        News {
            waiting: self.clone(),
            keys: keys.to_vec(),
            news,
        }
    }

    /// A key was released.
    pub(in crate::state) fn wake(&self, key: &str) {
        let waiting = self.0.borrow();
        let waiting = waiting.get(key).into_iter().flatten();
        waiting.for_each(|news| news.notify_one());
    }
}

/// What is told of the release of some keys, until it is dropped.
pub(super) struct News {
    waiting: Waiting,
    keys: Vec<String>,
    news: Rc<Notify>,
}

impl News {
    /// Waits for news that nobody has heard yet.
    pub(super) async fn come(&self) {
        self.news.notified().await;
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.borrow_mut();
        for key in &self.keys {
            if let Some(all) = waiting.get_mut(key) {
                all.retain(|news| !Rc::ptr_eq(news, &self.news));
                if all.is_empty() {
                    waiting.remove(key);
                }
            }
        }
    }
}
