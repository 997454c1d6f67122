//! A sample's texts → one caption a slot, and a more general one for masking where the configuration asks for it.

use std::borrow::Cow;

use crate::config::{CaptionConfig, CaptionSource, TXT};
use crate::error::SampleError;
use crate::json::Json;
use crate::rng::SampleRng;

/// The part of a path that stands for every element of a list.
const EVERY: &str = "*";

/// What captions are drawn from: the members' bytes.
#[derive(Debug)]
pub struct Texts<'m> {
    txt: Option<&'m str>,
    json: Option<Json<'m>>,
    max_bytes: usize,
}

/// The captions of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    /// The caption, as it stands in its member.
    pub text: String,
    /// A more general caption that takes its place in the masked rows.
    pub general: Option<String>,
}

impl<'m> Texts<'m> {
    /// The members' texts, captions of which may have `max_bytes` bytes.
    ///
    /// # Errors
    /// The caption file is too long or not UTF-8, or the json cannot be parsed.
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
            json: json.map(Json::parse).transpose()?,
            max_bytes,
        })
    }

    /// Draws one caption for every slot, then the more general ones: no caption depends on `general_prob`.
    ///
    /// # Errors
    /// A drawn source is missing in this sample, or the drawn caption is too long.
    pub fn draw(
        &self,
        slots: &[CaptionConfig],
        general_prob: f64,
        rng: &mut SampleRng,
        captions: &mut Vec<Caption>,
    ) -> Result<(), SampleError> {
        captions.clear();
        let mut drawn = Vec::with_capacity(slots.len());
        for slot in slots {
            let source = &slot.sources[draw_source(slot, rng)];
            captions.push(Caption {
                text: self.text(&source.key, Weights::of(source), rng)?,
                general: None,
            });
            drawn.push(source);
        }
        for (caption, source) in captions.iter_mut().zip(drawn) {
            if !source.general.is_empty() && rng.chance(general_prob) {
                let key = &source.general[rng.below(source.general.len() as u32) as usize];
                caption.general = Some(self.text(key, Weights::Equal, rng)?);
            }
        }
        Ok(())
    }

    fn text(
        &self,
        path: &str,
        weights: Weights<'_>,
        rng: &mut SampleRng,
    ) -> Result<String, SampleError> {
        if path == TXT {
            let text = self.txt.ok_or(SampleError::NoCaption("txt"))?;
            return Ok(text.to_owned());
        }
        let json = self.json.ok_or(SampleError::NoCaption("json"))?;
        let mut found = Found::default();
        found.walk(json, path);
        let texts = found
            .places
            .iter()
            .map(|place| place.and_then(Json::as_text));
        let texts: Vec<Option<Cow<'_, str>>> = texts.collect();
        if texts.iter().all(Option::is_none) {
            return Err(SampleError::NoJsonCaption {
                path: path.to_owned(),
                why: found.why_none(),
            });
        }
        let place =
            draw_place(&texts, weights, json, rng).map_err(|why| SampleError::JsonWeights {
                path: path.to_owned(),
                why,
            })?;
        let text = texts.into_iter().nth(place).flatten().unwrap_or_default();
        within(self.max_bytes, text.len())?;
        Ok(text.into_owned())
    }
}

fn within(limit: usize, bytes: usize) -> Result<(), SampleError> {
    if bytes > limit {
        return Err(SampleError::CaptionTooLong { bytes, limit });
    }
    Ok(())
}

/// The places of a json that a path leads to: one, or one for each element of the lists on its way. Nothing where an
/// element has no such part.
#[derive(Default)]
struct Found<'t, 'p> {
    places: Vec<Option<Json<'t>>>,
    /// The first part of the path that was missing somewhere.
    missing: Option<&'p str>,
}

impl<'t, 'p> Found<'t, 'p> {
    /// Takes in what `path`, or what is left of it, leads to from `value`.
    fn walk(&mut self, value: Json<'t>, path: &'p str) {
        let (part, rest) = path.split_once('.').unwrap_or((path, ""));
        let next = match (value.is_list(), part) {
            (true, "" | EVERY) => return value.elements().for_each(|value| self.walk(value, rest)),
            (true, name) => match name.parse::<usize>() {
                Ok(place) => value.elements().nth(place),
                // A name means the elements' own, with or without a star before it.
                Err(_) => return value.elements().for_each(|value| self.walk(value, path)),
            },
            (false, "") => return self.places.push(Some(value)),
            (false, name) => value.get(name),
        };
        match next {
            Some(value) => self.walk(value, rest),
            None => {
                self.missing.get_or_insert(part);
                self.places.push(None);
            }
        }
    }

    /// Why no place holds a text.
    fn why_none(&self) -> String {
        let other = self.places.iter().flatten().next();
        match (self.missing, other) {
            (_, Some(value)) => format!("{} stands there", value.kind()),
            (Some(part), None) => format!("there is no {part:?}"),
            (None, None) => "an empty list stands there".to_owned(),
        }
    }
}

/// How often each of several captions is drawn.
#[derive(Clone, Copy)]
enum Weights<'c> {
    Equal,
    /// By place; what has none is never drawn.
    Given(&'c [f32]),
    /// A path to as many numbers.
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

/// The place of a text, of which there is at least one; what is wrong with the weights where none can be drawn.
fn draw_place(
    texts: &[Option<Cow<'_, str>>],
    weights: Weights<'_>,
    json: Json<'_>,
    rng: &mut SampleRng,
) -> Result<usize, String> {
    let mut weights: Vec<f32> = match weights {
        Weights::Equal => return Ok(draw_equally(texts, rng)),
        Weights::Given(weights) => {
            let all = weights.iter().copied().chain(std::iter::repeat(0.0));
            all.take(texts.len()).collect()
        }
        Weights::At(path) => {
            let mut found = Found::default();
            found.walk(json, path);
            if found.places.len() != texts.len() {
                let (numbers, texts) = (found.places.len(), texts.len());
                return Err(format!(
                    "{path:?} leads to {numbers} places, not to {texts}"
                ));
            }
            let number = |(place, text): (&Option<Json<'_>>, &Option<_>)| {
                let weight = place.and_then(Json::as_number);
                weight
                    .map(|weight| weight as f32)
                    .filter(|weight| weight.is_finite() && *weight >= 0.0)
                    .or_else(|| text.is_none().then_some(0.0))
                    .ok_or_else(|| format!("{path:?} must lead to numbers of at least 0"))
            };
            let numbers = found.places.iter().zip(texts).map(number);
            numbers.collect::<Result<_, _>>()?
        }
    };
    for (weight, text) in weights.iter_mut().zip(texts) {
        if text.is_none() {
            *weight = 0.0;
        }
    }
    if weights.iter().all(|weight| *weight == 0.0) {
        return Err("the weights of its captions are all 0".to_owned());
    }
    Ok(rng.weighted(&weights))
}

fn draw_equally(texts: &[Option<Cow<'_, str>>], rng: &mut SampleRng) -> usize {
    let count = texts.iter().flatten().count();
    let drawn = if count > 1 {
        rng.below(count as u32) as usize
    } else {
        0
    };
    let mut places = (0..texts.len()).filter(|place| texts[*place].is_some());
    places.nth(drawn).unwrap_or(0)
}

/// Whether any of the slots can draw from the member `.txt`, and whether any can draw from the json.
#[must_use]
pub fn needed_members(slots: &[CaptionConfig]) -> (bool, bool) {
    let sources = slots.iter().flat_map(|slot| &slot.sources);
    let keys: Vec<&String> = sources
        .flat_map(|source| std::iter::once(&source.key).chain(&source.general))
        .collect();
    (
        keys.iter().any(|key| *key == TXT),
        keys.iter().any(|key| *key != TXT),
    )
}

fn draw_source(slot: &CaptionConfig, rng: &mut SampleRng) -> usize {
    if slot.sources.len() == 1 {
        return 0;
    }
    let weights: Vec<f32> = slot.sources.iter().map(|source| source.weight).collect();
    rng.weighted(&weights)
}

#[cfg(test)]
mod tests;
