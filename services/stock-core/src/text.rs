//! Texts of callers' own making.

use std::fmt;
use std::sync::Arc;

use crate::ids::{IdentifierError, check_text};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            pub fn new(text: &str) -> Result<Self, IdentifierError> {
                check_text(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// Why stock was adjusted: 1-64 bytes without control characters.
    Reason
);

text!(
    /// The caller's own name for what it reserves, an order's number as a rule: 1-64 bytes without
    /// control characters. Several reservations may have the same.
    OrderReference
);
