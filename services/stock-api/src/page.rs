//! Lists a page at a time, as AIP-158 has it.

use prost::Message;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Rejection;
use crate::fields::Fields;

/// Which list a page is of. The token of another call, of other filters or of an earlier life of
/// the cluster is none of it.
#[derive(Debug, Clone, Copy)]
pub struct List(u64);

impl List {
    /// Of a call with these filters, as some message has them, in this life.
    pub fn of(call: &str, filters: &impl Message, incarnation: &[u8]) -> Self {
        let seed = xxh3_64_with_seed(call.as_bytes(), xxh3_64(incarnation));
        Self(xxh3_64_with_seed(&filters.encode_to_vec(), seed))
    }

    fn check(self, name: &str) -> u32 {
        xxh3_64_with_seed(name.as_bytes(), self.0) as u32
    }
}

/// Items of a page whose caller does not say how many.
const PAGE_SIZE_USUAL: usize = 1_000;

/// Items of one page, whatever its caller says.
const PAGE_SIZE_MAX: usize = 5_000;

/// Bytes of one page, but for its last item and what is not of its items: far below the largest
/// answer that clients take, and enough for a list that is read quickly.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Hexadecimal digits that a token begins with, made of the rest: what is no token is told from
/// one.
const CHECK_DIGITS: usize = 8;

/// What a caller asks for: so many items, behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<T> {
    /// The last item of the page before; none: the first page.
    pub after: Option<T>,
    /// Items at most.
    pub size: usize,
}

/// Reads the fields of a call for a page of a list. `read` knows the names of items.
pub fn asked<T>(
    list: List,
    fields: &mut Fields,
    page_size: i32,
    page_token: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<Page<T>> {
    let size = match usize::try_from(page_size) {
        Ok(0) => Some(PAGE_SIZE_USUAL),
        Ok(size) => Some(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            fields.refuse(
                "page_size",
                format!("is {page_size}; it must not be negative"),
            );
            None
        }
    };
    let after = match page_token {
        "" => Some(None),
        token => {
            let last = named(list, token).and_then(read);
            if last.is_none() {
                fields.refuse("page_token", "is none that this list gave");
            }
            last.map(Some)
        }
    };
    Some(Page {
        after: after?,
        size: size?,
    })
}

/// Takes what a page has room for, of messages in their order. Says whether there are more.
pub fn fill<M: Message>(size: usize, messages: impl Iterator<Item = M>) -> (Vec<M>, bool) {
    let mut page = Vec::new();
    let mut bytes = 0;
    for message in messages {
        if page.len() >= size || bytes >= PAGE_BYTES_MAX {
            return (page, true);
        }
        bytes += message.encoded_len();
        page.push(message);
    }
    (page, false)
}

/// The token of a list's page behind the item of this name.
pub fn token(list: List, name: &str) -> String {
    format!("{:08x}{name}", list.check(name))
}

/// The token of a page behind the item of this number; none: there is no such page.
pub fn token_of(list: List, last: Option<u64>) -> String {
    last.map_or_else(String::new, |number| token(list, &number.to_string()))
}

/// As [`asked`], of a list of what has numbers.
pub fn asked_by_number(
    list: List,
    page_size: i32,
    page_token: &str,
) -> Result<Page<u64>, Rejection> {
    let mut fields = Fields::default();
    let asked = asked(list, &mut fields, page_size, page_token, |name| {
        name.parse().ok()
    });
    fields.finish(asked)
}

/// The name in a token, if it is one.
fn named(list: List, token: &str) -> Option<&str> {
    let (digits, name) = token.split_at_checked(CHECK_DIGITS)?;
    let given = u32::from_str_radix(digits, 16).ok()?;
    (given == list.check(name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List::of("ListThings", &String::new(), &[7; 16])
    }

    fn read(page_size: i32, page_token: &str) -> Option<Page<String>> {
        let mut fields = Fields::default();
        asked(list(), &mut fields, page_size, page_token, |name| {
            Some(name.to_owned()).filter(|name| !name.is_empty())
        })
    }

    #[test]
    fn a_page_has_a_usual_and_a_largest_size() {
        let size = |page_size| read(page_size, "").map(|page| page.size);
        assert_eq!(size(0), Some(PAGE_SIZE_USUAL));
        assert_eq!(size(7), Some(7));
        assert_eq!(size(i32::MAX), Some(PAGE_SIZE_MAX));
        assert_eq!(size(-1), None);
    }

    #[test]
    fn only_what_a_list_gave_is_a_token() {
        for name in ["a", "store-7", "0", "an id with 8 digits: 01234567"] {
            let given = token(list(), name);
            let page = read(0, &given);
            assert_eq!(page.and_then(|page| page.after).as_deref(), Some(name));
            let mut other = given.clone();
            other.push('x');
            assert_eq!(read(0, &other), None);
            assert_eq!(read(0, &given[1..]), None);
        }
        for bad in ["1", "store-7", "00000000", "é", "+0000000a", " "] {
            assert_eq!(read(0, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_of_another_list_is_none() {
        for other in [
            List::of("ListOthers", &String::new(), &[7; 16]),
            List::of("ListThings", &"filter".to_owned(), &[7; 16]),
            List::of("ListThings", &String::new(), &[8; 16]),
        ] {
            assert_eq!(read(0, &token(other, "a")), None);
        }
    }

    #[test]
    fn a_page_ends_by_number_or_by_bytes() {
        let messages = |bytes: usize, count: usize| (0..count).map(move |_| "x".repeat(bytes));
        let (page, more) = fill(3, messages(1, 4));
        assert_eq!((page.len(), more), (3, true));
        let (page, more) = fill(3, messages(1, 3));
        assert_eq!((page.len(), more), (3, false));
        let (page, more) = fill(100, messages(PAGE_BYTES_MAX / 4, 100));
        assert_eq!((page.len(), more), (4, true));
    }
}
