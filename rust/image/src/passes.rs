//! The two passes of a resize.

use super::coefficients::Coefficients;
use super::crop_rows::CropRows;

#[derive(Clone, Copy)]
pub(super) struct Passes<'a> {
    pub(super) source: CropRows<'a>,
    /// For the pass along the rows.
    pub(super) columns: &'a Coefficients,
    /// For the pass along the columns.
    pub(super) rows: &'a Coefficients,
    pub(super) columns_first: bool,
}
