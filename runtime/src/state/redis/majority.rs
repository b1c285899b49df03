//! What several servers say together: the answers that came, and whether more are needed. No I/O.

/// How many servers there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) usize);

impl Count {
    /// Returns how many are a majority: any two of them have a server in common.
    pub(super) fn majority(self) -> usize {
        self.0 / 2 + 1
    }
}

/// A server's answer.
#[derive(Debug)]
pub(super) struct Said<T> {
    /// Which one it is.
    pub(super) node: usize,
    /// The connection that it came on.
    pub(super) connection: u64,
    pub(super) what: T,
}

/// What a server's answer is.
#[derive(Debug)]
pub(super) enum Heard<T> {
    Said(Said<T>),
    /// It was not asked.
    Away(String),
    /// It was, and did not answer: nobody knows what it did.
    Silent(String),
}

/// What is known of a question to several servers.
#[derive(Debug)]
pub(super) struct Tally<T> {
    /// How many were asked, or were to be.
    asked: usize,
    pub(super) said: Vec<Said<T>>,
    away: usize,
    silent: usize,
    why: Option<String>,
}

impl<T> Tally<T> {
    pub(super) fn new(asked: usize) -> Self {
        Self {
            asked,
            said: Vec::new(),
            away: 0,
            silent: 0,
            why: None,
        }
    }

    pub(super) fn hear(&mut self, heard: Heard<T>) {
        match heard {
            Heard::Said(said) => self.said.push(said),
            Heard::Away(why) => {
                self.away += 1;
                self.why = Some(why);
            }
            Heard::Silent(why) => {
                self.silent += 1;
                self.why = Some(why);
            }
        }
    }

    /// Returns how many said something of which `is_it` holds.
    pub(super) fn count(&self, is_it: impl Fn(&T) -> bool) -> usize {
        self.said.iter().filter(|said| is_it(&said.what)).count()
    }

    /// Returns how many have yet to answer.
    pub(super) fn open(&self) -> usize {
        self.asked - self.said.len() - self.away - self.silent
    }

    /// Tells whether some server may have done what was asked, of which nobody knows.
    pub(super) fn is_uncertain(&self) -> bool {
        self.silent + self.open() > 0
    }

    /// Says why there are too few answers.
    pub(super) fn why(&self) -> String {
        let why = self.why.as_deref().unwrap_or("it does not answer");
        match self.asked {
            1 => why.to_owned(),
            asked => format!(
                "{} of {asked} servers cannot be reached: {why}",
                self.away + self.silent
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_have_a_server_in_common() {
        for count in [1, 3, 5, 7, 9] {
            let majority = Count(count).majority();
            assert!(2 * majority > count);
            // And so many may be away that the rest is one.
            assert!(count - (count / 2) >= majority);
        }
    }

    #[test]
    fn server_that_is_away_has_done_nothing_and_one_that_is_silent_may_have() {
        let mut tally = Tally::new(3);
        tally.hear(Heard::Said(Said {
            node: 0,
            connection: 1,
            what: true,
        }));
        assert_eq!((tally.open(), tally.count(|it| *it)), (2, 1));
        tally.hear(Heard::Away("refused".to_owned()));
        assert!(tally.is_uncertain());
        tally.hear(Heard::Silent("silent".to_owned()));
        assert_eq!(tally.open(), 0);
        assert!(tally.is_uncertain());
        assert_eq!(tally.why(), "2 of 3 servers cannot be reached: silent");
    }
}
