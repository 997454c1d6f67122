//! Draws the captions of a sample: one per slot, and a more general one for masking if configured.

use std::iter;

use super::json::{Json, JsonText};
use crate::config::{CaptionConfig, CaptionSource, TXT};
use crate::error::SampleError;
use crate::rng::SampleRng;

/// The part of a path that selects every element of a list.
const EVERY: &str = "*";

/// The members that captions are drawn from.
#[derive(Debug)]
pub struct Texts<'m> {
    txt: Option<&'m str>,
    json: Option<JsonText<'m>>,
    max_bytes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    pub text: String,
    general: String,
    has_general: bool,
    source: usize,
}

impl Caption {
    /// Replaces this one in masked rows.
    pub fn general(&self) -> Option<&str> {
        self.has_general.then_some(&self.general)
    }
}

impl<'m> Texts<'m> {
    /// Checks the members. A caption may have at most `max_bytes` bytes.
    pub fn new(
        txt: Option<&'m [u8]>,
        json: Option<&'m [u8]>,
        max_bytes: usize,
    ) -> Result<Self, SampleError> {
        let as_text = |bytes: &'m [u8]| {
            within(max_bytes, bytes.len())?;
            std::str::from_utf8(bytes).map_err(|_| SampleError::NotUtf8)
        };
        Ok(Self {
            txt: txt.map(as_text).transpose()?,
            json: json.map(JsonText::parse).transpose()?,
            max_bytes,
        })
    }

    /// Draws one caption per slot, then the more general ones, so that no caption depends on `general_prob`.
    pub fn draw(
        &self,
        slots: &[CaptionConfig],
        general_prob: f64,
        rng: &mut SampleRng,
        captions: &mut Vec<Caption>,
    ) -> Result<(), SampleError> {
        captions.resize_with(slots.len(), Caption::default);
        for (slot, caption) in slots.iter().zip(captions.iter_mut()) {
            caption.source = draw_source(slot, rng);
            caption.has_general = false;
            let source = &slot.sources[caption.source];
            let weights = Weights::of(source);
            self.write(&source.key, weights, rng, &mut caption.text)?;
        }
        for (slot, caption) in slots.iter().zip(captions) {
            let general = &slot.sources[caption.source].general;
            if !general.is_empty() && rng.chance(general_prob) {
                let key = &general[rng.below(general.len() as u32) as usize];
                self.write(key, Weights::Equal, rng, &mut caption.general)?;
                caption.has_general = true;
            }
        }
        Ok(())
    }

    /// Writes one of the strings at a path.
    fn write(
        &self,
        path: &str,
        weights: Weights<'_>,
        rng: &mut SampleRng,
        into: &mut String,
    ) -> Result<(), SampleError> {
        into.clear();
        if path == TXT {
            into.push_str(self.txt.ok_or(SampleError::NoCaption("txt"))?);
            return Ok(());
        }
        let json = self.json.as_ref();
        let json = json.ok_or(SampleError::NoCaption("json"))?.value();
        let found = Found::at(json, path);
        if !found.values.iter().any(is_text) {
            return Err(SampleError::NoJsonCaption {
                path: path.to_owned(),
                why: found.why_none(),
            });
        }
        let drawn = draw_text(json, &found.values, weights, rng);
        let drawn = drawn.map_err(|why| SampleError::JsonWeights { path: path.to_owned(), why })?;
        let text = found.values[drawn].and_then(Json::as_str).unwrap_or_default();
        within(self.max_bytes, text.len())?;
        into.push_str(&text);
        Ok(())
    }
}

fn is_text(value: &Option<Json<'_>>) -> bool {
    value.is_some_and(Json::is_string)
}

fn within(limit: usize, bytes: usize) -> Result<(), SampleError> {
    if bytes > limit {
        return Err(SampleError::CaptionTooLong { bytes, limit });
    }
    Ok(())
}

/// The values at a path of a JSON.
#[derive(Default)]
struct Found<'t, 'p> {
    /// One value, or one for each element of the lists along the path. `None` for an element without the value.
    values: Vec<Option<Json<'t>>>,
    /// The first part of the path that was missing in some element.
    missing: Option<&'p str>,
}

impl<'t, 'p> Found<'t, 'p> {
    fn at(json: Json<'t>, path: &'p str) -> Self {
        let mut found = Self::default();
        found.walk(json, path);
        found
    }

    /// Adds the values at `path`, which starts at `value`.
    fn walk(&mut self, value: Json<'t>, path: &'p str) {
        let (part, rest) = path.split_once('.').unwrap_or((path, ""));
        let next = match (value.is_list(), part) {
            (true, "" | EVERY) => return value.elements().for_each(|value| self.walk(value, rest)),
            (true, name) => match name.parse::<usize>() {
                Ok(place) => value.elements().nth(place),
                // A name applies to the elements, with or without a star before it.
                Err(_) => return value.elements().for_each(|value| self.walk(value, path)),
            },
            (false, "") => return self.values.push(Some(value)),
            (false, name) => value.get(name),
        };
        match next {
            Some(value) => self.walk(value, rest),
            None => {
                self.missing.get_or_insert(part);
                self.values.push(None);
            }
        }
    }

    fn why_none(&self) -> String {
        match (self.missing, self.values.iter().flatten().next()) {
            (_, Some(value)) => format!("found {}", value.kind()),
            (Some(part), None) => format!("there is no {part:?}"),
            (None, None) => "found an empty list".to_owned(),
        }
    }
}

/// How often each of several captions is drawn.
#[derive(Clone, Copy)]
enum Weights<'c> {
    Equal,
    /// By position. Captions without a weight are never drawn.
    Given(&'c [f32]),
    /// A path to one number per caption.
    At(&'c str),
}

impl<'c> Weights<'c> {
    fn of(source: &'c CaptionSource) -> Self {
        match &source.list_weights_key {
            Some(path) => Self::At(path),
            None if source.list_weights.is_empty() => Self::Equal,
            None => Self::Given(&source.list_weights),
        }
    }
}

/// The index of a string; at least one value is one. The error says what is wrong with the weights.
fn draw_text(
    json: Json<'_>,
    values: &[Option<Json<'_>>],
    weights: Weights<'_>,
    rng: &mut SampleRng,
) -> Result<usize, String> {
    let mut numbers: Vec<f32> = match weights {
        Weights::Equal => return Ok(draw_equally(values, rng)),
        Weights::Given(weights) => {
            weights.iter().copied().chain(iter::repeat(0.0)).take(values.len()).collect()
        }
        Weights::At(path) => {
            let others = Found::at(json, path).values;
            if others.len() != values.len() {
                let (numbers, texts) = (others.len(), values.len());
                return Err(format!("{path:?} leads to {numbers} places, not to {texts}"));
            }
            let weight = |(number, value): (&Option<Json<'_>>, _)| {
                let weight = number.and_then(Json::as_number).map(|weight| weight as f32);
                let usable = weight.filter(|weight| weight.is_finite() && *weight >= 0.0);
                usable.or_else(|| (!is_text(value)).then_some(0.0))
            };
            let numbers = others.iter().zip(values).map(weight).collect::<Option<_>>();
            numbers.ok_or_else(|| format!("{path:?} must lead to numbers of at least 0"))?
        }
    };
    for (weight, value) in numbers.iter_mut().zip(values) {
        if !is_text(value) {
            *weight = 0.0;
        }
    }
    if numbers.iter().all(|weight| *weight == 0.0) {
        return Err("the weights of its captions are all 0".to_owned());
    }
    Ok(rng.weighted(numbers.into_iter()))
}

fn draw_equally(values: &[Option<Json<'_>>], rng: &mut SampleRng) -> usize {
    let texts = values.iter().enumerate().filter(|(_, value)| is_text(value));
    let count = texts.clone().count();
    let drawn = if count > 1 { rng.below(count as u32) as usize } else { 0 };
    texts.map(|(place, _)| place).nth(drawn).unwrap_or(0)
}

pub(crate) fn needed_members(slots: &[CaptionConfig]) -> (bool, bool) {
    let sources = slots.iter().flat_map(|slot| &slot.sources);
    let keys: Vec<&String> =
        sources.flat_map(|source| iter::once(&source.key).chain(&source.general)).collect();
    (keys.iter().any(|key| *key == TXT), keys.iter().any(|key| *key != TXT))
}

fn draw_source(slot: &CaptionConfig, rng: &mut SampleRng) -> usize {
    if slot.sources.len() == 1 {
        return 0;
    }
    rng.weighted(slot.sources.iter().map(|source| source.weight))
}

#[cfg(test)]
mod tests;
