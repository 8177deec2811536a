//! Markup: escaping, numbers for people, and what a section is.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// A part of the page.
#[derive(Clone, Debug)]
pub enum Part {
    /// It can be shown.
    Shown {
        /// Anchor, and key of its data.
        id: &'static str,
        /// Heading.
        title: &'static str,
        /// Markup below the heading.
        html: String,
        /// What the script draws from.
        data: Value,
    },
    /// It cannot.
    Missing {
        /// Heading.
        title: &'static str,
        /// Which file it lacks.
        reason: String,
    },
}

impl Part {
    /// A part with its data.
    pub fn shown(id: &'static str, title: &'static str, html: String, data: &impl Serialize) -> Result<Self> {
        let data = serde_json::to_value(data).map_err(|e| Error::format(format!("section {id}"), e))?;
        Ok(Self::Shown { id, title, html, data })
    }

    /// A part that is left out.
    pub fn missing(title: &'static str, reason: impl ToString) -> Result<Self> {
        Ok(Self::Missing { title, reason: reason.to_string() })
    }
}

/// Text between tags or in a quoted attribute.
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON that can stand in a `<script>`: without `<`, neither `</script>` nor `<!--` can occur in it.
pub fn script_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

/// Pairs of name and value as a list of definitions; both are text.
pub fn facts(pairs: &[(String, String)]) -> String {
    let mut out = String::from("<dl class=facts>");
    for (name, value) in pairs {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", text(name), text(value)); // a String takes everything
    }
    out + "</dl>"
}

/// A number with four significant digits, large and small ones with an exponent.
pub fn number(x: f64) -> String {
    let size = x.abs();
    if x == x.trunc() && size < 1e7 {
        return format!("{x:.0}");
    }
    if !(1e-3..1e7).contains(&size) {
        return format!("{x:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.decimals$}");
    if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Bytes in the largest unit of which there is at least one.
pub fn bytes(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n} bytes"),
    }
}

/// `1 clip`, `2 clips`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Base64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_cannot_be_broken_out_of() {
        assert_eq!(text("</script><b>&\"'"), "&lt;/script&gt;&lt;b&gt;&amp;&quot;&#39;");
        let json = script_json(&Value::from(vec!["</script><!--&\""]));
        assert!(!json.contains('<'), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), ["</script><!--&\""]);
    }

    #[test]
    fn base64_of_the_rfc() {
        for (raw, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(raw.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn numbers_for_people() {
        for (x, expected) in
            [(0.0, "0"), (12.0, "12"), (0.123_456, "0.1235"), (96.279, "96.28"), (0.002, "0.002"), (1e-5, "1.00e-5"), (1234.56, "1235")]
        {
            assert_eq!(number(x), expected);
        }
        assert_eq!((bytes(999), bytes(146_491_383)), ("999 bytes".into(), "146.5 MB".into()));
        assert_eq!((count(1, "clip"), count(0, "clip")), ("1 clip".into(), "0 clips".into()));
    }
}
