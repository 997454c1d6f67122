//! A sample's texts → one caption a slot, and a more general one for masking where the configuration asks for it.

use serde_json::Value;

use crate::config::CaptionConfig;
use crate::error::SampleError;
use crate::rng::SampleRng;

/// The key that means the member `.txt` and not the json.
const TXT: &str = "txt";

/// What captions are drawn from: the members' bytes.
#[derive(Debug)]
pub struct Texts {
    txt: Option<String>,
    json: Option<Value>,
}

/// The captions of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    /// The caption.
    pub text: String,
    /// A more general caption that takes its place in the masked rows.
    pub general: Option<String>,
}

impl Texts {
    /// The members' texts.
    ///
    /// # Errors
    /// The caption file is not UTF-8 or the json cannot be parsed.
    pub fn new(txt: Option<&[u8]>, json: Option<&[u8]>) -> Result<Self, SampleError> {
        let txt = txt
            .map(|bytes| std::str::from_utf8(bytes).map_err(|_| SampleError::NotUtf8))
            .transpose()?;
        let json = json.map(serde_json::from_slice).transpose()?;
        Ok(Self {
            txt: txt.map(|text| text.trim().to_owned()),
            json,
        })
    }

    /// Draws one caption for every slot, then the more general ones: no caption depends on `general_prob`.
    ///
    /// # Errors
    /// A drawn source is missing in this sample.
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
            let source = draw_source(slot, rng);
            captions.push(Caption {
                text: self.text(&slot.sources[source].key, rng)?,
                general: None,
            });
            drawn.push(&slot.sources[source]);
        }
        for (caption, source) in captions.iter_mut().zip(drawn) {
            if !source.general.is_empty() && rng.chance(general_prob) {
                let key = &source.general[rng.below(source.general.len() as u32) as usize];
                caption.general = Some(self.text(key, rng)?);
            }
        }
        Ok(())
    }

    fn text(&self, key: &str, rng: &mut SampleRng) -> Result<String, SampleError> {
        if key == TXT {
            return self.txt.clone().ok_or(SampleError::NoCaption("txt"));
        }
        let json = self.json.as_ref().ok_or(SampleError::NoCaption("json"))?;
        let found = key.split('.').try_fold(json, |value, part| value.get(part));
        let value = match found {
            Some(Value::Array(items)) if !items.is_empty() => {
                &items[rng.below(items.len() as u32) as usize]
            }
            Some(value) => value,
            None => &Value::Null,
        };
        value
            .as_str()
            .map(|text| text.trim().to_owned())
            .ok_or_else(|| SampleError::NoJsonCaption(key.to_owned()))
    }
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
