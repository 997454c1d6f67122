//! Byte-pair encoding of one word with CLIP's vocabulary.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use ahash::RandomState;

use super::TokenizeError;

/// In CLIP's vocabulary of 49,408. The published file has more, which CLIP does not use.
const MAX_MERGES: usize = 49_152 - 256 - 2;

/// The ids of single bytes come first, then those of bytes at the end of a word, then the merges.
const BYTE_IDS: usize = 256;

/// Marks the end of a word in the vocabulary's text.
const WORD_END: &str = "</w>";

const NONE: u32 = u32::MAX;

/// Which pairs of neighbouring symbols merge, and in which order.
#[derive(Debug)]
pub(super) struct Bpe {
    byte_ids: [u32; 256],
    ranks: HashMap<(u32, u32), u32, RandomState>,
    vocab_size: usize,
}

/// Reused buffers, so that encoding a word does not allocate.
#[derive(Debug, Default)]
pub(super) struct BpeScratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<(u32, u32)>>,
}

/// A node of a doubly linked list.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    before: u32,
    after: u32,
}

struct Merge<'text> {
    /// Its number in the text, from 1.
    line: usize,
    first: &'text str,
    second: &'text str,
}

impl Bpe {
    pub(super) fn parse(merges: &[u8]) -> Result<Self, TokenizeError> {
        let text = std::str::from_utf8(merges)
            .map_err(|_| wrong(1, "the text must be UTF-8 (is it still compressed?)"))?;
        let merges = read_merges(text)?;
        let (byte_ids, letters) = byte_symbols();
        let ids = symbol_ids(&letters, &merges)?;
        let mut bpe =
            Self { byte_ids, ranks: HashMap::default(), vocab_size: 2 * BYTE_IDS + merges.len() };
        for (rank, merge) in merges.iter().enumerate() {
            let id = (2 * BYTE_IDS + rank) as u32;
            // A merge may only use earlier symbols, so merging one pair at a time, leftmost first, equals merging all equal pairs
            // at once.
            match (ids.get(merge.first), ids.get(merge.second)) {
                (Some(&first), Some(&second)) if first < id && second < id => {
                    bpe.ranks.insert((first, second), rank as u32)
                }
                _ => {
                    return Err(wrong(merge.line, "a merge must use symbols defined above it"));
                }
            };
        }
        Ok(bpe)
    }

    /// Of bytes and merges. The special tokens follow.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Appends the ids of `word`, which must not be empty.
    pub(super) fn encode(&self, word: &[u8], scratch: &mut BpeScratch, ids: &mut Vec<i32>) {
        let BpeScratch { symbols, queue } = scratch;
        self.lay_out(word, symbols);
        queue.clear();
        for at in 0..symbols.len() as u32 {
            self.enqueue(symbols, queue, at);
        }
        while let Some(Reverse((rank, at))) = queue.pop() {
            // Check that the pair still exists.
            if self.rank(symbols, at) == Some(rank) {
                self.merge(symbols, queue, at, rank);
            }
        }
        let mut at = 0;
        while let Some(symbol) = symbols.get(at as usize) {
            ids.push(symbol.id as i32);
            at = symbol.after;
        }
    }

    fn lay_out(&self, word: &[u8], symbols: &mut Vec<Symbol>) {
        symbols.clear();
        symbols.extend(word.iter().enumerate().map(|(at, &byte)| Symbol {
            id: self.byte_ids[usize::from(byte)],
            before: (at as u32).wrapping_sub(1),
            after: at as u32 + 1,
        }));
        if let Some(last) = symbols.last_mut() {
            last.id += BYTE_IDS as u32;
            last.after = NONE;
        }
    }

    fn rank(&self, symbols: &[Symbol], at: u32) -> Option<u32> {
        let first = symbols.get(at as usize)?;
        let second = symbols.get(first.after as usize)?;
        self.ranks.get(&(first.id, second.id)).copied()
    }

    fn enqueue(&self, symbols: &[Symbol], queue: &mut BinaryHeap<Reverse<(u32, u32)>>, at: u32) {
        if let Some(rank) = self.rank(symbols, at) {
            queue.push(Reverse((rank, at)));
        }
    }

    fn merge(
        &self,
        symbols: &mut [Symbol],
        queue: &mut BinaryHeap<Reverse<(u32, u32)>>,
        at: u32,
        rank: u32,
    ) {
        let gone = symbols[at as usize].after;
        let after = symbols[gone as usize].after;
        // It keeps no neighbour, so queued pairs at it are ignored.
        symbols[gone as usize].after = NONE;
        symbols[at as usize].id = 2 * BYTE_IDS as u32 + rank;
        symbols[at as usize].after = after;
        if let Some(next) = symbols.get_mut(after as usize) {
            next.before = at;
        }
        self.enqueue(symbols, queue, symbols[at as usize].before);
        self.enqueue(symbols, queue, at);
    }
}

fn wrong(line: usize, rule: &str) -> TokenizeError {
    TokenizeError::File { file: format!("clip merges, line {line}"), rule: rule.to_owned() }
}

/// Most frequent first.
fn read_merges(text: &str) -> Result<Vec<Merge<'_>>, TokenizeError> {
    text.lines()
        .enumerate()
        .skip(1)
        .take(MAX_MERGES)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, text)| {
            let line = number + 1;
            let mut parts = text.split_whitespace();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(first), Some(second), None) => Ok(Merge { line, first, second }),
                _ => Err(wrong(line, "a merge is two symbols")),
            }
        })
        .collect()
}

fn symbol_ids(
    letters: &[char],
    merges: &[Merge<'_>],
) -> Result<HashMap<String, u32, RandomState>, TokenizeError> {
    let mut ids = HashMap::default();
    for (id, letter) in letters.iter().enumerate() {
        ids.insert(letter.to_string(), id as u32);
        ids.insert(format!("{letter}{WORD_END}"), (BYTE_IDS + id) as u32);
    }
    for (rank, merge) in merges.iter().enumerate() {
        let symbol = format!("{}{}", merge.first, merge.second);
        if ids.insert(symbol, (2 * BYTE_IDS + rank) as u32).is_some() {
            let rule = "two merges must not give the same symbol";
            return Err(wrong(merge.line, rule));
        }
    }
    Ok(ids)
}

/// The id of each byte, and the letters that represent the bytes in the vocabulary's text, in the order of ids. Printable Latin-1
/// bytes represent themselves and come first; the others are characters from U+0100 on.
fn byte_symbols() -> ([u32; 256], Vec<char>) {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let bytes =
        (0..=255).filter(|byte| printable(*byte)).chain((0..=255).filter(|byte| !printable(*byte)));
    let mut ids = [0; 256];
    let mut symbols = Vec::with_capacity(256);
    let mut next_symbol = 0x100;
    for (id, byte) in bytes.enumerate() {
        ids[usize::from(byte)] = id as u32;
        symbols.push(if printable(byte) {
            char::from(byte)
        } else {
            next_symbol += 1;
            char::from_u32(next_symbol - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        });
    }
    (ids, symbols)
}
