//! The words of a prompt that depend on its labels.

/// A prompt's suffix that names the answers to choose from: " from [a, b, c]" goes before its last full stop, or to its end.
pub fn suffix_with_list(suffix: &str, labels: &[impl AsRef<str>]) -> String {
    let list: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
    let at = suffix.rfind('.').unwrap_or(suffix.len());
    format!("{} from [{}]{}", &suffix[..at], list.join(", "), &suffix[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_goes_before_the_last_full_stop() {
        let list = ["wave", "sit down"];
        assert_eq!(
            suffix_with_list(", please predict the corresponding action.", &list),
            ", please predict the corresponding action from [wave, sit down]."
        );
        assert_eq!(suffix_with_list(" action.<|im_end|>\n", &list), " action from [wave, sit down].<|im_end|>\n");
        assert_eq!(suffix_with_list(":", &["wave"]), ": from [wave]");
        assert_eq!(suffix_with_list("", &["wave"]), " from [wave]");
    }
}
