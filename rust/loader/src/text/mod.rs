//! Text: captions of a sample, their token ids, and masking.

pub mod captions;
pub mod json;
pub mod mask;
pub mod tokenize;
