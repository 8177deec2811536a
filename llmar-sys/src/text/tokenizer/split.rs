//! Cutting a text into words before byte-level merging: single digits out, then GPT-2's pattern on every stretch between them,
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! by hand: the pattern needs look-ahead, and a regular-expression engine would be the largest part of the library.

use unicode_general_category::{GeneralCategory, get_general_category};

const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// The pattern's character classes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `\s`: Unicode's White_Space.
    Space,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// The rest.
    Other,
}

fn class(character: char) -> Class {
    use GeneralCategory::{
        DecimalNumber, LetterNumber, LowercaseLetter, ModifierLetter, OtherLetter, OtherNumber, TitlecaseLetter, UppercaseLetter,
    };
    if character.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(character) {
        LowercaseLetter | ModifierLetter | OtherLetter | TitlecaseLetter | UppercaseLetter => Class::Letter,
        DecimalNumber | LetterNumber | OtherNumber => Class::Number,
        _ => Class::Other,
    }
}

/// The words of a text, in order; together they are the text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let mut stretch = 0; // bytes of `rest` before the next number
    std::iter::from_fn(move || {
        if stretch == 0 {
            let first = rest.chars().next()?;
            stretch = rest.find(|c| class(c) == Class::Number).unwrap_or(rest.len());
            if stretch == 0 {
                let (number, behind) = rest.split_at(first.len_utf8());
                rest = behind;
                return Some(number);
            }
        }
        let len = word_len(&rest[..stretch]);
        let (word, behind) = rest.split_at(len);
        rest = behind;
        stretch -= len;
        Some(word)
    })
}

/// Bytes of the first match of the pattern in a stretch that is not empty and holds no number.
fn word_len(stretch: &str) -> usize {
    if let Some(contraction) = CONTRACTIONS.iter().find(|contraction| stretch.starts_with(**contraction)) {
        return contraction.len();
    }
    let body = stretch.strip_prefix(' ').filter(|body| body.starts_with(|c| class(c) != Class::Space)).unwrap_or(stretch);
    let kind = body.chars().next().map_or(Class::Space, class);
    let run = body.find(|c| class(c) != kind).unwrap_or(body.len());
    let end = stretch.len() - body.len() + run;
    if kind != Class::Space || end == stretch.len() {
        return end;
    }
    // White space before a word: its last character belongs to what follows, unless it is the only one.
    let last = stretch[..end].chars().next_back().map_or(0, char::len_utf8);
    if end > last { end - last } else { end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        words(text).collect()
    }

    #[test]
    fn cuts_as_the_pattern_does() {
        assert_eq!(cut(""), [""; 0]);
        assert_eq!(cut("Hello world"), ["Hello", " world"]);
        assert_eq!(cut("a  b"), ["a", " ", " b"]);
        assert_eq!(cut("a \n\n b  "), ["a", " \n\n", " b", "  "]);
        assert_eq!(cut("a\tb"), ["a", "\t", "b"]);
        assert_eq!(cut("it's 's !'s"), ["it", "'s", " '", "s", " !'", "s"]);
        assert_eq!(cut("we'll'"), ["we", "'ll", "'"]);
        assert_eq!(cut("x  12 y"), ["x", "  ", "1", "2", " y"]);
        assert_eq!(cut("\u{a0}a\u{3000}"), ["\u{a0}", "a", "\u{3000}"]);
        assert_eq!(cut("é½۳ⅷ"), ["é", "½", "۳", "ⅷ"]);
        assert_eq!(cut("x\u{301} -_"), ["x", "\u{301}", " -_"]);
    }

    proptest! {
        #[test]
        fn words_are_the_text_and_never_empty(text in r"[ \t\n'a-zé0-9½²\u{301}!?世\u{a0}\u{3000}😀]{0,40}") {
            let words = cut(&text);
            prop_assert_eq!(words.concat(), text.as_str());
            prop_assert!(words.iter().all(|word| !word.is_empty()));
        }

        #[test]
        fn any_text_can_be_cut(text: String) {
            prop_assert_eq!(cut(&text).concat(), text);
        }
    }
}
