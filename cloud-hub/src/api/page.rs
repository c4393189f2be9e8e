//! Lists come in pages: `limit` and an opaque `cursor`.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many at most; 100 unless given, 1000 at most.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// How many rows to read.
    pub fn limit(&self) -> Result<u32, Problem> {
        match self.limit {
            None => Ok(LIMIT_DEFAULT),
            Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
            Some(limit) => Err(Problem::malformed(format!("limit {limit} is not between 1 and {LIMIT_MAX}"))),
        }
    }

    /// The text key after which to go on; empty for the first page.
    pub fn after_text(&self) -> Result<String, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(String::new()) };
        let wrong = || Problem::malformed(format!("cursor {cursor:?} is not one that this list gave"));
        let hex = cursor.strip_prefix('c').ok_or_else(wrong)?;
        let bytes: Option<Vec<u8>> = (hex.len() % 2 == 0 && hex.is_ascii())
            .then(|| (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect())
            .flatten();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)
    }

    /// The number before which to go on in a list that begins with the newest.
    pub fn before_number(&self) -> Result<i64, Problem> {
        match self.after_text()?.as_str() {
            "" => Ok(i64::MAX),
            text => text.parse().map_err(|_| Problem::malformed("the cursor belongs to another list")),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What was asked for, in the order of the list.
    pub items: Vec<T>,
    /// Cursor of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of rows read with `limit + 1`; the extra one only says that there is more.
    pub fn cut(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items
            .last()
            .filter(|_| more)
            .map(|item| key(item).bytes().fold(String::from("c"), |cursor, byte| cursor + &format!("{byte:02x}")));
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_to_the_rows_after_the_page() {
        let page = Page::cut(vec!["a", "b", "c"], 2, |item| (*item).to_owned());
        assert_eq!(page.items, ["a", "b"]);
        let next = PageQuery { limit: None, cursor: page.next };
        assert_eq!(next.after_text().unwrap(), "b");
        assert_eq!(Page::cut(vec![1, 2], 2, ToString::to_string).next, None);
    }

    #[test]
    fn a_cursor_of_somebody_else_is_refused() {
        for cursor in ["", "x", "cé1", "c0", "cff", "czz"] {
            let query = PageQuery { limit: None, cursor: Some(cursor.to_owned()) };
            assert_eq!(query.after_text().unwrap_err().status, 400, "{cursor}");
        }
        assert!(PageQuery { limit: Some(0), cursor: None }.limit().is_err());
        assert!(PageQuery { limit: Some(100_000), cursor: None }.limit().is_err());
    }
}
