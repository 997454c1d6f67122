//! Reads lists of strings and booleans strictly. Otherwise a string would pass for the list of its characters, and any value for
//! a boolean.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};

pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    from.deserialize_any(Texts)
}

pub(super) fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    from.deserialize_any(Boolean)
}

/// Height and width, or one number for both.
pub(super) fn sides<'de, D: Deserializer<'de>>(from: D) -> Result<[u32; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a side, or height and width")]
    enum Sides {
        Both(u32),
        Each([u32; 2]),
    }
    Ok(match Sides::deserialize(from)? {
        Sides::Both(side) => [side; 2],
        Sides::Each(sides) => sides,
    })
}

struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of texts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<String>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}

struct Boolean;

impl Visitor<'_> for Boolean {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}
