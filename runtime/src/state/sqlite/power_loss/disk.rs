//! What is on the disk for sure, what may be, and images of what a power cut leaves.

use super::random::Random;
use super::tape::{Event, File};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

/// What the disk writes at once, or not at all.
const SECTOR: usize = 512;

/// The files of a database that are there, with their content.
pub(super) type Image = BTreeMap<File, Vec<u8>>;

/// The files of a database on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    files: BTreeMap<File, Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    /// None is no file.
    synced: Option<Vec<u8>>,
    /// What was done since, in order.
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    /// The number of the event; none is one of a former life.
    at: Option<usize>,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Create,
    Write { offset: usize, bytes: Arc<[u8]> },
    Truncate(usize),
    Delete,
}

impl Disk {
    /// Returns the disk of a machine that comes up after a power cut: what there is now stays.
    pub(super) fn after_cut(image: Image) -> Self {
        let stored = |content| Stored {
            synced: Some(content),
            pending: Vec::new(),
        };
        let files = image
            .into_iter()
            .map(|(file, content)| (file, stored(content)));
        Self {
            files: files.collect(),
        }
    }

    /// Returns the disk after the process was killed, for a new record: what is not synced is still not.
    pub(super) fn after_kill(mut self) -> Self {
        for stored in self.files.values_mut() {
            for pending in &mut stored.pending {
                pending.at = None;
            }
        }
        self
    }

    /// Goes on by one event, the one of this number.
    pub(super) fn apply(&mut self, at: usize, event: &Event) {
        let (file, change) = match event {
            Event::Created(file) => (file, Change::Create),
            Event::Wrote {
                file,
                offset,
                bytes,
            } => {
                let bytes = Arc::clone(bytes);
                let offset = *offset;
                (file, Change::Write { offset, bytes })
            }
            Event::Truncated { file, size } => (file, Change::Truncate(*size)),
            Event::Deleted { file, .. } => (file, Change::Delete),
            Event::Synced { file, names, from } => {
                self.files.entry(*file).or_default().sync(*from);
                if *names {
                    self.sync_names(*from);
                }
                return;
            }
            Event::Told(_) => return,
        };
        let stored = self.files.entry(*file).or_default();
        stored.pending.push(Pending {
            at: Some(at),
            change,
        });
        if let Event::Deleted { durable: true, .. } = event {
            stored.sync(at + 1);
        }
    }

    fn sync_names(&mut self, from: usize) {
        for stored in self.files.values_mut() {
            let is_name = |pending: &Pending| {
                pending.at < Some(from) && matches!(pending.change, Change::Create | Change::Delete)
            };
            // What was done to the file before does not matter any more.
            let count = stored.pending.iter().rposition(is_name);
            stored.bring(count.map_or(0, |last| last + 1));
        }
    }

    /// Returns what running processes see.
    pub(super) fn seen(&self) -> Image {
        self.image(|_| Plan::All, &mut Random::new(0))
    }

    /// Returns what a power cut could leave, and in words how that was chosen.
    pub(super) fn cut(&self, random: &mut Random) -> (Image, String) {
        let pending = self.files.values().flat_map(|stored| &stored.pending);
        let mut numbers: Vec<_> = pending.map(|pending| pending.at).collect();
        numbers.sort_unstable();
        let plans = if random.one_in(2) {
            [Plan::draw(random, &numbers); 3]
        } else {
            [(); 3].map(|()| Plan::draw(random, &numbers))
        };
        let image = self.image(|file| plans[file as usize], random);
        (image, format!("{} pending, {plans:?}", numbers.len()))
    }

    fn image(&self, plan: impl Fn(File) -> Plan, random: &mut Random) -> Image {
        let mut image = Image::new();
        for (&file, stored) in &self.files {
            if let Some(content) = stored.survivor(plan(file), random) {
                image.insert(file, content);
            }
        }
        image
    }
}

impl Stored {
    fn sync(&mut self, from: usize) {
        self.bring(
            self.pending
                .partition_point(|pending| pending.at < Some(from)),
        );
    }

    /// Brings the first `count` changes to the disk.
    fn bring(&mut self, count: usize) {
        for Pending { change, .. } in self.pending.drain(..count) {
            change.apply(&mut self.synced);
        }
    }

    fn survivor(&self, plan: Plan, random: &mut Random) -> Option<Vec<u8>> {
        let mut content = self.synced.clone();
        for Pending { at, change } in &self.pending {
            match (plan.fate(*at, random), change) {
                (Fate::Kept, change) => change.apply(&mut content),
                // What follows was done to a file that is not there.
                (_, Change::Create) => break,
                (Fate::Torn, Change::Write { offset, bytes }) => {
                    tear(content.as_mut(), *offset, bytes, random);
                }
                (Fate::Torn | Fate::Lost, _) => {}
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Option<Vec<u8>>) {
        match (self, content.as_mut()) {
            (Self::Create, _) => *content = Some(Vec::new()),
            (Self::Delete, _) => *content = None,
            (Self::Write { offset, bytes }, Some(content)) => write(content, *offset, bytes),
            (Self::Truncate(size), Some(content)) => content.resize(*size, 0),
            (Self::Write { .. } | Self::Truncate(_), None) => {}
        }
    }
}

/// What becomes of the changes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Plan {
    None,
    All,
    /// Those before the event of this number are kept; that one itself is torn.
    Before(Option<usize>),
    /// So many in a hundred are kept, and so many torn.
    Some {
        kept: u64,
        torn: u64,
    },
}

/// What becomes of one change.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Lost,
    /// Some of its sectors are lost, and maybe the growth of the file. What is no write is lost.
    Torn,
}

impl Plan {
    fn draw(random: &mut Random, numbers: &[Option<usize>]) -> Self {
        match random.below(8) {
            0 => Self::None,
            1 => Self::All,
            2..4 if !numbers.is_empty() => Self::Before(numbers[random.index(numbers.len())]),
            drawn => {
                let kept = random.below(101);
                let torn = if drawn.is_multiple_of(2) {
                    random.below(101 - kept)
                } else {
                    0
                };
                Self::Some { kept, torn }
            }
        }
    }

    fn fate(self, at: Option<usize>, random: &mut Random) -> Fate {
        match self {
            Self::All => Fate::Kept,
            Self::None => Fate::Lost,
            Self::Before(end) if at < end => Fate::Kept,
            Self::Before(end) if at == end => Fate::Torn,
            Self::Before(_) => Fate::Lost,
            Self::Some { kept, torn } => match random.below(100) {
                drawn if drawn < kept => Fate::Kept,
                drawn if drawn < kept + torn => Fate::Torn,
                _ => Fate::Lost,
            },
        }
    }
}

/// Writes the files into a folder that has none of them.
pub(super) fn write_image(image: &Image, folder: &Path) -> io::Result<()> {
    for (file, content) in image {
        fs::write(folder.join(file.name()), content)?;
    }
    Ok(())
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn tear(content: Option<&mut Vec<u8>>, offset: usize, bytes: &[u8], random: &mut Random) {
    let Some(content) = content else {
        return;
    };
    let end = offset + bytes.len();
    if random.one_in(2) && content.len() < end {
        content.resize(end, 0);
    }
    let mut at = offset;
    while at < end {
        let next = end.min((at / SECTOR + 1) * SECTOR);
        if random.one_in(2) {
            write(content, at, &bytes[at - offset..next - offset]);
        }
        at = next;
    }
}
