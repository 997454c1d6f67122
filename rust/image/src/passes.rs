//! The two passes of a resize, for the kernels of all instruction sets.

use super::coefficients::Coefficients;
use super::crop_rows::CropRows;

#[derive(Clone, Copy)]
pub(super) struct Passes<'a> {
    pub(super) source: CropRows<'a>,
    /// Weights of the columns, for the pass along the rows.
    pub(super) columns: &'a Coefficients,
    /// Weights of the rows, for the pass along the columns.
    pub(super) rows: &'a Coefficients,
    /// Whether the pass along the columns comes first.
    pub(super) columns_first: bool,
}
