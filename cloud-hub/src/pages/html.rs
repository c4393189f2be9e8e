//! HTML in which whatever is not written in this program's own source is escaped.

use std::fmt::Write as _;

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup. Only text of the source can be `'static`, so that nothing from outside gets here by mistake.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, between tags or within a quoted attribute.
    pub fn text(&mut self, text: impl std::fmt::Display) -> &mut Self {
        let _ = write!(Escaped(&mut self.0), "{text}");
        self
    }

    /// The whole.
    pub fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Control characters are of no use on a page, and some of them are not allowed there.
                letter if letter.is_control() && letter != '\n' => self.0.push('\u{fffd}'),
                letter => self.0.push(letter),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let mut html = Html::default();
        html.raw("<b title=\"").text("\" onclick='x' <script>&\0").raw("\">");
        let expected = "<b title=\"&quot; onclick=&#39;x&#39; &lt;script&gt;&amp;\u{fffd}\">";
        assert_eq!(html.finish(), expected);
    }

    #[test]
    fn any_text_is_escaped() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut html = Html::default();
            html.text(String::from_utf8_lossy(bytes));
            assert!(!html.finish().contains(['<', '>', '"', '\'']));
        });
    }
}
