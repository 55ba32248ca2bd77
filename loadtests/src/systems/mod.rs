//! What is measured: systems that can reserve, each in the way that suits it best.

pub(crate) mod stockd;

/// What a call reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One line; the SKUs in turn.
    Uniform,
    /// One line, always of the same SKU.
    Hot,
    /// So many lines of different SKUs, all or nothing.
    Basket(usize),
}
