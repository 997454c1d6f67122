//! Draws the captions of a sample: one per slot, and a more general one for masking if configured.

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

#[derive(Debug, Default)]
pub struct Scratch {
    places: Vec<Place>,
    weight_places: Vec<Place>,
    weights: Vec<f32>,
}

/// Start and end of a value in its JSON. `None` if the value is missing.
type Place = Option<(usize, usize)>;

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
        scratch: &mut Scratch,
        captions: &mut Vec<Caption>,
    ) -> Result<(), SampleError> {
        captions.resize_with(slots.len(), Caption::default);
        for (slot, caption) in slots.iter().zip(captions.iter_mut()) {
            caption.source = draw_source(slot, rng);
            caption.has_general = false;
            let source = &slot.sources[caption.source];
            let weights = Weights::of(source);
            self.write(&source.key, weights, rng, scratch, &mut caption.text)?;
        }
        for (slot, caption) in slots.iter().zip(captions) {
            let general = &slot.sources[caption.source].general;
            if !general.is_empty() && rng.chance(general_prob) {
                let key = &general[rng.below(general.len() as u32) as usize];
                self.write(key, Weights::Equal, rng, scratch, &mut caption.general)?;
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
        scratch: &mut Scratch,
        into: &mut String,
    ) -> Result<(), SampleError> {
        into.clear();
        if path == TXT {
            into.push_str(self.txt.ok_or(SampleError::NoCaption("txt"))?);
            return Ok(());
        }
        let json = self.json.as_ref();
        let json = json.ok_or(SampleError::NoCaption("json"))?.value();
        let mut found = Found::new(json, &mut scratch.places);
        found.walk(json, path);
        if found.values().all(|value| !is_text(value)) {
            return Err(SampleError::NoJsonCaption {
                path: path.to_owned(),
                why: found.why_none(),
            });
        }
        let others = (&mut scratch.weight_places, &mut scratch.weights);
        let drawn = draw_text(&found, weights, others, rng);
        let drawn = drawn.map_err(|why| SampleError::JsonWeights { path: path.to_owned(), why })?;
        let text = found.values().nth(drawn).flatten().and_then(Json::as_str);
        let text = text.unwrap_or_default();
        within(self.max_bytes, text.len())?;
        into.push_str(&text);
        Ok(())
    }
}

fn is_text(value: Option<Json<'_>>) -> bool {
    value.is_some_and(Json::is_string)
}

fn within(limit: usize, bytes: usize) -> Result<(), SampleError> {
    if bytes > limit {
        return Err(SampleError::CaptionTooLong { bytes, limit });
    }
    Ok(())
}

/// The values at a path of a JSON: one value, or one for each element of the lists along the path. `None` for an element
/// without the value.
struct Found<'t, 'p, 's> {
    json: Json<'t>,
    places: &'s mut Vec<Place>,
    /// The first part of the path that was missing in some element.
    missing: Option<&'p str>,
}

impl<'t, 'p, 's> Found<'t, 'p, 's> {
    fn new(json: Json<'t>, places: &'s mut Vec<Place>) -> Self {
        places.clear();
        Self { json, places, missing: None }
    }

    fn values(&self) -> impl Iterator<Item = Option<Json<'t>>> + Clone {
        let json = self.json;
        let values = self.places.iter();
        values.map(move |place| place.map(|(begin, end)| json.part(begin, end)))
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
            (false, "") => return self.places.push(Some(value.place_in(self.json))),
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

    fn why_none(&self) -> String {
        let other = self.values().flatten().next();
        match (self.missing, other) {
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
    found: &Found<'_, '_, '_>,
    weights: Weights<'_>,
    (weight_places, numbers): (&mut Vec<Place>, &mut Vec<f32>),
    rng: &mut SampleRng,
) -> Result<usize, String> {
    numbers.clear();
    match weights {
        Weights::Equal => return Ok(draw_equally(found, rng)),
        Weights::Given(weights) => {
            let all = weights.iter().copied().chain(std::iter::repeat(0.0));
            numbers.extend(all.take(found.places.len()));
        }
        Weights::At(path) => {
            let mut others = Found::new(found.json, weight_places);
            others.walk(found.json, path);
            if others.places.len() != found.places.len() {
                let (numbers, texts) = (others.places.len(), found.places.len());
                return Err(format!("{path:?} leads to {numbers} places, not to {texts}"));
            }
            for (number, value) in others.values().zip(found.values()) {
                let weight = number.and_then(Json::as_number);
                let weight = weight
                    .map(|weight| weight as f32)
                    .filter(|weight| weight.is_finite() && *weight >= 0.0)
                    .or_else(|| (!is_text(value)).then_some(0.0))
                    .ok_or_else(|| format!("{path:?} must lead to numbers of at least 0"))?;
                numbers.push(weight);
            }
        }
    }
    for (weight, value) in numbers.iter_mut().zip(found.values()) {
        if !is_text(value) {
            *weight = 0.0;
        }
    }
    if numbers.iter().all(|weight| *weight == 0.0) {
        return Err("the weights of its captions are all 0".to_owned());
    }
    Ok(rng.weighted(numbers.iter().copied()))
}

fn draw_equally(found: &Found<'_, '_, '_>, rng: &mut SampleRng) -> usize {
    let texts = found.values().enumerate().filter(|(_, value)| is_text(*value));
    let count = texts.clone().count();
    let drawn = if count > 1 { rng.below(count as u32) as usize } else { 0 };
    texts.map(|(place, _)| place).nth(drawn).unwrap_or(0)
}

pub(crate) fn needed_members(slots: &[CaptionConfig]) -> (bool, bool) {
    let sources = slots.iter().flat_map(|slot| &slot.sources);
    let keys: Vec<&String> =
        sources.flat_map(|source| std::iter::once(&source.key).chain(&source.general)).collect();
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
