//! Sentences for the log. Threads store them, and Python fetches them.

use parking_lot::Mutex;

/// How many notes are kept until somebody takes them.
const MAX_NOTES: usize = 20;

/// Sentences for the log.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub fn add(&self, note: String) {
        let mut notes = self.0.lock();
        if notes.len() < MAX_NOTES {
            notes.push(note);
        }
    }

    /// The notes since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}
